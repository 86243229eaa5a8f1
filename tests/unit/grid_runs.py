"""Small studies on the tiny models of tests/unit/bench_jobs.py: what tests of the grid share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablations import grid
from bench import record
from bench.record import SampleRecord
from tests.unit.bench_jobs import Context

BASES = {
    "regular": {"model": "regular", "method": "regular"},
    "mtp": {"model": "regular", "method": "mtp"},
    "eagle": {"model": "regular", "method": "eagle", "depth": 2},
    "pipo": {"model": "pipo", "method": "pipo", "threshold": 0.5},
    "random": {"model": "pipo", "method": "random", "keep_rate": 0.5},
}
ITEMS, K = 5, 2
Plain = dict[str, Any]


def base(home: Path, kind: str, **more: Any) -> Plain:
    """One of ``BASES``, under its own name unless ``more``, which comes on top, has another."""
    found = {"name": kind, **BASES[kind], **more}
    return {**found, "model": str(home / found["model"])}


def study(home: Path, *bases: Plain, axes: list[Plain] | None = None, **more: Any) -> Plain:
    """A study's plain values; its reference is the first base."""
    return {
        "name": "toy", "question": "Which?", "reference": bases[0]["name"], "base": list(bases), "axis": axes or [],
        "tasks": [str(home / "task.toml")], "k": K, "max_batch": 4, "seed": 7, **more,
    }  # fmt: skip


def run(given: Plain, folder: Path, cancel_at: int | None = None, **more: Any) -> tuple[Plain, Context]:
    """Run a study in a folder; returns its summary and the context that it ran in."""
    ctx = Context(folder, cancel_at)
    return grid.run({"study": given, **more}, ctx), ctx


def samples(folder: Path) -> dict[tuple[str, str, int], SampleRecord]:
    """(variant, item, sample) -> record, of all units in a study's folder."""
    found = {}
    for path in sorted(folder.glob("units/*/records.jsonl")):
        for r in record.read(path, allow_empty=True):
            if isinstance(r, SampleRecord):
                assert (r.variant, r.item, r.sample) not in found, "generated twice"
                found[r.variant, r.item, r.sample] = r
    return found


def logs(ctx: Context) -> list[str]:
    """What the job said."""
    return [data["text"] for kind, data in ctx.events if kind == "log"]
