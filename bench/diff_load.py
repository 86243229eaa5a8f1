"""Load runs in a diff: ratios of times of the same requests under the same load, and the share that ended well.

Requests that wait in one queue move together. Drawn in blocks of neighbours, intervals hold up to about half of what
an engine can do; nearer to saturation two runs of the same truth differ by more than any interval from one run knows.
There the ratios of neighbours are correlated, so a row in which they are has no interval: it is shown and settles
nothing. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench import diff_stats as ds
from bench import stats, stats_paired
from bench.diff_rows import Found, Notes, Row, Settings, checked
from bench.diff_runs import Side
from bench.diff_times import machines
from bench.load import metrics
from bench.load.numbers import block_of, picks
from bench.load.records import RequestRecord
from bench.stats import DRAWS, LEVEL, Array, Estimate, t_quantile
from pipo.errors import BadInput

TIMES = ("ttft", "first_pair", "tpot", "e2e")
MOVE_TOGETHER = 0.5  # correlation of neighbours from which there is no interval (tests/property/test_diff_alarms.py)
Key = tuple[str, str, float]


def rows(a: Side, b: Side, names: dict[str, str], settings: Settings, notes: Notes) -> list[Found]:
    """Rows of every load that both runs have, for variants matched by ``names`` (new -> old)."""
    if settings.tasks:
        raise BadInput(f"--task {settings.tasks[0]} has no effect on load runs; leave it out")
    wanted = checked(settings.metrics, [*TIMES, "ok"], ["ttft", "tpot", "ok"])
    machines(a, b, notes)
    found = []
    for name, was in names.items():
        here = [key for key in b.requests if key[0] == name and (was, *key[1:]) in a.requests]
        odd = sum(key[0] == name for key in b.requests) + sum(key[0] == was for key in a.requests) - 2 * len(here)
        if odd:
            notes.append((name, f"{odd} points of one run only, not compared"))
        for key in here:
            old, new = a.requests[was, *key[1:]], b.requests[key]
            for metric in wanted:
                made = _row(old, new, key, was, metric, settings, notes)
                found += [made] if made else []
    if not found:
        raise BadInput("no load in common; run one again with the other's rates, concurrency or trace")
    return found


def _row(
    old: Sequence[RequestRecord], new: Sequence[RequestRecord], key: Key, was: str, metric: str, settings: Settings,
    notes: Notes,
) -> Found | None:  # fmt: skip
    """One metric at one load; None where no request has it."""
    name, mode, load = key
    same = [r.due_s for r in old] == [r.due_s for r in new] and [r.item for r in old] == [r.item for r in new]
    row: Row = {"variant": name, "was": was, "task": None, "mode": mode, "load": load, "metric": metric,
                "how": "paired" if same else "unpaired", "p_holm": None, "mcnemar": None, "detectable": None,
                "decides": True}  # fmt: skip
    if not same:
        notes.append((f"{name} at {load:g}", "other requests or other times of arrival: unpaired"))
    if metric == "ok":
        good = [[float(r.status == "ok") for r in side] for side in (old, new)]
        shares = [stats.share(x) for x in good]
        gap = stats_paired.difference(np.subtract(good[1], good[0]), 1.0) if same else ds.unpaired(shares[1], shares[0])
        row |= {"a": shares[0].value, "b": shares[1].value, "n": min(map(len, good))}
        return Found(row, [gap], settings.margin / 100)
    sides = _both(old, new, metric) if same else [[r for r in s if _value(r, metric) > 0] for s in (old, new)]
    if not all(sides):
        return None
    was_s, now_s = (np.array([_value(r, metric) for r in side]) for side in sides)
    gap, together = faster_paired(now_s, was_s) if same else faster_apart(now_s, was_s)
    if together >= MOVE_TOGETHER:
        gap = Estimate(gap.value, n=gap.n)
        notes.append((f"{name} at {load:g}", "neighbouring requests move together, as near saturation or where "
                      "others use the machine: no interval; lower the load, or repeat with other seeds"))  # fmt: skip
    row |= {"a": float(np.median(was_s)), "b": float(np.median(now_s)), "n": len(now_s)}
    return Found(row, [gap], math.log1p(settings.margin / 100), -1.0, ratio=True)


def _both(old: Sequence[RequestRecord], new: Sequence[RequestRecord], metric: str) -> list[list[RequestRecord]]:
    """The requests that have the metric on both sides."""
    pairs = [(x, y) for x, y in zip(old, new, strict=True) if _value(x, metric) > 0 and _value(y, metric) > 0]
    return [[pair[i] for pair in pairs] for i in (0, 1)]


def _value(r: RequestRecord, metric: str) -> float:
    return metrics.VALUES[metric](r) if r.status == "ok" else -1.0


def faster_paired(new: Array, old: Array) -> tuple[Estimate, float]:
    """Median of log(old / new) over the same requests, and how much neighbours move together."""
    x = np.log(old / new)
    draws = np.median(x[picks(x.size, DRAWS)], axis=1) if x.size > 1 else np.zeros(2)
    return _estimate(float(np.median(x)), [draws], [x.size]), together(x)


def faster_apart(new: Array, old: Array) -> tuple[Estimate, float]:
    """log of the ratio of medians, old over new, of requests that are not the same ones."""
    sides = [np.log(old), np.log(new)]
    value = float(np.median(sides[0]) - np.median(sides[1]))
    if min(x.size for x in sides) < 2:
        return Estimate(value, n=min(x.size for x in sides)), 0.0
    draws = [np.median(x[picks(x.size, DRAWS, seed)], axis=1) for seed, x in enumerate(sides)]
    return _estimate(value, draws, [x.size for x in sides]), max(map(together, sides))


def _estimate(value: float, draws: Sequence[Array], sizes: Sequence[int]) -> Estimate:
    """With Student's t by the number of blocks, which are what is independent."""
    blocks = [-(-n // block_of(n)) for n in sizes]
    if min(blocks) < 2:
        return Estimate(value, n=min(sizes))
    squares = [float(d.var(ddof=1)) * b / (b - 1) for d, b in zip(draws, blocks, strict=True)]
    se = math.sqrt(sum(squares))
    if se <= 1e-12:
        return Estimate(value, n=min(sizes))
    dof = ds.welch(squares, blocks)
    half = t_quantile(0.5 + LEVEL / 2, dof) * se
    return Estimate(value, se, value - half, value + half, dof + 1)


def together(x: Array) -> float:
    """Correlation of neighbours."""
    away = x - x.mean()
    total = float((away * away).sum())
    return float((away[1:] * away[:-1]).sum()) / total if total > 0 else 0.0
