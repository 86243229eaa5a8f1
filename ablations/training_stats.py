"""Statistics of scores by question and training seed: means, differences and their intervals over both. numpy only.

Questions and seeds are crossed: every seed's model answers the same questions. The squared standard error of a mean is
its question part (variance over questions of the mean over seeds, as bench/stats.py) plus a seed part: the variance
of the seeds' means beyond what the finite number of questions explains, never below 0, over the number of seeds. A row
with one seed borrows the seed part from the rows with more (``pooled``). Student t with Welch-Satterthwaite degrees of
freedom, 95%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench import stats
from pipo.errors import BadInput

Array = NDArray[np.float64]
INTERVALS = (
    "95% over questions and training seeds: squared error = variance over questions of the mean over seeds, plus what "
    "the seeds' means vary beyond it (rows with one seed: as much as the rows with more seeds vary); Student t, "
    "Welch-Satterthwaite; differences paired by question, and by seed where both rows have the same ones"
)


class SeedVariance(msgspec.Struct, frozen=True):
    """How much a model's mean score varies with its training seed: a variance and its degrees of freedom."""

    value: float = 0.0
    dof: int = 0


class Estimate(stats.Estimate, frozen=True):
    """As bench.stats.Estimate, and the number of training seeds with their least and largest means."""

    seeds: int = 1
    seed_low: float | None = None
    seed_high: float | None = None

    def plain(self) -> dict[str, Any]:
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


def seed_variance(scores: Array) -> SeedVariance:
    """Variance of the seeds' means of [questions, seeds] beyond chance by question; may be negative, as unbiased."""
    questions, seeds = scores.shape
    if seeds < 2 or questions < 2:
        return SeedVariance()
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    mixed = float((rest**2).sum()) / ((questions - 1) * (seeds - 1))
    return SeedVariance(float(scores.mean(0).var(ddof=1)) - mixed / questions, seeds - 1)


def pooled(scores: Sequence[Array]) -> SeedVariance:
    """The seed variance of several rows together, weighted by degrees of freedom, at least 0."""
    parts = [v for v in map(seed_variance, scores) if v.dof]
    dof = sum(v.dof for v in parts)
    return SeedVariance(max(0.0, sum(v.value * v.dof for v in parts) / dof), dof) if dof else SeedVariance()


def estimate(scores: ArrayLike, borrowed: SeedVariance = SeedVariance(), fixed: bool = False) -> Estimate:  # noqa: B008
    """Mean of [questions, seeds] with its interval. ``fixed``: a model that was not trained, so no seed part.

    ``borrowed``: the seed variance to take where there is one seed.
    """
    x = np.asarray(scores, dtype=float)
    own = seed_variance(x)
    extra = SeedVariance() if fixed else own if own.dof else borrowed
    return _with_seeds(x.mean(1), extra.value / x.shape[1], extra.dof, x.mean(0))


def difference(
    scores: ArrayLike, reference: ArrayLike, borrowed: SeedVariance = SeedVariance(),  # noqa: B008
    *, same_seeds: bool = True, fixed: bool = False,
) -> Estimate:  # fmt: skip
    """Mean of scores - reference, both [questions, seeds], paired by question.

    Paired by seed too with ``same_seeds``. ``fixed``: the reference was not trained, its one column goes with each
    seed.
    """
    x, y = np.asarray(scores, dtype=float), np.asarray(reference, dtype=float)
    if x.shape[0] != y.shape[0]:
        raise BadInput(f"paired difference of {x.shape[0]} and {y.shape[0]} questions; both need the same ones")
    if fixed or (same_seeds and x.shape == y.shape):
        gap = x - y
        own = seed_variance(gap)
        if own.dof:
            return _with_seeds(gap.mean(1), own.value / gap.shape[1], own.dof, gap.mean(0))
    share = 1 / x.shape[1] + (0 if fixed else 1 / y.shape[1])
    return _with_seeds(x.mean(1) - y.mean(1), borrowed.value * share, borrowed.dof, x.mean(0) - y.mean())


def _with_seeds(by_question: Array, extra: float, extra_dof: int, by_seed: Array) -> Estimate:
    """The mean over questions; ``extra``: the seed part of its squared error, with that part's degrees of freedom."""
    n, value = int(by_question.size), float(by_question.mean())
    seeds = {"seeds": int(by_seed.size), "seed_low": float(by_seed.min()), "seed_high": float(by_seed.max())}
    if n < 2:
        return Estimate(value, n=n, **seeds)  # type: ignore[arg-type]
    base, extra = float(by_question.var(ddof=1)) / n, max(0.0, extra)
    se = math.sqrt(base + extra)
    dof: float = n - 1
    if extra:
        dof = (base + extra) ** 2 / (base**2 / (n - 1) + extra**2 / extra_dof)
    half = stats.t_quantile(0.5 + stats.LEVEL / 2, dof) * se
    return Estimate(value, se, value - half, value + half, n, **seeds)  # type: ignore[arg-type]


def area(kept: ArrayLike, scores: ArrayLike) -> Array:
    """Mean score over kept shares from the least to the largest one, by question: [points], [points, questions].

    The trapezoidal rule on the line through the points in order of their kept share; where all are at one kept share,
    the plain mean.
    """
    x, y = np.asarray(kept, dtype=float), np.asarray(scores, dtype=float)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    width = float(x[-1] - x[0])
    if width <= 0:
        return np.asarray(y.mean(0))
    return np.asarray(np.trapezoid(y, x, axis=0) / width)
