"""Roll-outs as they are typed, over a real daemon: the worker is killed, the job resumed, the files are the same."""

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
from typing import Any

import pytest

PIPO = [sys.executable, "-c", "from pipo.cli import main; main()"]
ROLLOUTS = ["data", "rollouts", "lab/teacher", "lab-chain", "--levels", "4-8", "--limit", "300", "--seed", "5"]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pipo-") as folder:  # short: sockets have short names
        yield Path(folder)
        pipo(Path(folder), "down")


def pipo(home: Path, *words: str, code: int | None = 0) -> str:
    environment = {**os.environ, "PIPO_HOME": str(home)}
    done = subprocess.run([*PIPO, *words], env=environment, capture_output=True, text=True, timeout=200)
    assert code is None or done.returncode == code, done.stderr
    return done.stdout


def records(folder: Path) -> bytes:
    path = folder / "records.jsonl"
    return path.read_bytes() if path.exists() else b""


@pytest.mark.slow
def test_a_killed_run_that_is_resumed_builds_the_same_files(home: Path) -> None:
    job = pipo(home, *ROLLOUTS, "--detach").strip()
    folder = home / "jobs" / f"{int(job):04d}-rollouts"
    until = time.monotonic() + 100
    while records(folder).count(b'"sample"') < 40:
        assert time.monotonic() < until, "the job does not come to its first questions"
        time.sleep(0.1)
    status: dict[str, Any] = json.loads(pipo(home, "status", "--json"))["status"]
    os.kill(status["worker_pid"], signal.SIGKILL)
    pipo(home, "jobs", "wait", job, code=None)
    kept = records(folder)
    kept = kept[: kept.rfind(b"\n") + 1]
    assert not (folder / "summary.json").exists(), "it was killed before its end"
    pipo(home, "jobs", "resume", job)
    assert records(folder).startswith(kept), "finished questions are kept as they were"
    other = json.loads(pipo(home, *ROLLOUTS, "--json"))["job"]
    for name, words in (("sft", ["build-sft"]), ("opd", ["build-opd", "--rho", "0.75"])):
        built = [home / f"{name}-{which}.jsonl" for which in ("killed", "whole")]
        for number, out in zip((job, str(other)), built, strict=True):
            pipo(home, "data", words[0], number, *words[1:], "--out", str(out))
        assert built[0].read_bytes() == built[1].read_bytes() != b""
    shown = pipo(home, "data", "show", str(home / "sft-whole.jsonl"), "--model", "lab/base", "--rows", "1")
    rows = len((home / "sft-whole.jsonl").read_text().splitlines())
    assert shown.startswith(f"{rows:,} rows (mean ") and "?│" in shown
