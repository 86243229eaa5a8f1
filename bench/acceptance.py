"""How far EAGLE's chains are accepted, position by position: what says whether a deeper chain could pay. Torch-free.

A record's drafts are one flat list. Each step offers exactly ``depth`` of them, the last one fewer where the sample
ended within its chain; so the list is cut every ``depth`` drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from bench import stats
from bench.record import SampleRecord
from bench.scoring import Items
from bench.stats import Estimate
from pipo.engine.types import Method


def chains(r: SampleRecord, depth: int) -> list[list[bool]]:
    """Whether each draft was kept, chain by chain."""
    kept = [d.kept for d in r.drafts]
    return [kept[i : i + depth] for i in range(0, len(kept), depth)]


def by_position(method: Method, items: Items) -> list[Estimate | None] | None:
    """Share of drafts accepted at chain position 1, 2, ... given that all earlier ones of the chain were.

    Clustered by item. None for a method that is not eagle; None at a position that no chain reached.
    """
    if method.name != "eagle":
        return None
    out: list[Estimate | None] = []
    counts = [[_counts(r, method.depth) for r in samples] for samples in items.values()]
    for place in range(method.depth):
        accepted = [float(sum(c[0][place] for c in item)) for item in counts]
        reached = [float(sum(c[1][place] for c in item)) for item in counts]
        out.append(stats.ratio(accepted, reached) if sum(reached) else None)
    return out


def _counts(r: SampleRecord, depth: int) -> tuple[list[int], list[int]]:
    """By position: chains that had it accepted, and chains that reached it."""
    accepted, reached = [0] * depth, [0] * depth
    for chain in chains(r, depth):
        run = sum(takewhile(bool, chain))
        for place in range(min(run + 1, len(chain))):
            reached[place] += 1
            accepted[place] += place < run
    return accepted, reached


def over_tasks(tasks: Sequence[list[Estimate | None] | None]) -> list[Estimate | None] | None:
    """Unweighted mean over tasks, position by position; a task whose chains never reached one is left out there."""
    present = [t for t in tasks if t is not None]
    if not present:
        return None
    columns = [[e for e in column if e is not None] for column in zip(*present, strict=True)]
    return [stats.combine(column) if column else None for column in columns]


def plain(found: list[Estimate | None] | None) -> list[dict[str, float] | None] | None:
    """Plain values, for summary.json."""
    return None if found is None else [e.plain() if e else None for e in found]
