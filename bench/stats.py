"""Statistics of measuring: avg@k, pass@k, errors clustered by question, paired differences, bootstraps. numpy only.

Questions (items) are the units that are independent; samples of one item are not. So every standard error is taken
over items. Intervals are 95% and use Student's t with items - 1 degrees of freedom unless a docstring says otherwise.
Votes and whole pass@k curves are in bench/stats_votes.py, tests of paired differences, corrections and power in
bench/stats_paired.py; docs/STATISTICS.md says how each was chosen and what its intervals cover.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipo.errors import BadInput

LEVEL = 0.95
DRAWS = 2000
EDGE_ITEMS = 5
INTERVALS = (
    "95%: Student t, standard errors clustered by question, differences paired by question; shares: Wilson at the "
    "effective number of samples; times: bootstrap of the median over questions or trials, 2000 draws"
)
Array = NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True):
    """A value with its standard error, 95% interval and number of items; se, low, high are None where n < 2."""

    value: float
    se: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 1

    def plain(self) -> dict[str, Any]:
        """The estimate as a dict of plain values, for summary.json."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


@lru_cache(maxsize=65536)
def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right, from c right ones among n: 1 - C(n-c, k) / C(n, k).

    Raises:
        BadInput: k > n (or k < 1, or c outside 0..n).
    """
    if not 1 <= k <= n:
        rule = f"k is {k}, n (samples an item) is {n}; ask for a smaller k or for more samples"
        raise BadInput(f"pass@k needs 1 <= k <= n: {rule}")
    if not 0 <= c <= n:
        raise BadInput(f"{c} right samples of {n} cannot be; it must lie in [0, {n}]")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def mean(values: ArrayLike) -> Estimate:
    """Mean of one value an item, [n], with the plain standard error sd / sqrt(n)."""
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        raise BadInput("mean of no items; run at least one item")
    value = float(x.mean())
    if x.size < 2:
        return Estimate(value, n=int(x.size))
    return _with_t(value, float(x.std(ddof=1)) / math.sqrt(x.size), int(x.size), x.size - 1)


def clustered(clusters: Sequence[Sequence[float]]) -> Estimate:
    """Mean over all samples, [items][samples of it], with the standard error clustered by item.

    With as many samples for each item it equals ``mean`` of the item means, error included.
    """
    return ratio([float(np.sum(c)) for c in clusters], [float(len(c)) for c in clusters])


def ratio(over: ArrayLike, under: ArrayLike) -> Estimate:
    """Ratio of sums, sum(over) / sum(under), both [n] by item; the error is the linearised one, clustered by item."""
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    total, n = float(b.sum()), int(a.size)
    if total == 0:
        raise BadInput("ratio over nothing; the denominators sum to 0")
    value = float(a.sum()) / total
    if n < 2:
        return Estimate(value, n=n)
    residual = a - value * b
    se = math.sqrt(n / (n - 1) * float((residual**2).sum())) / total
    return _with_t(value, se, n, n - 1)


def paired(values: Mapping[str, float], reference: Mapping[str, float]) -> Estimate:
    """Mean difference values - reference over the items that both have (keys), paired by item."""
    common = sorted(values.keys() & reference.keys())
    if not common:
        raise BadInput("paired difference without common items; compare runs over the same items")
    return mean([values[i] - reference[i] for i in common])


def share(values: ArrayLike, weights: ArrayLike | None = None, *, most: float | None = None) -> Estimate:
    """Mean of shares in [0, 1], one an item, with an interval that holds near 0 and 1 too (docs/STATISTICS.md).

    Wilson's interval at the effective number of samples p (1 - p) / se^2 (Korn and Graubard), se clustered by item,
    with the quantile of Student's t. Where fewer than ``EDGE_ITEMS`` items lie off the nearer edge, se says little:
    the effective number is at most the number of items there, as if samples of one item were all alike.

    Args:
        values: mean of each item, [n]. ``weights``: its number of samples, [n], default alike.
        most: samples that all items have together, the largest effective number; default n.
    """
    x = np.asarray(values, dtype=float)
    b = np.ones(x.size) if weights is None else np.asarray(weights, dtype=float)
    if x.size and (x.min() < 0 or x.max() > 1):
        raise BadInput(f"a share lies in [0, 1]; these reach from {x.min():g} to {x.max():g}")
    plain = ratio(x * b, b)
    n, p, se = plain.n, min(1.0, max(0.0, plain.value)), plain.se
    if se is None:
        return plain
    most = max(float(n), n if most is None else most)
    size = min(most, p * (1 - p) / se**2) if se > 1e-12 else most
    if min(int((x > 0).sum()), int((x < 1).sum())) < EDGE_ITEMS:
        size = min(size, n)
    q = t_quantile(0.5 + LEVEL / 2, n - 1)
    centre = (p + q * q / (2 * size)) / (1 + q * q / size)
    half = q / (1 + q * q / size) * math.sqrt(p * (1 - p) / size + (q / (2 * size)) ** 2)
    return Estimate(p, se, max(0.0, centre - half), min(1.0, centre + half), n)


def combine(parts: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent estimates (tasks); t interval with Welch-Satterthwaite degrees of freedom.

    Each side of the interval is made of the parts' own sides (square-and-add, Zou and Donner), so lopsided intervals
    stay so; of plain t intervals it is the usual one.
    """
    if not parts:
        raise BadInput("mean over no tasks; name at least one")
    value, n = float(np.mean([p.value for p in parts])), sum(p.n for p in parts)
    if len(parts) == 1:
        return parts[0]
    if any(p.se is None for p in parts):
        return Estimate(value, n=n)
    (down, dof_down), (up, dof_up) = _side(parts, "low"), _side(parts, "high")
    q = 0.5 + LEVEL / 2
    return Estimate(
        value, math.sqrt(sum((p.se or 0.0) ** 2 for p in parts)) / len(parts),
        value - t_quantile(q, dof_down) * down, value + t_quantile(q, dof_up) * up, n,
    )  # fmt: skip


def _side(parts: Sequence[Estimate], side: str) -> tuple[float, float]:
    """Standard error and degrees of freedom of the mean of independent estimates towards one end of the interval."""
    q = 0.5 + LEVEL / 2
    variances = [(abs(getattr(p, side) - p.value) / t_quantile(q, p.n - 1)) ** 2 for p in parts]
    total, spread = sum(variances), sum(v * v / (p.n - 1) for v, p in zip(variances, parts, strict=True))
    dof = total * total / spread if spread > 0 else sum(p.n for p in parts) - len(parts)
    return math.sqrt(total) / len(parts), dof


def p_value(parts: Sequence[Estimate]) -> float | None:
    """Two-sided p of "the mean of these (paired differences, a task each) is 0"; below 0.05 where the interval of
    ``combine`` leaves out 0. None where a part has no interval, or all of them have no width around 0.
    """
    if not parts or any(p.se is None for p in parts):
        return None
    value = float(np.mean([p.value for p in parts]))
    se, dof = _side(parts, "low" if value > 0 else "high")
    if se == 0:
        return None if value == 0 else 0.0
    return t_tail(value / se, dof)


def _with_t(value: float, se: float, n: int, dof: float) -> Estimate:
    half = t_quantile(0.5 + LEVEL / 2, dof) * se
    return Estimate(value, se, value - half, value + half, n)


def t_tail(t: float, dof: float) -> float:
    """P(|T| >= |t|) of Student's t, dof > 0 (real): the incomplete beta function, as a continued fraction."""
    x, a, b = dof / (dof + t * t), dof / 2, 0.5
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    if x in (0.0, 1.0):
        return x
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function, evaluated from the front (Lentz)."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value


@lru_cache(maxsize=65536)
def t_quantile(p: float, dof: float) -> float:
    """Quantile of Student's t, 0.5 <= p < 1, dof > 0 (real), to 1e-8.

    Newton from the normal quantile, which lies below: the distribution function is concave there, so no step goes
    too far.
    """
    log_scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    t = NormalDist().inv_cdf(p)
    for _ in range(200):
        density = math.exp(log_scale - (dof + 1) / 2 * math.log1p(t * t / dof))
        step = (0.5 * t_tail(t, dof) - (1 - p)) / density
        t += step
        if abs(step) <= 1e-10 * max(1.0, t):
            break
    return t


def bootstrap(values: ArrayLike, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """95% percentile interval of the median of [n] independent values, resampled with replacement; seeded."""
    x = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, x.size, size=(draws, x.size))
    return _percentile_interval(np.median(x[picks], axis=1))


def bootstrap_ratio(over: ArrayLike, under: ArrayLike, *, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """median(over) / median(under) with a paired bootstrap interval: both [n], place i of both is one trial.

    Trials are drawn together, so what disturbed the machine in one trial stays on both sides. ``se`` is the
    standard deviation over draws; None with fewer than two trials.
    """
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if a.shape != b.shape or a.size == 0:
        raise BadInput(f"paired ratio of {a.size} and {b.size} trials; both need the same trials, at least one")
    value = float(np.median(a) / np.median(b))
    if a.size < 2:
        return Estimate(value, n=int(a.size))
    picks = np.random.default_rng(seed).integers(0, a.size, size=(draws, a.size))
    ratios = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
    low, high = _percentile_interval(ratios)
    return Estimate(value, float(ratios.std(ddof=1)), low, high, int(a.size))


def _percentile_interval(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def quantile(values: ArrayLike, q: float) -> float:
    """Quantile q in [0, 1] with linear interpolation."""
    return float(np.quantile(np.asarray(values, dtype=float), q))
