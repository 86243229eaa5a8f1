"""The daemon measures itself (what is quick enough is for the measurement to say), and imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def test_selftest_measures_acknowledgement_and_first_event() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pipod.selftest", "--json", "--jobs", "15"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: over its limit, as a busy machine may be
    result = json.loads(done.stdout)
    assert result["jobs"] == 15 and result["limit_ms"] == 50
    assert 0 < result["ack_ms"]["median"] <= result["ended_ms"]["median"], result
    assert 0 < result["first_event_ms"]["median"] <= result["ended_ms"]["median"], result


@pytest.mark.parametrize("module", ["pipod.client", "pipod.daemon", "pipod.worker", "pipod.__main__"])
def test_nothing_heavy_is_imported(module: str) -> None:
    heavy = ("torch", "transformers", "numpy", "matplotlib")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n", done.stdout + done.stderr
