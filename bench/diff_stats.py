"""When two runs differ: unpaired differences, ratios of times, intervals at any level, margins. numpy only, torch-free.

The estimates here are *oriented*: above 0 the new run is better. What is asked of one is asked through
``stats.p_value``, so that an interval and a p value never contradict each other (docs/STATISTICS.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bench import stats
from bench.stats import DRAWS, LEVEL, Estimate, t_quantile
from pipo.errors import BadInput

HALVINGS = 60


def turned(e: Estimate) -> Estimate:
    """The estimate of the negative."""
    low, high = (None if side is None else -side for side in (e.high, e.low))
    return Estimate(-e.value, e.se, low, high, e.n)


def shifted(parts: Sequence[Estimate], by: float) -> list[Estimate]:
    """The parts with ``by`` added to each, so that their mean moves by as much."""
    return [Estimate(e.value + by, e.se, _plus(e.low, by), _plus(e.high, by), e.n) for e in parts]


def _plus(end: float | None, by: float) -> float | None:
    return None if end is None else end + by


def p_beyond(parts: Sequence[Estimate], margin: float) -> float | None:
    """Two-sided p of "the mean of these is -margin"; None as in ``stats.p_value``."""
    return stats.p_value(shifted(parts, margin))


def interval(parts: Sequence[Estimate], alpha: float) -> tuple[float | None, float | None]:
    """The interval at level 1 - alpha: all values that ``p_beyond`` does not reject at alpha.

    At 5% it is that of ``stats.combine``, with which every summary is made.
    """
    found = stats.combine(parts)
    if found.low is None or found.high is None:
        return None, None
    if math.isclose(alpha, 1 - LEVEL):
        return found.low, found.high
    return _end(parts, found, found.low, alpha), _end(parts, found, found.high, alpha)


def _end(parts: Sequence[Estimate], found: Estimate, at_level: float, alpha: float) -> float:
    """One end of an interval by bisection between the value and far beyond the end at 5%."""
    inside, outside = found.value, at_level
    for _ in range(40):  # doubled until it is rejected: small alphas lie far out
        p = p_beyond(parts, -outside)
        if p is None or p < alpha or outside == inside:
            break
        outside = found.value + 2 * (outside - found.value)
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        p = p_beyond(parts, -middle)
        if p is not None and p >= alpha:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2


def unpaired(new: Estimate, old: Estimate) -> Estimate:
    """new - old of independent estimates, one of each run: each end from the two sides that make it (Zou and Donner).

    Degrees of freedom by Welch and Satterthwaite, rounded down; ``n`` is one more, as everywhere in ``bench.stats``.
    """
    value = new.value - old.value
    if any(end is None for e in (new, old) for end in (e.low, e.high, e.se)):
        return Estimate(value, n=min(new.n, old.n))
    ends = [
        _half(new, "low", old, "high"), _half(new, "high", old, "low")
    ]  # fmt: skip
    squares = [(e.se or 0.0) ** 2 for e in (new, old)]
    dof = welch(squares, [new.n, old.n])
    return Estimate(value, math.sqrt(sum(squares)), value - ends[0], value + ends[1], dof + 1)


def _half(one: Estimate, side: str, other: Estimate, facing: str) -> float:
    return math.hypot(getattr(one, side) - one.value, getattr(other, facing) - other.value)


def faster(new: ArrayLike, old: ArrayLike, statistic: str = "p50", *, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """log(old / new) of the medians (or means) of trials, [n] and [m], which belong to no pairs.

    The standard error is that of a bootstrap which draws the trials of each side for itself; the interval takes the
    quantile of Student's t with the degrees of freedom of Welch, for percentiles of so few trials are too narrow.
    No interval where a side has fewer than two trials or none of them differs.
    """
    sides = [np.asarray(x, dtype=float) for x in (new, old)]
    if min(x.size for x in sides) == 0:
        raise BadInput("ratio of times without trials; run at least one of each")
    of = np.median if statistic == "p50" else np.mean
    value = float(np.log(of(sides[1]) / of(sides[0])))
    n = min(x.size for x in sides)
    if n < 2:
        return Estimate(value, n=n)
    rng = np.random.default_rng(seed)
    drawn = [np.log(of(x[rng.integers(0, x.size, size=(draws, x.size))], axis=1)) for x in sides]
    lacks = [1.0 if statistic == "p50" else x.size / (x.size - 1) for x in sides]
    squares = [float(d.var(ddof=1)) * more for d, more in zip(drawn, lacks, strict=True)]
    se = math.sqrt(sum(squares))
    if se <= 1e-12:
        return Estimate(value, n=n)
    dof = welch(squares, [x.size for x in sides])
    half = t_quantile(0.5 + LEVEL / 2, dof) * se
    return Estimate(value, se, value - half, value + half, dof + 1)


def welch(squares: Sequence[float], sizes: Sequence[int]) -> int:
    """Degrees of freedom of a difference of means by Welch and Satterthwaite, rounded down."""
    spread = sum(s * s / (n - 1) for s, n in zip(squares, sizes, strict=True))
    return max(1, int(sum(squares) ** 2 / spread)) if spread > 0 else sum(sizes) - 2
