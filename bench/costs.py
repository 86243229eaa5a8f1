"""What right answers cost, and quality at equal device time. Torch-free; device seconds as in bench/budget.py.

Intervals are 95% percentile bootstraps over questions, drawn within their tasks and expanded for few questions
(Hesterberg); variants are drawn together, so that a comparison is paired by question. The wall clock behind device
seconds is one measurement: its own noise from run to run is in no interval here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from bench import budget
from bench.budget import AXES, Samples
from bench.record import Record, Run
from bench.stats import DRAWS, LEVEL, Array, t_quantile
from bench.stats_paired import weights
from bench.stats_votes import pass_table

BUDGETS = ("tight", "loose")
Row = dict[str, Any]
Found = Mapping[str, Mapping[str, Samples]]


def within(samples: Samples, axis: str, slots: int) -> Array:
    """What each sample took of an axis within a budget of slots; tokens and seconds of a cut one by its slots."""
    share = np.minimum(1.0, slots / np.maximum(samples.spent["slots"], 1.0))
    return samples.spent[axis] * share


def spending(run: Run, records: Sequence[Record], pairs: Sequence[tuple[str, str]], k: int) -> Row:
    """What a summary says about budgets and costs: its keys from ``curves`` on (bench/summary.py)."""
    found = budget.collect(run, records)
    rows, ratios = costs(run, found, pairs)
    equal, gaps = equal_time(run, found, pairs)
    return {
        "curves": budget.curves(run, found, k), "costs": rows, "cost_ratios": ratios, "equal_time": equal,
        "equal_time_differences": gaps,
    }  # fmt: skip


def costs(run: Run, found: Found, pairs: Sequence[tuple[str, str]]) -> tuple[list[Row], list[Row]]:
    """Rows ``costs`` and ``cost_ratios`` of a summary (bench/summary.py)."""
    rows: list[Row] = []
    ratios: list[Row] = []
    for task in (*found, "overall") if found else ():
        tasks = list(found) if task == "overall" else [task]
        for size in BUDGETS:
            drawn = {name: _spent_and_right(run, found, tasks, name, size) for name in _names(run, found, tasks)}
            for name, axes in drawn.items():
                counts = {axis: _answer(over, under, _free(found, tasks, name)) for axis, (over, under) in axes.items()}
                rows.append({"variant": name, "task": task, "budget": size, "right": _right(axes), **counts})
            for name, reference in pairs:
                a, b = (drawn.get(side, {}).get("device_s") for side in (name, reference))
                if a and b and _same(found, tasks, name, reference):
                    head = {"variant": name, "reference": reference, "task": task, "budget": size}
                    ratios.append({**head, **_answer(a[0] * b[1], a[1] * b[0], _free(found, tasks, name))})
    return rows, ratios


def _names(run: Run, found: Found, tasks: Sequence[str]) -> list[str]:
    return [v.name for v in run.variants if all(v.name in found[t] for t in tasks)]


def _free(found: Found, tasks: Sequence[str], name: str) -> int:
    return sum(len(found[t][name].names) - 1 for t in tasks)


def _right(axes: Mapping[str, tuple[Array, Array]]) -> int:
    return round(float(axes["slots"][1][0]))


def _spent_and_right(
    run: Run, found: Found, tasks: Sequence[str], name: str, size: str
) -> dict[str, tuple[Array, Array]]:
    """By axis: what was spent and how many were right, as measured (first) and in each draw, over the tasks."""
    out: dict[str, tuple[Array, Array]] = {}
    axes = [a for a in AXES if all(a in found[t][name].spent for t in tasks)]
    for axis in axes:
        spent, right = np.zeros(DRAWS + 1), np.zeros(DRAWS + 1)
        for i, t in enumerate(tasks):
            s, slots = found[t][name], run.budgets[t][size]
            spent += _draws(s.by_item(within(s, axis, slots)), i)
            right += _draws(s.by_item(s.right & (s.spent["slots"] <= slots)), i)
        out[axis] = spent, right
    return out


def _draws(by_item: Array, seed: int) -> Array:
    """The sum over items, then in each of the draws."""
    return np.concatenate([[by_item.sum()], *(w @ by_item for w in weights(by_item.size, seed, DRAWS))])


def _answer(over: Array, under: Array, free: int) -> Row:
    """over / under, first as measured, then in draws; None where nothing was right, a high end of None is no end."""
    if under[0] <= 0:
        return {"value": None, "low": None, "high": None}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(under > 0, over / under, np.inf)
    low, high = _ends(ratio[1:], free)
    return {"value": float(ratio[0]), "low": low, "high": high}


def _ends(draws: Array, free: int) -> tuple[float | None, float | None]:
    """Expanded percentile interval; ``free``: questions less tasks.

    The tails taken are those that Student's t with so many degrees of freedom has, times the bootstrap's missing
    sqrt(n / (n - 1)). None for an end that lies at infinity, and for both where no draw differs from another.
    """
    if free < 1 or (draws == draws[0]).all():
        return None, None
    tail = NormalDist().cdf(-t_quantile(0.5 + LEVEL / 2, free) * math.sqrt(1 + 1 / free))
    low, high = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return float(low) if np.isfinite(low) else None, float(high) if np.isfinite(high) else None


def equal_time(run: Run, found: Found, pairs: Sequence[tuple[str, str]]) -> tuple[list[Row], list[Row]]:
    """Rows ``equal_time`` and ``equal_time_differences``: pass@k where every variant has the same seconds a question.

    The seconds of a task are what the quickest variant takes for all its samples. Another variant gets as many samples
    as fit in on average; between two whole numbers of samples a share of the questions gets one more, so pass is taken
    on the straight line between. Over tasks: each at its own seconds, then the plain mean.
    """
    drawn: dict[str, dict[str, Array]] = {}
    fitting: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    for i, (task, variants) in enumerate(found.items()):
        timed = {name: s for name, s in variants.items() if "device_s" in s.spent}
        if not timed or len(timed) < len(variants):
            return [], []
        cost = {name: float(s.spent["device_s"].mean()) for name, s in timed.items()}
        seconds[task] = min(int(s.sizes.min()) * cost[name] for name, s in timed.items())
        if seconds[task] <= 0:
            return [], []
        fitting[task] = {name: seconds[task] / c for name, c in cost.items() if c > 0}
        drawn[task] = {name: _pass_in(s, seconds[task], i) for name, s in timed.items()}
    rows: list[Row] = []
    gaps: list[Row] = []
    for task in (*found, "overall") if found else ():
        tasks = list(found) if task == "overall" else [task]
        names = _names(run, found, tasks)
        means = {name: np.mean([drawn[t][name] for t in tasks], axis=0) for name in names}
        for name, values in means.items():
            fit = None if task == "overall" else fitting[task].get(name)
            head = {"variant": name, "task": task, "seconds": seconds.get(task), "samples": fit}
            rows.append({**head, **_value(values, _free(found, tasks, name))})
        for name, reference in pairs:
            if name in means and reference in means and _same(found, tasks, name, reference):
                head = {"variant": name, "reference": reference, "task": task, "seconds": seconds.get(task)}
                gaps.append({**head, **_value(means[name] - means[reference], _free(found, tasks, name))})
    return rows, gaps


def _same(found: Found, tasks: Sequence[str], name: str, reference: str) -> bool:
    """Draws are paired only where both sides have the same questions."""
    return all(found[t][name].names == found[t][reference].names for t in tasks)


def _value(values: Array, free: int) -> Row:
    low, high = _ends(values[1:], free)
    return {"value": float(values[0]), "low": low, "high": high}


def _pass_in(s: Samples, seconds: float, seed: int) -> Array:
    """Pass with as many samples as fit into the seconds: as measured, then in each draw of questions, [1 + draws]."""
    sizes, counts = s.sizes, s.by_item(s.right)
    most = int(sizes.min())
    table = [pass_table(int(n))[round(c)][:most] for n, c in zip(sizes, counts, strict=True)]
    columns = np.column_stack([np.zeros(len(table)), np.array(table)])  # from no sample at all
    spent = s.by_item(s.spent["device_s"])
    parts = [np.ones((1, sizes.size)), *weights(sizes.size, seed, DRAWS)]
    out = []
    for w in parts:
        mean = w @ columns / w.sum(1, keepdims=True)
        samples = np.clip(seconds * (w @ sizes) / np.maximum(w @ spent, 1e-300), 0.0, float(most))
        below = np.minimum(samples.astype(int), most - 1)
        rows = np.arange(len(mean))
        out.append(mean[rows, below] + (samples - below) * (mean[rows, below + 1] - mean[rows, below]))
    return np.concatenate(out)
