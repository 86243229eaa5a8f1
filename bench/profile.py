"""How much of an engine step is spent outside torch: section ``outside`` of engine_speed.

Measure: the wall time of a step without any profiler, and beside it the time within torch operators, as torch.profiler
records it in further steps of the same rows. Only operators that no other operator called are summed, so nothing is
counted twice. The share outside is 1 - inside / wall: Python of the engine, of its bookkeeping, and torch's own binding
code before and after an operator.

Bias: the profiler stretches what it records. Each operator that runs within a recorded one adds its bookkeeping (about
a microsecond) to that one's time, so inside comes out too long and the share outside too small, the more the smaller
the operators are; it can fall below 0. So ``outside`` is a lower bound. ``outside_profiled`` takes the wall time of the
profiled steps instead: there the bookkeeping between operators counts as outside, so it is an upper bound. The truth
lies between. On a GPU operators only launch work, and neither figure means much.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from bench.speed_floors import METHODS, engine_for, leave, rows_at
from pipo.engine import TorchEngine
from pipo.engine.types import Method

CONTEXT = 128


def outside(shape: str = "lab", batch: int = 64, *, steps: int = 20) -> dict[str, Any]:
    """The section: for each method the step's wall time, time within torch, and bounds of the share outside."""
    engine = engine_for(shape, "cpu", batch, CONTEXT, 2 * steps)
    return {
        "shape": shape, "batch": batch, "context": CONTEXT,
        "methods": {m.name: share(engine, m, batch, steps) for m in METHODS},
    }  # fmt: skip


def share(engine: TorchEngine, method: Method, batch: int, steps: int) -> dict[str, float]:
    """Figures of one method: plain steps first, then as many under the profiler."""
    ids = rows_at(engine, method, batch, CONTEXT, 2 * steps)
    wall = statistics.median(timed(engine, steps))
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        profiled = timed(engine, steps)
    leave(engine, ids)
    inside = within(recorded.events()) / steps
    return {
        "step_ms": round(1e3 * wall, 4),
        "torch_ms": round(1e3 * inside, 4),
        "outside": round(1 - inside / wall, 3),
        "outside_profiled": round(1 - inside / statistics.mean(profiled), 3),
    }


def timed(engine: TorchEngine, steps: int) -> list[float]:
    """Seconds of each of so many steps."""
    out = []
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        out.append(time.perf_counter() - start)
    return out


def within(events: list[FunctionEvent]) -> float:
    """Seconds within operators that no other operator called."""
    cpu = torch.autograd.DeviceType.CPU
    return sum(e.cpu_time_total for e in events if e.cpu_parent is None and e.device_type == cpu) / 1e6
