"""What changed from one run to another of the same kind, and whether it got worse. Torch-free.

``compare`` returns plain values. A *row* is one variant, task and metric (and budget, or input length)::

    variant, was (its name in the old run), task ("overall": the plain mean over tasks; None for times),
    budget ("tight" | "loose") or input_tokens, metric, how ("paired" | "unpaired" | "partly paired"),
    a, b          the metric in the old and in the new run
    value         b - a; of times b / a
    low, high     its interval at level 1 - alpha
    n             questions (unpaired: of the smaller side) or trials
    p, p_holm     of "no difference"; corrected over all deciding rows (Holm)
    p_margin      Holm's p of "not worse by more than the margin"; None where the row does not decide
    bootstrap_low, bootstrap_high   95%, paired, of quality and slots
    mcnemar       [{"only", "only_reference", "p"}]: avg: one for each sample; pass@k: one, any of the first k;
                  only: solved by the new run alone
    detectable    difference that a run of this size would show 4 times of 5; None where the difference is settled
    decides       whether the exit status hangs on it: rows over all compared tasks, and all rows of times
    settled       "better" | "worse" | "not settled": by the interval
    failed        whether it fails the gate

Beside them ``counts``: what was cut, what failed, what became PADs (bench/diff_counts.py).
The gate fails on a row whose interval lies wholly beyond the margin and whose ``p_margin`` is below alpha; with
``non_inferiority`` on every deciding row whose interval does not lie wholly on the good side of the margin (all of them
must be shown to be good, so nothing is corrected there). Quality counts in points; of slots, tokens and times less is
better, and a margin is a percentage of the old run's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench import compared, diff_load, diff_runs, diff_times, stats, stats_paired
from bench import diff_stats as ds
from bench.diff_changes import changed
from bench.diff_counts import counts
from bench.diff_rows import Found, Notes, Row, Settings, checked, settle
from bench.diff_runs import LATENCY, LOAD, Side
from bench.scoring import Items, item_values, right
from bench.stats import Estimate
from pipo.errors import BadInput

__all__ = ["Settings", "compare", "rows_of"]
COSTS = ("slots", "tokens")
BUDGETS = ("tight", "loose")


def compare(old: Path, new: Path, settings: Settings) -> dict[str, Any]:
    """Compare two run folders; see the module's docstring.

    Raises:
        BadInput: runs that do not compare (the message says why), an unknown metric, task or variant.
        BadRecord: a folder that is no finished run, or whose records cannot be read.
    """
    a, b = diff_runs.read(Path(old)), diff_runs.read(Path(new))
    rows, notes = rows_of(a, b, settings)
    names = {r["variant"]: r["was"] for r in rows}
    changes = changed(a, b, names)
    tasks = settings.tasks or list(b.run.budgets)
    return {
        "kind": a.kind, "k": a.k, "a": str(a.folder), "b": str(b.folder), "margin": settings.margin,
        "alpha": settings.alpha, "non_inferiority": settings.non_inferiority,
        "rows": rows, "changed": changes, "notes": notes, "counts": counts(a, b, names, tasks) if a.samples else [],
        "failed": [i for i, r in enumerate(rows) if r["failed"]],
    }  # fmt: skip


def rows_of(a: Side, b: Side, settings: Settings) -> tuple[list[Row], list[str]]:
    """All rows, those that decide first, and what a reader should know. Raises BadInput as ``compare``."""
    diff_runs.check_kinds(a, b)
    names, notes = diff_runs.match(a, b, settings.names)
    make = {LATENCY: diff_times.rows, LOAD: diff_load.rows}.get(a.kind, _sampled)
    made = make(a, b, names, settings, notes)
    return settle(made, settings), diff_runs.grouped(notes)


def _sampled(a: Side, b: Side, names: dict[str, str], settings: Settings, notes: Notes) -> list[Found]:
    tasks = diff_runs.common_tasks(a, b, settings.tasks)
    known = ["avg", *(f"pass@{k}" for k in range(1, a.k + 1)), *COSTS]
    best = max((k for k in a.run.spec.get("pass_at") or [a.k] if k <= a.k), default=a.k)
    metrics = checked(settings.metrics, known, ["avg", f"pass@{best}"] if best > 1 else ["avg"])
    found = []
    for name, was in names.items():
        here = [t for t in tasks if (was, t) in a.samples and (name, t) in b.samples]
        if len(here) < len(tasks):
            notes.append((name, f"no records of {', '.join(t for t in tasks if t not in here)} in one of the runs"))
        alike = all(a.run.budgets[t]["tight"] == a.run.budgets[t]["loose"] for t in here)
        for budget in BUDGETS[alike:] if here else ():
            for metric in metrics:
                parts = [_task(a, b, t, (was, name), budget, metric, notes) for t in here]
                if len(parts) > 1:
                    found.append(_row(parts, "overall", True, settings))
                found += [_row([p], p.task, len(parts) == 1, settings) for p in parts]
    if not found:
        raise BadInput(f"no records to compare: the runs share no task of {', '.join(tasks)} for a variant of both")
    return sorted(found, key=lambda f: not f.row["decides"])


class Part(msgspec.Struct):
    """The difference on one task, new minus old, and what a row says about it."""

    task: str
    head: Row
    estimate: Estimate
    a: float
    b: float
    n: int
    pair: compared.Paired | None
    each: list[stats_paired.McNemar]


def _task(
    a: Side, b: Side, task: str, pair: tuple[str, str], budget: str, metric: str, notes: Notes
) -> Part:  # fmt: skip
    was, now = a.samples[pair[0], task], b.samples[pair[1], task]
    slots = a.run.budgets[task][budget]
    old, new = (_mean(item_values(side, metric, slots)) for side in (was, now))
    head = {"variant": pair[1], "was": pair[0], "budget": budget, "metric": metric}
    why, seeds = diff_runs.why_unpaired(a, b, task, pair)
    if why:
        notes.append((task, f"{why}: unpaired, errors clustered by question"))
        gap = ds.unpaired(_alone(now, metric, slots), _alone(was, metric, slots))
        return Part(task, head, gap, old, new, min(len(was), len(now)), None, [])
    if not seeds:
        notes.append((task, "the same questions with other seeds; paired by question, not by sample"))
    found = compared.pair(now, was, metric, slots)
    return Part(task, head, found.estimate, old, new, len(was), found, _tests(now, was, metric, slots, found))


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def _alone(items: Items, metric: str, slots: int) -> Estimate:
    """One side's own estimate, clustered by question; the values of ``bench.summary``, with intervals for shares."""
    values = item_values(items, metric, slots)
    sizes = [len(items[i]) for i in values]
    if metric in COSTS:
        return stats.ratio([v * s for v, s in zip(values.values(), sizes, strict=True)], sizes)
    if metric == "avg":
        return stats.share(list(values.values()), sizes, most=float(sum(sizes)))
    k = int(metric.removeprefix("pass@"))
    return stats.share(list(values.values()), most=float(sum(s // k for s in sizes)))


def _tests(
    now: Items, was: Items, metric: str, slots: int, found: compared.Paired
) -> list[stats_paired.McNemar]:  # fmt: skip
    """McNemar's test for each sample of avg, for all of the first k of pass@k."""
    if metric != "avg" or found.mcnemar is None:
        return [found.mcnemar] if found.mcnemar else []
    k = min(len(s) for items in (now, was) for s in items.values())
    return [
        stats_paired.mcnemar(*([right(side[i][j], slots) for i in sorted(was)] for side in (now, was)))
        for j in range(k)
    ]  # fmt: skip


def _row(parts: list[Part], task: str, decides: bool, settings: Settings) -> Found:
    head, metric = parts[0].head, parts[0].head["metric"]
    old, new = (sum(getattr(p, side) for p in parts) / len(parts) for side in ("a", "b"))
    whole = all(p.pair for p in parts)
    how = "paired" if whole else "partly paired" if any(p.pair for p in parts) else "unpaired"
    pairs = [p.pair for p in parts if p.pair]
    drawn = stats_paired.bootstrap([p.gaps for p in pairs]) if whole else None
    spreads = [p.variances for p in pairs if p.variances]
    need = stats_paired.needs(compared.POINTS, spreads) if whole and len(spreads) == len(parts) else None
    each = zip(*(p.each for p in parts), strict=False) if whole else ()
    low, high = drawn or (None, None)
    row = {
        "variant": head["variant"], "was": head["was"], "task": task, "budget": head["budget"], "metric": metric,
        "how": how, "a": old, "b": new, "n": sum(p.n for p in parts), "p_holm": None,
        "bootstrap_low": low, "bootstrap_high": high,
        "mcnemar": [msgspec.to_builtins(stats_paired.mcnemar_of(tests)) for tests in each] or None,
        "detectable": need and need["detectable"], "decides": decides,
    }  # fmt: skip
    cost = metric in COSTS
    estimates = [ds.turned(p.estimate) if cost else p.estimate for p in parts]
    return Found(row, estimates, settings.margin / 100 * (old if cost else 1.0), -1.0 if cost else 1.0)
