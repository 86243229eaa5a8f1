"""Statistics of measuring: avg@k, pass@k, errors clustered by question, paired differences, bootstraps. numpy only.

Questions (items) are the units that are independent; samples of one item are not. So every standard error is taken
over items. Intervals are 95% and use Student's t with items - 1 degrees of freedom unless a docstring says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipo.errors import BadInput

LEVEL = 0.95
DRAWS = 2000
INTERVALS = (
    "95%: Student t, standard errors clustered by question, differences paired by question; "
    "times: bootstrap of the median over questions or trials, 2000 draws"
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


def combine(parts: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent estimates (tasks); t interval with Welch-Satterthwaite degrees of freedom."""
    if not parts:
        raise BadInput("mean over no tasks; name at least one")
    value, n = float(np.mean([p.value for p in parts])), sum(p.n for p in parts)
    if len(parts) == 1:
        return parts[0]
    variances = [(p.se**2, p.n - 1) for p in parts if p.se is not None]
    if len(variances) < len(parts):
        return Estimate(value, n=n)
    total = sum(v for v, _ in variances)
    spread = sum(v * v / dof for v, dof in variances)
    return _with_t(value, math.sqrt(total) / len(parts), n, total * total / spread if spread > 0 else n - len(parts))


def _with_t(value: float, se: float, n: int, dof: float) -> Estimate:
    half = t_quantile(0.5 + LEVEL / 2, dof) * se
    return Estimate(value, se, value - half, value + half, n)


@lru_cache(maxsize=1024)
def t_quantile(p: float, dof: float) -> float:
    """Quantile of Student's t, 0.5 <= p < 1, dof > 0 (real), to 1e-6: the density is integrated, then bisected."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    log_scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)

    def below(angle: float) -> float:  # P(0 < T < sqrt(dof) tan(angle)); in the angle the density is cos^(dof-1)
        theta = angle / 2 * (nodes + 1)
        density = np.exp(log_scale + 0.5 * math.log(dof) + (dof - 1) * np.log(np.cos(theta)))
        return float(angle / 2 * (weights * density).sum())

    low, high = 0.0, math.pi / 2
    if dof > 200:  # the mass sits near 0; a narrow bracket keeps the 64 nodes where it is
        high = math.atan(40 / math.sqrt(dof))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < p - 0.5 else (low, middle)
    return math.sqrt(dof) * math.tan((low + high) / 2)


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
