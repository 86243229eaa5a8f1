"""What judging beside the engine costs generating: ``python -m bench.judging_cost MODEL --task NAME [--limit N] ...``.

The same items are generated again and again, by turns with and without judging; seeds, engine and process stay the
same. ``--hard`` is the worst case for mathematics: each sample, one that was cut too, is judged as if it held its gold
in a spelling that only algebra can tell, another one each time. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench import loading
from bench.compare import EvalSpec
from bench.grading import Asked, key_of
from bench.record import SampleRecord, Variant
from bench.runner import Generation
from bench.scorers.judge import Answer
from bench.session import Session
from bench.tasks import Item
from bench.timing import Trace
from pipo.engine.types import Method
from pipo.jobs import LocalContext


class HardGeneration(Generation):
    """Every sample waits for algebra."""

    def _record(self, item: Item, length: int, sample: int, trace: Trace) -> SampleRecord:
        made = super()._record(item, length, sample, trace)
        self.asked = [a for a in self.asked if a.key != key_of(made)]
        self.asked.append(
            Asked(key_of(made), "math", Answer(f"\\boxed{{{item.gold} + {sample + 2} - {sample + 2}}}", item.gold))
        )
        return msgspec.structs.replace(made, correct=False, judged=False, verdict=None)


class HardSession(Session):
    generation = HardGeneration


def turn(
    spec: EvalSpec, variant: Variant, ctx: LocalContext, folder: Path, hard: bool
) -> dict[str, float]:  # fmt: skip
    """One generation of all items in a fresh folder. Returns seconds until all was generated (``wall``), CPU seconds of
    the generating thread, seconds until all was judged too, and how many samples needed a judge."""
    ctx.folder = folder
    folder.mkdir()
    session = (HardSession if hard else Session)("eval", spec, [variant], ctx)
    start, cpu = time.perf_counter(), time.thread_time()
    for task in session.tasks:
        session.generate(variant, task)
    wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
    session.records()
    asked = session.grader.asked if session.grader else 0
    return {"wall": wall, "cpu": cpu, "judged": time.perf_counter() - start, "asked": asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--task", default="math500")
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hard", action="store_true")
    asked = parser.parse_args()
    spec = EvalSpec(model=asked.model, tasks=[asked.task], k=asked.k, limit=asked.limit, slots=asked.slots,
                    data=asked.data)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pipo-judging-") as home:
        ctx = LocalContext(Path(home))
        method: Method = loading.default_method(spec, spec.model, ctx)
        variant = Variant(method.name, spec.model, method)
        load = os.getloadavg()[0]
        turn(spec, variant, ctx, Path(home) / "warm", asked.hard)
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for number in range(asked.rounds):
            for score in (number % 2 == 0, number % 2 == 1):
                now = msgspec.structs.replace(spec, score=score)
                found[score].append(turn(now, variant, ctx, Path(home) / f"{number}-{score}", asked.hard))
    print(json.dumps({**vars(asked), **result(found), "load": [round(load, 2), round(os.getloadavg()[0], 2)]}))


def result(found: dict[bool, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds; ratios are with judging over without, round by round."""
    pairs = list(zip(found[True], found[False], strict=True))

    def ratio(key: str, under: str) -> dict[str, float]:
        all_ = [a[key] / b[under] for a, b in pairs]
        return {"median": round(median(all_), 4), "low": round(min(all_), 4), "high": round(max(all_), 4)}

    return {
        "samples_judged": found[True][0]["asked"],
        "generating_s": {name: round(median(t["wall"] for t in found[score]), 3)
                         for name, score in (("without", False), ("with", True))},
        "wall_ratio": ratio("wall", "wall"), "cpu_ratio": ratio("cpu", "cpu"),
        "until_judged_ratio": ratio("judged", "wall"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
