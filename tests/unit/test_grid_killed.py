"""A study whose daemon is killed in its middle: the same command goes on, and no finished point is made again."""

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

from tests.unit.grid_runs import samples

PIPO = [sys.executable, "-c", "from pipo.cli import main; main()"]
STUDY = ["ablate", "eagle-depth", "--task", "lab-chain", "--limit", "40", "--k", "2"]
RUNS, ITEMS = 14, 40


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pipo-") as folder:  # short: sockets have short names
        yield Path(folder)
        pipo(Path(folder), "down")


def pipo(home: Path, *words: str) -> str:
    environment = {**os.environ, "PIPO_HOME": str(home)}
    done = subprocess.run([*PIPO, *words], env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Unit -> what its record file holds, whole lines only."""
    found = {path.parent.name: path.read_bytes() for path in folder.glob("units/*/records.jsonl")}
    return {name: data[: data.rfind(b"\n") + 1] for name, data in found.items() if data}


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_study_whose_daemon_is_killed_makes_no_finished_point_again(home: Path) -> None:
    job = pipo(home, *STUDY, "--detach").strip()
    folder = home / "jobs" / f"{int(job):04d}-ablate-grid"
    until = time.monotonic() + 120
    while len(contents(folder)) < 3:
        assert time.monotonic() < until, "the study does not come to its third point"
        time.sleep(0.05)
    status = json.loads(pipo(home, "status", "--json"))["status"]
    os.kill(status["pid"], signal.SIGKILL)
    time.sleep(0.5)  # its worker ends by itself
    kept = contents(folder)
    whole = [name for name, data in kept.items() if data.count(b'"type":"sample"') == 2 * ITEMS]
    assert len(whole) >= 2 and len(kept) < RUNS and not (folder / "summary.json").exists()
    times = {name: (folder / "units" / name / "records.jsonl").stat().st_mtime_ns for name in whole}
    again = json.loads(pipo(home, *STUDY, "--json"))
    assert str(again["job"]) == job, "the same job goes on"
    now = contents(folder)
    assert all(now[name].startswith(data) for name, data in kept.items()), "finished items are kept as they were"
    assert {n: (folder / "units" / n / "records.jsonl").stat().st_mtime_ns for n in whole} == times
    assert len(samples(folder)) == ITEMS * (7 * 2 + 7), "each sample once: seven runs of two, seven greedy ones of one"
    assert len(again["result"]["points"]) == RUNS
