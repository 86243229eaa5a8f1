"""The engine's speed bench runs and reports ratios; what they are is for the bench to say, not for a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import profile, speed_floors
from bench.machine import Machine

NAMES = ["regular", "mtp", "eagle", "pipo"]


@pytest.mark.slow
def test_engine_speed_prints_ratios(root: Path) -> None:
    command = [sys.executable, "-m", "bench.engine_speed", "--json", "--trials", "1", "--steps", "2", "--length", "128",
               "--context", "64"]  # fmt: skip
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-800:]
    result = json.loads(done.stdout)
    assert {(r["batch"]) for r in result["generate"]} == {1, 32}
    assert all(r["ratio"] > 0 for r in result["generate"])
    cells = [(s["shape"], s["batch"]) for s in result["floors"]["shapes"]]
    assert cells == [("lab", 1), ("lab", 8), ("lab", 64), ("158m", 1), ("158m", 8)]
    assert list(result["outside"]["methods"]) == NAMES and result["outside"]["batch"] == 64
    assert len(result["products"]) == 20 and all(r["chosen_us"] > 0 for r in result["products"])
    assert [(r["vocabulary"], r["batch"], r["method"]) for r in result["draft_head"]] == [
        (v, b, m) for v in (8192, 65536) for b in (1, 8) for m in ("eagle", "pipo")
    ]
    assert all(r["floor_gain"] > 1 < r["whole_ms"] for r in result["draft_head"])
    assert result["first_token"]["ratio"] > 0 and len(result["steps"]) == 2


@pytest.mark.slow
def test_one_section_alone_as_lines(root: Path) -> None:
    command = [sys.executable, "-m", "bench.engine_speed", "--section", "steps", "--steps", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
    assert done.stdout.splitlines()[0] == "steps:" and done.stdout.count("pipo") == 2


def test_methods_stand_beside_their_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Machine(name="test", bandwidth=1e9, matmul_rate=1e9, attention_rate=1e9, call_s=1e-6, dtype="float32")
    monkeypatch.setattr("bench.machine.measure", lambda device, dtype: rates)
    found = speed_floors.floors("cpu", batches={"lab": (1, 2)}, context=32, rounds=1, steps=2)
    assert [(s["shape"], s["batch"]) for s in found["shapes"]] == [("lab", 1), ("lab", 2)]
    for cell in found["shapes"]:
        methods: dict[str, Any] = cell["methods"]
        assert list(methods) == NAMES
        assert methods["regular"]["quotient"] == 1.0
        assert methods["pipo"]["tokens_per_step_and_row"] == methods["mtp"]["tokens_per_step_and_row"] == 2.0
        for m in methods.values():
            assert m["calls"] > 100 and m["floor_ms"] > m["calls_ms"] > 0
            assert m["quotient"] == pytest.approx(m["step_ratio"] / m["floor_ratio"], rel=0.02)


def test_time_within_torch_counts_no_operator_twice() -> None:
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        torch.nn.functional.linear(torch.ones(4, 4), torch.ones(4, 4))
    events = recorded.events()
    outer = [e for e in events if e.cpu_parent is None]
    assert len(outer) < len(events), "an operator that calls others"
    assert profile.within(events) == pytest.approx(sum(e.cpu_time_total for e in outer) / 1e6)


def test_the_share_outside_torch_has_both_bounds() -> None:
    found = profile.outside(batch=2, steps=2)
    assert list(found["methods"]) == NAMES
    for m in found["methods"].values():
        assert m["torch_ms"] > 0 and m["outside"] < 1 and m["outside_profiled"] < 1
