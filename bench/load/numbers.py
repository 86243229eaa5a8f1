"""Percentiles of times under load, with intervals. numpy only.

Requests that wait in one queue are not independent: neighbours share its length. So resampling takes runs of
neighbours (a circular block bootstrap, blocks of n^(2/3) of n requests). Near saturation one run tells less than any
interval from it: of a queue at 30, 50 and 80% load, 200 requests, intervals of the median cover 86, 88 and 70%, those
of single requests 86, 70 and 30% (tests/unit/test_load_numbers.py); repeat with other seeds there. A percentile is
given only where at least one request lies beyond it: p99 needs a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.stats import LEVEL, Estimate

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
DRAWS = 1000
FEW = 8  # requests below which nothing is said about neighbours
CELLS = 20_000_000  # draws times values of one percentile's interval
Row = dict[str, Any]


def block_of(n: int) -> int:
    """Requests of a block."""
    return max(1, round(n ** (2 / 3)))


def picks(n: int, draws: int, seed: int = 0) -> NDArray[np.int64]:
    """Places of ``n`` requests drawn in circular blocks, [draws, n]."""
    block = block_of(n)
    starts = np.random.default_rng(seed).integers(0, n, size=(draws, -(-n // block), 1))
    return ((starts + np.arange(block)) % n).reshape(draws, -1)[:, :n]


def percentiles(values: Sequence[float]) -> Row | None:
    """``{"n", "mean", "p50": {"value", "low", "high"}, "p90", ...}`` of one value a request, in their order.

    Percentiles that so few values say nothing about are None; all of it is None without a value.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        return None
    out: Row = {"n": int(x.size), "mean": float(x.mean())}
    wanted = [(name, q) for name, q in QUANTILES if q == 0.5 or x.size * (1 - q) >= 1 - 1e-9]
    draws = np.quantile(x[picks(x.size, _draws(x.size))], [q for _, q in wanted], axis=1) if x.size > 1 else None
    out.update({name: None for name, _ in QUANTILES})
    for i, (name, q) in enumerate(wanted):
        out[name] = {"value": float(np.quantile(x, q)), **_ends(None if draws is None else draws[i])}
    return out


def pooled(groups: Sequence[Sequence[float]]) -> Row | None:
    """As ``percentiles``, of all values of all requests together; resampled by request, since a request's values hang
    together. ``groups``: the values of each request.
    """
    owners = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    x = np.concatenate([np.asarray(g, dtype=float) for g in groups]) if len(groups) else np.zeros(0)
    if x.size == 0:
        return None
    out: Row = {"n": int(x.size), "mean": float(x.mean())}
    order = np.argsort(x, kind="stable")
    ranked, ranked_owners = x[order], owners[order]
    found: dict[str, list[float]] = {name: [] for name, _ in QUANTILES}
    draws = _draws(x.size) if len(groups) > 1 else 0
    for drawn in picks(len(groups), draws) if draws else ():
        weight = np.cumsum(np.bincount(drawn, minlength=len(groups))[ranked_owners])
        if weight[-1]:
            for name, q in QUANTILES:
                found[name].append(float(ranked[np.searchsorted(weight, q * weight[-1])]))
    for name, q in QUANTILES:
        enough = q == 0.5 or x.size * (1 - q) >= 1 - 1e-9
        ends = _ends(np.array(found[name]) if found[name] else None)
        out[name] = {"value": float(np.quantile(x, q)), **ends} if enough else None
    return out


def _draws(values: int) -> int:
    return max(100, min(DRAWS, CELLS // values))


def _ends(draws: Any) -> Row:
    if draws is None:
        return {"low": None, "high": None}
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"low": float(low), "high": float(high)}


def share(flags: Sequence[bool]) -> Estimate:
    """Share of requests for which something holds, in their order.

    The interval is the wider one of Wilson's, which holds near 0 and 1, and the block bootstrap's.
    """
    x = np.asarray(flags, dtype=float)
    plain = stats.share(x)
    if x.size < 2 or plain.low is None or plain.high is None:
        return plain
    means = x[picks(x.size, _draws(x.size))].mean(axis=1)
    ends = _ends(means)
    low, high = min(plain.low, ends["low"]), max(plain.high, ends["high"])
    return Estimate(plain.value, max(plain.se or 0.0, float(means.std(ddof=1))), low, high, plain.n)


def together(values: Sequence[float]) -> float:
    """Correlation of the logarithms of neighbouring values, all above 0: near 1 where a queue moves them together."""
    x = np.log(np.asarray(values, dtype=float))
    if x.size < FEW or x[1:].std() == 0 or x[:-1].std() == 0:
        return 0.0
    return float(np.corrcoef(x[:-1], x[1:])[0, 1])


def ratio(over: Sequence[float], under: Sequence[float]) -> Estimate:
    """Median of over[i] / under[i], place i of both the same request; drawn in blocks of neighbours.

    Requests differ far more among each other than one does between two methods, so the ratio is taken within each.
    """
    x = np.asarray(over, dtype=float) / np.asarray(under, dtype=float)
    value = float(np.median(x))
    if x.size < 2:
        return Estimate(value, n=int(x.size))
    medians = np.median(x[picks(x.size, _draws(x.size))], axis=1)
    ends = _ends(medians)
    return Estimate(value, float(medians.std(ddof=1)), ends["low"], ends["high"], int(x.size))
