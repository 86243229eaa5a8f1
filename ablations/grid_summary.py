"""The grid study's summary.json, from its units' records. No torch, no generation.

Estimates, rows and differences are those of bench/summary.py; a row's ``variant`` is its point. Every point has one
budget, so ``budget`` says "whole" and ``budget_slots`` how many slots that is::

    schema 1, kind, study, question, paper, k, pass_at, tasks, budgets, items, sampling, seed, batch, interval,
    failures, reference (as the study names it), axes [{"key", "values", "only"}],
    points      [{"name", "base", "model", "method", "sampling", "k", "slots" {task: n}, "at" {axis: value},
                  "reference" (point or None), "draft_vocab", "coverage" (share of the corpus inside it), "unit",
                  "generated" (False: read off the records of another point's larger budget or more samples),
                  "taken_from" (an earlier run, or None)}]
    rows        [as bench/summary.py, for each point and task, and "overall"; throughput is None where not generated]
    differences [as bench/summary.py: point minus its reference, paired by question; metrics also "tokens_per_step"
                  (tokens a step after the first; linearised ratio); p_holm and p_bh over all points of the study]
    lossless    [{"variant", "reference", "greedy", "samples", "same" (samples with the same tokens; None unless both
                  are greedy), "metrics" [{"metric", "value", "low", "high", "p_holm"}]}]: points that must be equal to
                  their reference, since EAGLE samples from the very distribution of regular decoding on one model
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ablations.grid_spec import Point, Study
from ablations.grid_units import Unit, rows_for
from bench import compared, stats_paired
from bench.compared import Paired
from bench.record import Record, Run, SampleRecord, Variant
from bench.scoring import PASS_AT, Items, by_item, metrics
from bench.summary import OVERALL, head_of, rows_of
from bench.tasks import Task
from bench.timing import first_step_end
from pipo.engine.types import Method

BUDGET = "whole"
STEP = "tokens_per_step"
NO_LIMIT = sys.maxsize  # records are cut already
Row = dict[str, Any]


def summarise(
    run: Run, study: Study, points: Sequence[Point], units: Sequence[Unit], records: Mapping[str, Sequence[Record]],
    tasks: Sequence[Task], derived: Mapping[str, Row], asked: Sequence[int] | None = None,
) -> Row:  # fmt: skip
    """The summary. ``records``: unit key -> its records; ``derived``: point -> its draft vocabulary, if it has one.

    ``asked``: the k of pass@k to report; default 1, 2, 4 and all samples, as far as a point has them.
    """
    by_point = {name: u for u in units for name in u.points}
    own = {p.name: rows_for(p, by_point[p.name], records[by_point[p.name].key], tasks) for p in points}
    everything = [r for u in units for r in records[u.key]]
    gaps = differences(points, own, tasks, asked)
    head = head_of(run, everything, study.k, pass_at(study.k, asked))
    return {
        **head, "variants": [], "study": study.name, "question": study.question, "paper": study.paper,
        "reference": study.reference, "axes": msgspec.to_builtins(study.axis),
        "points": [_plain(p, by_point[p.name], tasks, derived.get(p.name, {})) for p in points],
        "rows": [row for p in points for row in _rows(run, p, own[p.name], tasks, asked)],
        "differences": gaps, "lossless": lossless(points, own, gaps),
    }  # fmt: skip


def _plain(point: Point, unit: Unit, tasks: Sequence[Task], derived: Row) -> Row:
    plain: Row = msgspec.to_builtins(point)
    slots = _slots(point, tasks)
    return {
        **plain, "slots": slots, "coverage": derived.get("coverage"), "unit": unit.key,
        "generated": slots == unit.budgets and point.k == unit.k, "taken_from": unit.taken_from,
    }  # fmt: skip


def _slots(point: Point, tasks: Sequence[Task]) -> dict[str, int]:
    return {t.name: point.slots_of(t.budgets["loose"]) for t in tasks}


def pass_at(k: int, asked: Sequence[int] | None = None) -> list[int]:
    """The k of pass@k that k samples allow, of those asked for."""
    return sorted({value for value in asked or (*PASS_AT, k) if value <= k})


def _rows(
    run: Run, point: Point, records: Sequence[Record], tasks: Sequence[Task], asked: Sequence[int] | None
) -> list[Row]:
    budgets = {t: {"tight": n, "loose": n} for t, n in _slots(point, tasks).items()}
    variant = Variant(point.name, point.model, point.method)
    found = rows_of(msgspec.structs.replace(run, budgets=budgets), variant, records, pass_at(point.k, asked))
    more = {"budget": BUDGET, "base": point.base, "at": point.at, "k": point.k}
    return [{**row, **more} for row in found if row["budget"] == "loose"]


def differences(
    points: Sequence[Point], own: Mapping[str, Sequence[Record]], tasks: Sequence[Task],
    asked: Sequence[int] | None = None,
) -> list[Row]:  # fmt: skip
    """Every point minus its reference, by task and over tasks; p corrected over all points, a metric at a time."""
    by_name = {p.name: p for p in points}
    grouped = {name: by_item(records) for name, records in own.items()}
    out: list[Row] = []
    for p in points:
        if p.reference is None:
            continue
        other = by_name[p.reference]
        least = min(p.k, other.k)
        for metric in [*metrics(pass_at(least, asked)), STEP]:
            parts: dict[str, Paired] = {}
            for t in tasks:
                sides = grouped[p.name].get((p.name, t.name)), grouped[other.name].get((other.name, t.name))
                if sides[0] and sides[1] and (part := _pair(sides[0], sides[1], p, other, metric)) is not None:
                    parts[t.name] = part
            head = {"variant": p.name, "reference": other.name, "budget": BUDGET, "metric": metric}
            out += [{**head, "task": t, **compared.row([part], least)} for t, part in parts.items()]
            if parts:
                out.append({**head, "task": OVERALL, **compared.row(list(parts.values()), least)})
    compared.correct(out)
    return out


def _pair(items: Items, reference: Items, point: Point, other: Point, metric: str) -> Paired | None:
    if metric != STEP:
        return compared.pair(items, reference, metric, NO_LIMIT)
    common = sorted(items.keys() & reference.keys())
    one = ratio_values([items[i] for i in common], point.method)
    two = ratio_values([reference[i] for i in common], other.method)
    if one is None or two is None:
        return None
    gaps = [float(v) for v in one - two]
    return Paired(stats_paired.difference(gaps), gaps)


def ratio_values(questions: Sequence[Sequence[SampleRecord]], method: Method) -> np.ndarray | None:
    """Tokens a step after the first as one value a question, [n], whose mean is the ratio of the sums.

    The linearised ratio: value + (tokens - value * steps) / mean steps. Their spread is the ratio's own, clustered by
    question, so that ratios can be paired and drawn like means. None where no sample has a second step.
    """
    steps = np.array([float(sum(max(r.steps - 1, 0) for r in s)) for s in questions])
    after = [sum(sum(t > first_step_end(r, method) for t in r.token_times_s) for r in s) for s in questions]
    if not len(questions) or not steps.sum():
        return None
    tokens = np.array(after, dtype=float)
    value = tokens.sum() / steps.sum()
    return np.asarray(value + (tokens - value * steps) / steps.mean())


def lossless(points: Sequence[Point], own: Mapping[str, Sequence[Record]], gaps: Sequence[Row]) -> list[Row]:
    """The check of points that must be equal to their reference: see the module's docstring."""
    by_name = {p.name: p for p in points}
    out: list[Row] = []
    for p in points:
        other = by_name.get(p.reference or "")
        if other is None or not _must_be_equal(p, other):
            continue
        greedy = p.sampling.temperature == 0
        samples, same = _same_tokens(own[p.name], own[other.name])
        quality = ("avg", f"pass@{min(p.k, other.k)}")
        found = [
            {key: d[key] for key in ("metric", "value", "low", "high", "p", "p_holm")}
            for d in gaps
            if d["variant"] == p.name and d["task"] == OVERALL and d["metric"] in quality
        ]
        out.append(
            {"variant": p.name, "reference": other.name, "greedy": greedy, "samples": samples,
             "same": same if greedy else None, "metrics": found}
        )  # fmt: skip
    return out


def _must_be_equal(point: Point, other: Point) -> bool:
    exact = {"eagle", "regular"}
    alike = (point.model, point.sampling, point.slots, point.budget) == (
        other.model, other.sampling, other.slots, other.budget,
    )  # fmt: skip
    return (
        alike and {point.method.name, other.method.name} <= exact and "eagle" in (point.method.name, other.method.name)
    )


def _same_tokens(records: Sequence[Record], reference: Sequence[Record]) -> tuple[int, int]:
    """Samples that both have, and those of them with the same tokens."""
    places = {(r.task, r.item, r.sample): r.places for r in reference if isinstance(r, SampleRecord)}
    pairs = [
        r.places == places[key]
        for r in records
        if isinstance(r, SampleRecord) and (key := (r.task, r.item, r.sample)) in places
    ]
    return len(pairs), sum(pairs)
