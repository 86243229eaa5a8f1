"""The command line over a real daemon: joining, Ctrl-C, cancelling, resuming, a daemon that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipod.client import JobInfo, connect

pytestmark = pytest.mark.xdist_group("cli-daemon")

PIPO = [sys.executable, "-c", "from pipo.cli import main; main()"]
FOLLOW = """
import sys
from pipo.cli import show
from pipo.cli.app import app, main
from pipo.cli.follow import run_job

@app.command("noop")
def noop(items: int, delay: float, fault: str = "", json: bool = False) -> None:
    spec = {"items": items, "delay_s": delay} | ({"fault": fault} if fault else {})
    run_job("noop", spec, as_json=json, detach=False, show=show.plain)

main()
"""
NOOP = [sys.executable, "-c", FOLLOW, "noop"]


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """A PIPO_HOME with a short path; its daemon goes down at the end."""
    with tempfile.TemporaryDirectory(prefix="pipo-c", ignore_cleanup_errors=True) as home:
        environ = os.environ | {"PIPO_HOME": home}
        yield environ
        subprocess.run([*PIPO, "down"], env=environ, capture_output=True, timeout=60)


def run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def begin(command: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    """Start a command that follows a job, and return when it has shown progress."""
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "/" in line and "item" in line:
            return process
    raise AssertionError(f"no progress shown; ended with {process.wait()}")


def latest(environ: dict[str, str]) -> JobInfo:
    """The newest job, asked for in this process (starting another takes longer than some tests)."""
    with connect(start=False, home=Path(environ["PIPO_HOME"])) as client:
        return client.jobs()[-1]


def test_first_command_starts_the_daemon_and_ends_with_the_result(environ: dict[str, str]) -> None:
    first = run([*NOOP, "3", "0"], environ)
    assert first.returncode == 0, first.stderr
    assert "started the daemon" in first.stderr
    assert "3/3 · item 2" in first.stderr
    assert "items: 3" in first.stdout
    second = run([*NOOP, "3", "0", "--json"], environ)
    assert json.loads(second.stdout)["result"]["items"] == 3
    assert "started" not in second.stderr
    assert "\x1b" not in first.stdout + first.stderr


def test_ctrl_c_leaves_the_job_running_and_a_second_command_joins_it(environ: dict[str, str]) -> None:
    process = begin([*NOOP, "24", "0.06"], environ)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    job = str(latest(environ).id)
    assert process.returncode == 130, err
    assert f"`pipo jobs wait {job}`" in err
    assert latest(environ).state == "running"
    again = run([*NOOP, "24", "0.06"], environ)
    assert again.returncode == 0
    assert f"job {job} with these very settings is running already" in again.stderr
    waited = run([*PIPO, "jobs", "wait", job, "--json"], environ)
    assert json.loads(waited.stdout)["result"] == {"items": 24, "resumed_at": 0}


def test_cancelled_elsewhere_and_resumed(environ: dict[str, str]) -> None:
    process = begin([*NOOP, "20", "0.06"], environ)
    job = str(latest(environ).id)
    assert run([*PIPO, "jobs", "cancel", job], environ).returncode == 0
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "cancelled" in err
    resumed = run([*PIPO, "jobs", "resume", job, "--json"], environ)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["result"]["resumed_at"] > 0


def test_failures_of_the_job_are_exit_codes(environ: dict[str, str]) -> None:
    bad = run([*NOOP, "3", "0", "--fault", "bad-input"], environ)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "leave out `fault`" in bad.stderr
    crash = run([*NOOP, "3", "0", "--fault", "crash"], environ)
    assert crash.returncode == 1
    assert "pipo jobs logs" in crash.stderr


def test_killed_daemon_is_said_and_the_same_command_goes_on(environ: dict[str, str]) -> None:
    process = begin([*NOOP, "21", "0.06"], environ)
    job = str(latest(environ).id)
    time.sleep(0.2)
    with connect(start=False, home=Path(environ["PIPO_HOME"])) as client:
        os.kill(client.status().pid, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert f"`pipo jobs wait {job}`" in err
    again = run([*NOOP, "21", "0.06", "--json"], environ)
    assert again.returncode == 0, again.stderr
    assert "started the daemon" in again.stderr and f"job {job} with these very settings" in again.stderr
    assert json.loads(again.stdout)["result"]["resumed_at"] > 0
    assert Path(json.loads(again.stdout)["folder"]).is_dir()
