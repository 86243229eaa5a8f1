"""What a machine can do: rates come out positive and named, calls are counted; nothing here judges a time."""

import math

import pytest
import torch

from bench import machine
from bench.machine import MACHINES, Machine, count_calls
from pipo.errors import BadInput


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_measured_machine_has_all_its_rates(dtype: torch.dtype) -> None:
    m = machine.measure("cpu", dtype, read_bytes=1 << 20, long_s=1e-4)
    for value in (m.bandwidth, m.matmul_rate, m.attention_rate, m.call_s, m.memory):
        assert value > 0 and math.isfinite(value)
    assert m.name == "cpu" and m.threads == torch.get_num_threads() and machine.dtype_of(m.dtype) == dtype


def test_the_ideal_machine_is_the_one_of_the_worked_figures() -> None:
    m = machine.named("h100-ideal")
    assert (m.bandwidth, m.matmul_rate, m.attention_rate, m.call_s) == (3.0e12, 700e12, 700e12, 0.0)
    assert all(name == m.name for name, m in MACHINES.items())


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown machine 'h200'.*measure.*h100-ideal"):
        machine.named("h200")
    with pytest.raises(BadInput, match="unknown dtype 'int3'.*float32, bfloat16"):
        machine.dtype_of("int3")


@pytest.mark.parametrize("change", [{"bandwidth": 0.0}, {"matmul_rate": -1.0}, {"attention_rate": math.nan}])
def test_rates_must_be_above_zero(change: dict[str, float]) -> None:
    rates = {"bandwidth": 1.0, "matmul_rate": 1.0, "attention_rate": 1.0} | change
    with pytest.raises(BadInput, match=f"{next(iter(change))} .* must be above 0"):
        Machine(name="m", **rates)  # type: ignore[arg-type]


def test_calls_are_operators_dispatched_views_among_them() -> None:
    x = torch.ones(4, 4)
    assert count_calls(lambda: torch.mm(x, x).narrow(0, 0, 2).add_(1)) == 3
    assert count_calls(lambda: None) == 0
    with torch.inference_mode():
        assert count_calls(lambda: x + x) == 1


def test_the_best_of_two_measurements_counts() -> None:
    a = machine.Machine(name="m", bandwidth=2.0, matmul_rate=5.0, attention_rate=1.0, call_s=3.0)
    b = machine.Machine(name="m", bandwidth=1.0, matmul_rate=6.0, attention_rate=1.5, call_s=2.0)
    best = machine.Machine(name="m", bandwidth=2.0, matmul_rate=6.0, attention_rate=1.5, call_s=2.0)
    assert a.best(b) == b.best(a) == best
