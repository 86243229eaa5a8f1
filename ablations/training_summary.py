"""The training study's summary.json, from the scores by item that its stages left. No torch, no generation.

An *estimate* is ``{"value", "se", "low", "high", "n" (questions), "seeds", "seed_low", "seed_high"}``; its 95% interval
covers questions and training seeds (ablations/training_stats.py), seed_low and seed_high are the least and largest mean
of one seed. Shares and quality are fractions in [0, 1]. A *point* is one way to decode a row's models: a threshold of
the gate, a coin's kept share, or regular decoding::

    schema 1, kind, k, pass_at, tasks, budgets, items, sampling, seed, interval (text), reference (row name),
    definitions {"kept_reference", "kept_best", "area": text},
    trainings   [{"row", "train", "from", "group", "against" (rows), "note", "settings" (the row's own), "seeds" (done),
                  "seeds_missing", "tokens", "steps", "wall_s" (means over seeds), "data_rows", "failed" (samples)}]
    rows        [{"row", "gate" ("confidence" | "coin" | "regular"), "threshold", "keep_rate", "budget", "avg", "pass"
                  {"1": ...}, "slots", "tokens": estimates, "kept_share" (estimate by question, None if regular)}]
    keys        [{"row", "kept_reference", "kept_best": {"kept_share", "gate", "threshold", "keep_rate"} or None,
                  "best" (likewise, with "avg"), "area": estimate or None}], loose budget
    differences [{"row", "reference", "gate", "threshold", "keep_rate", "budget", "metric" ("avg" | "pass@K" | "slots" |
                  "tokens" | "area"), value ...}]: row minus reference; gate "area" for areas (loose and tight)
    missing     [{"row", "seed", "why"}], failures (at most 20)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ablations.training_scores import Point, Scores
from ablations.training_spec import Row, TrainingSpec, stage_name
from ablations.training_stats import INTERVALS, Estimate
from bench.record import Run
from bench.scoring import check_pass_at, metrics
from bench.summary import BUDGETS

Plain = dict[str, Any]
LOOSE = BUDGETS[-1]
DEFINITIONS = {
    "kept_reference": "largest kept share among the row's points whose avg, loose budget, is not shown to be below the "
    "reference row's: the paired difference's 95% interval reaches 0 or above",
    "kept_best": "largest kept share among the row's points whose avg, loose budget, is not shown to be below that of "
    "the row's own best point: the paired difference's 95% interval reaches 0 or above",
    "area": "mean avg over kept shares from 0 to 1: the area under the line through the row's points; points of a row "
    "at one threshold keep other shares than another row's there, areas do not depend on that",
}


def summarise(spec: TrainingSpec, run: Run, stages: Path, failed: dict[str, str]) -> Plain:
    """The summary of what is done by now. ``failed``: stage -> why."""
    scores = Scores(spec, stages)
    rows = [r for r in spec.chosen() if scores.seeds[r.name]]
    pass_at = check_pass_at(None, spec.k)
    return {
        "schema": run.schema, "kind": run.kind, "k": spec.k, "pass_at": pass_at, "tasks": list(run.budgets),
        "budgets": run.budgets, "items": {t: scores.count(t) for t in run.budgets},
        "sampling": msgspec.to_builtins(run.sampling), "seed": spec.seed, "interval": INTERVALS,
        "reference": spec.reference, "definitions": DEFINITIONS,
        "trainings": [_training(spec, r, scores, stages) for r in spec.chosen()],
        "rows": [_row(scores, r, p, b, pass_at) for r in rows for p in scores.points(r) for b in BUDGETS],
        "keys": [_key(spec, scores, r) for r in rows if r.pairs],
        "differences": [d for r in rows for ref in _references(spec, r, scores) for d in _differences(
            scores, r, ref, metrics(pass_at))],
        "missing": _missing(spec, scores, failed),
        "failures": scores.failures[:20],
    }  # fmt: skip


def _training(spec: TrainingSpec, row: Row, scores: Scores, stages: Path) -> Plain:
    done = scores.seeds[row.name]
    trained = [json.loads((stages / stage_name(row, s) / "done.json").read_bytes()) for s in done]

    def mean(key: str) -> float | None:
        found = [t["trained"][key] for t in trained if key in t["trained"]]
        return round(sum(found) / len(found), 1) if found else None

    return {
        "row": row.name, "train": row.train, "from": row.start or (spec.model if row.train != "none" else None),
        "group": row.group, "against": row.against, "note": row.note, "settings": row.settings, "seeds": done,
        "seeds_missing": [s for s in spec.seeds_of(row) if s not in done], "tokens": mean("tokens"),
        "steps": mean("steps"), "wall_s": mean("wall_s"), "data_rows": mean("rows"),
        "failed": sum(t["failed"] for t in trained),
    }  # fmt: skip


def _row(scores: Scores, row: Row, point: Point, budget: str, pass_at: list[int]) -> Plain:
    return {
        "row": row.name, **point.plain(), "budget": budget,
        **{m: scores.mean(row, point, budget, m).plain() for m in ("avg", "slots", "tokens")},
        "pass": {str(k): scores.mean(row, point, budget, f"pass@{k}").plain() for k in pass_at},
        "kept_share": scores.kept_estimate(row, point) if row.pairs else None,
    }  # fmt: skip


def _key(spec: TrainingSpec, scores: Scores, row: Row) -> Plain:
    points = scores.points(row)
    reference = next(r for r in spec.row if r.name == spec.reference)
    best = max(points, key=lambda p: scores.mean(row, p, LOOSE, "avg").value)

    def largest(kept: list[Point]) -> Plain | None:
        if not kept:
            return None
        top = max(kept, key=lambda p: scores.kept_share(row, p))
        return {"kept_share": scores.kept_share(row, top), **top.plain()}

    def holds(gap: Estimate) -> bool:
        return (gap.value if gap.high is None else gap.high) >= 0

    near = [p for p in points if holds(scores.within(row, p, best, LOOSE, "avg"))]
    level = None
    if scores.seeds[reference.name]:
        level = largest([p for p in points if holds(scores.difference(row, p, reference, LOOSE, "avg"))])
    return {
        "row": row.name, "kept_reference": level, "kept_best": largest(near),
        "best": {"kept_share": scores.kept_share(row, best), **best.plain(),
                 "avg": scores.mean(row, best, LOOSE, "avg").plain()},
        "area": scores.area(row, LOOSE).plain(),
    }  # fmt: skip


def _references(spec: TrainingSpec, row: Row, scores: Scores) -> list[Row]:
    """The reference row, the rows without training, and those that the row names; as far as they are done."""
    plain = [r.name for r in spec.row if r.train == "none"]
    wanted = dict.fromkeys([spec.reference, *plain, *row.against])
    return [r for r in spec.row if r.name in wanted and r.name != row.name and scores.seeds[r.name]]


def _differences(scores: Scores, row: Row, reference: Row, names: list[str]) -> list[Plain]:
    head = {"row": row.name, "reference": reference.name}
    out = []
    for point in scores.points(row):
        if reference.pairs and point not in scores.points(reference):
            continue
        for budget in BUDGETS:
            for metric in names:
                gap = scores.difference(row, point, reference, budget, metric)
                out.append({**head, **point.plain(), "budget": budget, "metric": metric, **gap.plain()})
    if row.pairs and reference.pairs:
        for budget in BUDGETS:
            gap = scores.area_difference(row, reference, budget)
            out.append({**head, "gate": "area", "threshold": None, "keep_rate": None, "budget": budget,
                        "metric": "area", **gap.plain()})  # fmt: skip
    return out


def _missing(spec: TrainingSpec, scores: Scores, failed: dict[str, str]) -> list[Plain]:
    return [
        {"row": row.name, "seed": seed, "why": failed.get(name, "not done yet")}
        for name, (row, seed) in spec.stages().items()
        if seed not in scores.seeds[row.name]
    ]
