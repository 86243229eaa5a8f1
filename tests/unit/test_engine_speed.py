"""The engine's speed bench runs and reports ratios; what they are is for the bench to say, not for a test."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_engine_speed_prints_ratios(root):
    command = [sys.executable, "-m", "bench.engine_speed", "--json", "--trials", "1", "--length", "128"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-800:]
    result = json.loads(done.stdout)
    assert {(r["batch"]) for r in result["generate"]} == {1, 16}
    assert all(r["ratio"] > 0 for r in result["generate"])
