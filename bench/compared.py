"""One variant against a reference on the same questions: the paired difference, its tests, and what it would need.

Torch-free. Sample j of a question has the same seed on both sides, so differences are paired by question and, for the
spread within a question, by sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec

from bench import stats, stats_paired
from bench.scoring import Items, item_values, right
from bench.stats import Estimate
from bench.stats_paired import McNemar, Variances
from pipo.errors import BadInput

POINTS = 0.03  # the difference that a comparison is asked to be able to show
Row = dict[str, Any]


class Paired(msgspec.Struct, frozen=True):
    """A paired difference on one task. ``gaps``: by question. The last two are None where the metric is no quality."""

    estimate: Estimate
    gaps: list[float]
    mcnemar: McNemar | None = None
    variances: Variances | None = None


def pair(items: Items, reference: Items, metric: str, budget: int) -> Paired:
    """The difference of a metric (bench.scoring.metrics) on the questions that both sides have."""
    common = sorted(items.keys() & reference.keys())
    if not common:
        raise BadInput("paired difference without common items; compare runs over the same items")
    one, other = ({i: side[i] for i in common} for side in (items, reference))
    values, base = item_values(one, metric, budget), item_values(other, metric, budget)
    gaps = [values[i] - base[i] for i in common]
    if metric in ("slots", "tokens"):
        return Paired(stats_paired.difference(gaps), gaps)
    n = min(min(len(one[i]), len(other[i])) for i in common)
    k = 1 if metric == "avg" else int(metric.removeprefix("pass@"))
    estimate = stats_paired.difference(gaps, k / n)
    solved = [[any(right(r, budget) for r in side[i][:k]) for i in common] for side in (one, other)]
    spread = None
    if len(common) > 1:
        samples = [
            [float(right(a, budget)) - right(b, budget) for a, b in zip(one[i], other[i], strict=False)] for i in common
        ]
        spread = stats_paired.variances(samples if k == 1 else [[g] for g in gaps])
    return Paired(estimate, gaps, stats_paired.mcnemar(*solved), spread)


def row(parts: Sequence[Paired], k: int) -> Row:
    """The part of a difference's row (bench/summary.py) that speaks of its value; ``parts``: one a task.

    ``k``: samples a question.
    """
    estimates = [p.estimate for p in parts]
    found = stats.combine(estimates)
    low, high = stats_paired.bootstrap([p.gaps for p in parts]) or (None, None)
    tests = [p.mcnemar for p in parts if p.mcnemar]
    spreads = [p.variances for p in parts if p.variances]
    open_ = found.low is not None and found.high is not None and found.low <= 0 <= found.high
    need = stats_paired.needs(POINTS, spreads) if open_ and spreads and len(spreads) == len(parts) else None
    return {
        **found.plain(), "p": stats.p_value(estimates), "bootstrap_low": low, "bootstrap_high": high,
        "mcnemar": msgspec.to_builtins(stats_paired.mcnemar_of(tests)) if tests else None,
        "power": {**need, "k": k} if need else None,
    }  # fmt: skip


def within_one(row: Row) -> Row:
    """A row on shares whose intervals end at -1 and 1, as no difference of shares lies beyond."""
    sides = {side: row[side] for side in ("low", "high", "bootstrap_low", "bootstrap_high")}
    return {**row, **{side: None if v is None else min(1.0, max(-1.0, v)) for side, v in sides.items()}}


def correct(rows: Sequence[Row], budgets: Mapping[str, Mapping[str, int]] | None = None) -> None:
    """Add ``p_holm`` and ``p_bh`` to difference rows: a family is one metric, all pairs and both budgets.

    Rows over all tasks are one family, rows of single tasks another. A pair in both directions counts once, and so do
    a tight and a loose budget (``budgets``, by task) of as many slots. Rows without p stay out and get None.
    """
    once = {task for task, of in (budgets or {}).items() if len(set(of.values())) == 1}
    once |= {"overall"} if once and once == set(budgets or ()) else set()
    families: dict[tuple[str, bool], dict[Hashable, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for r in rows:
        r.update(p_holm=None, p_bh=None)
        if r["p"] is not None:
            pair = frozenset((r["variant"], r["reference"]))
            budget = None if r["task"] in once else r["budget"]
            families[r["metric"], r["task"] == "overall"][pair, budget, r["task"]].append(r)
    for family in families.values():
        ps = [same[0]["p"] for same in family.values()]
        corrected = zip(stats_paired.holm(ps), stats_paired.benjamini_hochberg(ps), strict=True)
        for same, (holm, bh) in zip(family.values(), corrected, strict=True):
            for r in same:
                r.update(p_holm=holm, p_bh=bh)
