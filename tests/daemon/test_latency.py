"""The daemon is quick: its own measurement, and that nothing heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def test_selftest_finds_the_first_event_within_50_ms() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pipod.selftest", "--json", "--jobs", "15"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    for name in ("ack_ms", "first_event_ms", "started_ms"):
        assert result[name]["median"] < result["limit_ms"] == 50, result


@pytest.mark.parametrize("module", ["pipod.client", "pipod.daemon", "pipod.worker", "pipod.__main__"])
def test_nothing_heavy_is_imported(module: str) -> None:
    heavy = ("torch", "transformers", "numpy", "matplotlib")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n", done.stdout + done.stderr
