"""The command line over a real daemon: joining, Ctrl-C, cancelling, resuming, a daemon that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipod.client import Client, JobInfo, connect

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
LONG = [*NOOP, "400", "0.05"]  # longer than any test waits, on a busy machine too: each cancels it


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


def begin(command: list[str], environ: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    """Start a command that follows a job; returns when it has shown progress, with what it said up to there."""
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "/400" in line:
            return process, said
    raise AssertionError(f"no progress shown; ended with {process.wait()}\n{said}")


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and the rest of what it said."""
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, err


def daemon(environ: dict[str, str]) -> Client:
    return connect(start=False, home=Path(environ["PIPO_HOME"]))


def latest(environ: dict[str, str]) -> JobInfo:
    """The newest job, asked for in this process (starting another takes longer than some tests)."""
    with daemon(environ) as client:
        return client.jobs()[-1]


def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def items_of(job: JobInfo) -> list[str]:
    """The items that a noop job has finished, as its records name them."""
    return [line.split(" by ")[0] for line in (Path(job.folder) / "records.txt").read_text().splitlines()]


def cancel(job: JobInfo, environ: dict[str, str]) -> None:
    with daemon(environ) as client:
        client.cancel(job.id)
        client.wait(job.id)


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
    process, _ = begin(LONG, environ)
    process.send_signal(signal.SIGINT)
    code, err = end(process)
    job = latest(environ)
    assert code == 130, err
    assert f"`pipo jobs wait {job.id}`" in err
    assert job.state == "running"
    again, said = begin(LONG, environ)
    assert f"job {job.id} with these very settings is running already" in said
    cancel(job, environ)
    code, err = end(again)
    assert code == 130 and f"job {job.id} was cancelled" in err


def test_cancelled_job_is_resumed_from_its_items(environ: dict[str, str]) -> None:
    process, _ = begin(LONG, environ)
    job = latest(environ)
    assert run([*PIPO, "jobs", "cancel", str(job.id)], environ).returncode == 0
    assert end(process)[0] == 130
    with daemon(environ) as client:
        client.wait(job.id)
    before = items_of(job)
    resumed = run([*PIPO, "jobs", "resume", str(job.id), "--detach"], environ)
    assert (resumed.returncode, resumed.stdout) == (0, f"{job.id}\n")
    follower, _ = begin([*PIPO, "jobs", "wait", str(job.id)], environ)
    until(lambda: len(items_of(job)) > len(before))
    cancel(job, environ)
    assert end(follower)[0] == 130
    items = items_of(job)
    assert items[: len(before)] == before and len(set(items)) == len(items), "an item was done twice"


def test_failures_of_the_job_are_exit_codes(environ: dict[str, str]) -> None:
    bad = run([*NOOP, "3", "0", "--fault", "bad-input"], environ)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "leave out `fault`" in bad.stderr
    crash = run([*NOOP, "3", "0", "--fault", "crash"], environ)
    assert crash.returncode == 1
    assert "pipo jobs logs" in crash.stderr


def test_killed_daemon_is_said_and_the_same_command_goes_on(environ: dict[str, str]) -> None:
    process, _ = begin(LONG, environ)
    job = latest(environ)
    with daemon(environ) as client:
        os.kill(client.status().pid, signal.SIGKILL)
    code, err = end(process)
    assert code == 3, err
    assert f"`pipo jobs wait {job.id}`" in err
    before = items_of(job)
    again, said = begin(LONG, environ)
    assert "started the daemon" in said and f"job {job.id} with these very settings" in said
    until(lambda: len(items_of(job)) > len(before))
    cancel(job, environ)
    assert end(again)[0] == 130
    items = items_of(job)
    assert items[: len(before)] == before and len(set(items)) == len(items), "an item was done twice"
