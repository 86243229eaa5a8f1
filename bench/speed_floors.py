"""Steps of every method against their floors, on one random PIPO model of a shape: section ``floors`` of engine_speed.

Methods take turns of a few steps each, in one engine, and all turns start at the same context, which is not prefilled
(``engine.start_at``). The machine is measured before, between and after, and the best counts; torch calls of a step are
counted. Two questions: how far is a step from what the machine allows, and does a method pay here as much as its floor
says it could. The second does not depend on how good the engine is, as long as it is equally good for all: a quotient
of 1 says that. Beside the floor stands the time of the step's own products and attention alone (bench/kernels.py).
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import msgspec
import torch

from bench import machine, roofline
from bench.kernels import kernel_seconds
from bench.machine import Machine
from bench.shapes import random_model, shape_config
from pipo.engine import TorchEngine
from pipo.engine.trial import start_at
from pipo.engine.types import Method, Request, Sampling

METHODS = (Method("regular"), Method("mtp"), Method("eagle", depth=3), Method("pipo", threshold=0.0))
BATCHES = {"lab": (1, 8, 64), "158m": (1, 8)}
SKIPPED = 2  # steps of a turn before those that are timed
MOST_TOKENS = 4  # of a step and row: a chain of three and the token after it


class Turn(msgspec.Struct):
    """What a turn of one method found: seconds of its steps, tokens that came out, torch calls of one step."""

    seconds: list[float]
    tokens: int
    calls: int = 0


def places_at(method: Method, context: int) -> int:
    """Backbone places of a dense context of so many tokens."""
    return context // 2 if method.pairs else context


def rows_at(engine: TorchEngine, method: Method, batch: int, context: int, steps: int) -> list[str]:
    """Start ``batch`` rows at a context without prefilling it, and let the first steps pass; ids of the rows."""
    asked = [
        Request(
            id=f"{method.name}/{i}/{time.perf_counter_ns()}", prompt=(5,), method=method, sampling=Sampling(), seed=i,
            max_slots=MOST_TOKENS * (steps + SKIPPED + 2), ignore_eos=True,
        )
        for i in range(batch)
    ]  # fmt: skip
    start_at(engine, asked, places_at(method, context))
    for _ in range(SKIPPED):
        engine.step()
    return [r.id for r in asked]


def leave(engine: TorchEngine, ids: list[str]) -> None:
    """End the rows of a turn."""
    for request_id in ids:
        engine.cancel(request_id)
    engine.step()


def turn(engine: TorchEngine, method: Method, batch: int, context: int, steps: int, count: bool) -> Turn:
    """Time ``steps`` steps of a full batch; with ``count``, one more step whose torch calls are counted."""
    ids = rows_at(engine, method, batch, context, steps + count)
    found = Turn([], 0)
    for _ in range(steps):
        start = time.perf_counter()
        events = engine.step()
        found.seconds.append(time.perf_counter() - start)
        found.tokens += sum(len(e.tokens) for e in events)
    if count:
        found.calls = machine.count_calls(engine.step)
    leave(engine, ids)
    return found


def engine_for(name: str, device: str, batch: int, context: int, steps: int) -> TorchEngine:
    """An engine over a random model of a shape, for ``batch`` rows that start at ``context``."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    room = context + MOST_TOKENS * (steps + SKIPPED + 4)
    return TorchEngine(random_model(shape_config(name), device, dtype), max_batch=batch, context=room, mixed=True)


def floors(
    device: str, *, batches: dict[str, tuple[int, ...]], context: int, rounds: int, steps: int
) -> dict[str, Any]:
    """The section: the machine, and for each shape and batch the methods' steps beside their floors."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    rates, cells = machine.measure(device, dtype), []
    for name, sizes in batches.items():
        engine = engine_for(name, device, max(sizes), context, steps)
        shapes = roofline.shapes_of(engine.model)
        for batch in sizes:
            turns: dict[str, list[Turn]] = {m.name: [] for m in METHODS}
            for number in range(rounds + 1):  # the first round warms up, and counts
                for method in METHODS:
                    one = turn(engine, method, batch, context, steps, count=number == 0)
                    turns[method.name].append(one)
            kernels = {m.name: kernel_seconds(engine, m, batch, places_at(m, context)) for m in METHODS}
            cells.append((name, batch, shapes, turns, kernels))
        rates = rates.best(machine.measure(device, dtype))
    found = []
    for name, batch, shapes, turns, kernels in cells:
        rows = {
            str(m.name): row(rates, shapes, m, batch, context, turns[m.name])
            | {"kernels_ms": round(1e3 * kernels[m.name], 4)}
            for m in METHODS
        }
        found.append({"shape": name, "batch": batch, "context": context, "methods": against_regular(rows)})
    return {"machine": msgspec.to_builtins(rates), "rounds": rounds, "steps": steps, "shapes": found}


def row(
    rates: Machine, shapes: roofline.Shapes, method: Method, batch: int, context: int, turns: list[Turn]
) -> dict[str, Any]:
    """Step, floor and their quotient of one method; the first turn is warm-up and gives the count of calls alone."""
    seconds = [s for t in turns[1:] for s in t.seconds]
    per_step = sum(t.tokens for t in turns[1:]) / len(seconds) / batch
    most = method.depth + 1 if method.name == "eagle" else 2
    floor = roofline.floor_step(
        rates, shapes, method, context, rows=batch, prompt=context, accepted=min(max(per_step, 1.0), most),
        calls=turns[0].calls,
    ).seconds  # fmt: skip
    step = statistics.median(seconds)
    return {
        "step_ms": round(1e3 * step, 4), "floor_ms": round(1e3 * floor, 4), "over_floor": round(step / floor, 3),
        "calls": turns[0].calls, "calls_ms": round(1e3 * turns[0].calls * rates.call_s, 4),
        "tokens_per_step_and_row": round(per_step, 2),
    }  # fmt: skip


def against_regular(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows with step time, floor and kernels as multiples of regular's, and how far the first is from the others.

    ``quotient`` 1: a method costs over regular what its floor says; ``kernels_quotient`` 1: what its kernels say.
    """
    base = {field: rows["regular"][field] for field in ("step_ms", "floor_ms", "kernels_ms")}
    for r in rows.values():
        step, floor, kernels = (r[field] / base[field] for field in ("step_ms", "floor_ms", "kernels_ms"))
        r |= {
            "over_kernels": round(r["step_ms"] / r["kernels_ms"], 3),
            "step_ratio": round(step, 3), "floor_ratio": round(floor, 3), "quotient": round(step / floor, 3),
            "kernels_ratio": round(kernels, 3), "kernels_quotient": round(step / kernels, 3),
        }  # fmt: skip
    return rows
