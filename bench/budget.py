"""Quality over the budget, from one run's records: exact, nothing is generated again. Torch-free.

A sample that finished within b counts as it is, else it was cut at b and is wrong. Three budgets are told apart, since
slots do not cost the same: ``slots``, ``tokens`` (real ones) and ``device_s``. A sample's *device seconds* are its
share of the batch's wall clock: what the engine's steps took for this variant and task, shared out by the steps that
each sample took part in. They depend on the batch; a long prompt's first step counts like any other.

Curves end where records end: at the loose budget of slots; at as many tokens, since every slot holds at least one real
token; and for device seconds at the cheapest sample that the loose budget cut, of any variant, since nobody knows how
it would have gone on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from bench import stats
from bench.record import Record, Run, SampleRecord, ThroughputRecord
from bench.scoring import Items, by_item, cut, right
from bench.stats import Array, Estimate
from bench.stats_votes import pass_table

AXES = ("slots", "tokens", "device_s")
FRACTIONS = tuple(2.0 ** (-step / 2) for step in range(8, -1, -1))  # a sixteenth to the whole, as in the paper
Row = dict[str, Any]


class Samples(msgspec.Struct, frozen=True):
    """One variant's samples of one task as columns; ``item`` counts the items in the order of ``names`` (sorted).

    ``spent``: by axis, what each sample took; ``device_s`` is missing where nothing was timed. ``right`` and ``cut``
    are those of the loose budget.
    """

    names: list[str]
    item: np.ndarray
    right: np.ndarray
    cut: np.ndarray
    spent: dict[str, Array]

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each item, [items]."""
        return np.bincount(self.item, minlength=len(self.names))

    def by_item(self, values: np.ndarray) -> Array:
        """Sums over the samples of each item, [items]."""
        return np.bincount(self.item, weights=values, minlength=len(self.names)).astype(float)


def samples_of(items: Items, budget: int, wall_s: float) -> Samples:
    """Columns from records. ``budget``: the loose one; ``wall_s``: of all steps of this variant and task, 0 if none."""
    names = sorted(items)  # in one order for all variants: what is drawn together belongs to the same question
    rows = [(i, r) for i, name in enumerate(names) for r in items[name]]
    steps = np.array([float(r.steps) for _, r in rows])
    spent = {
        "slots": np.array([float(r.slots) for _, r in rows]),
        "tokens": np.array([float(r.tokens) for _, r in rows]),
    }
    if wall_s > 0 and steps.sum() > 0:
        spent["device_s"] = wall_s * steps / steps.sum()
    return Samples(
        names, np.array([i for i, _ in rows]), np.array([right(r, budget) for _, r in rows]),
        np.array([cut(r, budget) for _, r in rows]), spent,
    )  # fmt: skip


def collect(run: Run, records: Sequence[Record]) -> dict[str, dict[str, Samples]]:
    """Task -> variant -> its samples, as far as there are records."""
    walls: dict[tuple[str, str], float] = {}
    for r in records:
        if isinstance(r, ThroughputRecord):
            walls[r.variant, r.task] = walls.get((r.variant, r.task), 0.0) + r.wall_s
    grouped = by_item([r for r in records if isinstance(r, SampleRecord)])
    found: dict[str, dict[str, Samples]] = {}
    for task, budgets in run.budgets.items():
        for v in run.variants:
            if (v.name, task) in grouped:
                key = v.name, task
                columns = samples_of(grouped[key], budgets["loose"], walls.get(key, 0.0))
                found.setdefault(task, {})[v.name] = columns
    return found


def end_of(axis: str, loose: int, variants: Mapping[str, Samples]) -> float | None:
    """The largest budget up to which every variant's records are exact; None where one was not timed."""
    if axis != "device_s":
        return float(loose)
    if any(axis not in s.spent for s in variants.values()):
        return None
    ends = [float(s.spent[axis][s.cut].min()) for s in variants.values() if s.cut.any()]
    end = min(ends) if ends else max(float(s.spent[axis].max()) for s in variants.values())
    return end if end > 0 else None


def at(samples: Samples, axis: str, budget: float, k: int) -> dict[str, Estimate]:
    """``avg``, ``pass`` (at k), ``cut`` and ``used`` (mean of the axis) of one variant and task under a budget."""
    spent, sizes = samples.spent[axis], samples.sizes
    within = spent <= budget * (1 + 1e-12)
    counts = samples.by_item(samples.right & within)
    total = float(sizes.sum())
    best = [pass_table(int(n))[round(c)][k - 1] for n, c in zip(sizes, counts, strict=True)]
    return {
        "avg": stats.share(counts / sizes, sizes, most=total),
        "pass": stats.share(best, most=float((sizes // k).sum())),
        "cut": stats.share(samples.by_item(samples.cut | ~within) / sizes, sizes, most=total),
        "used": stats.ratio(samples.by_item(np.minimum(spent, budget)), sizes),
    }


def curves(run: Run, found: Mapping[str, Mapping[str, Samples]], k: int) -> list[Row]:
    """Rows ``curves`` of a summary (bench/summary.py): each task and the mean over tasks at equal shares of the end."""
    out: list[Row] = []
    for axis in AXES:
        ends = {t: end_of(axis, run.budgets[t]["loose"], variants) for t, variants in found.items()}
        for name in (v.name for v in run.variants):
            tasks = {t: variants[name] for t, variants in found.items() if name in variants}
            if not tasks or any(ends[t] is None for t in tasks):
                continue
            points = {t: [at(s, axis, b, k) for b in _grid(axis, ends[t])] for t, s in tasks.items()}
            head = {"variant": name, "axis": axis, "k": k, "fractions": [round(f, 6) for f in FRACTIONS]}
            out += [{**head, "task": t, "budgets": _grid(axis, ends[t]), **_columns(p)} for t, p in points.items()]
            mean = [
                {part: stats.combine([points[t][i][part] for t in tasks]) for part in ("avg", "pass", "cut", "used")}
                for i in range(len(FRACTIONS))
            ]
            alike = len({ends[t] for t in tasks}) == 1
            grid = _grid(axis, next(iter(ends.values()))) if alike else None
            out.append({**head, "task": "overall", "budgets": grid, **_columns(mean)})
    return out


def _grid(axis: str, end: float | None) -> list[float]:
    """Budgets at ``FRACTIONS`` of the end; whole slots and tokens."""
    assert end is not None
    if axis == "device_s":
        return [end * f for f in FRACTIONS]
    return [float(max(1, int(end * f + 1e-9))) for f in FRACTIONS]


def _columns(points: Sequence[Mapping[str, Estimate]]) -> Row:
    def column(part: str, side: str) -> list[float | None]:
        values = [getattr(p[part], side) for p in points]
        return [None if v is None else float(f"{v:.6g}") for v in values]

    whole = {part: {side: column(part, side) for side in ("value", "low", "high")} for part in ("avg", "pass")}
    return {**whole, "cut": column("cut", "value"), "used": column("used", "value")}
