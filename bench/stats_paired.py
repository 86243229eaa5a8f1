"""Paired comparisons: intervals and tests of differences, corrections for many of them, and what they would need.

Questions are the units: value i of both sides is the same question. numpy only. Which interval is used where was
chosen by measured coverage (docs/STATISTICS.md, tests/property/test_stats_coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.stats import DRAWS, LEVEL, Array, Estimate, t_quantile
from pipo.errors import BadInput

POWER = 0.8
CACHED = 16_000_000  # most weights of one bootstrap that are kept between calls, a byte each


def difference(gaps: ArrayLike, step: float = 0.0) -> Estimate:
    """Mean of paired differences [n] with a t interval that does not collapse where few questions differ.

    ``step``: the least difference a question can have (1/k of avg@k, 1 of pass@k); one imaginary question with +step
    and one with -step, half a weight each and one more without a difference, widen the interval (after Agresti and
    Min). With step 0 it is the plain t interval. The value itself is the plain mean.
    """
    d = np.asarray(gaps, dtype=float)
    if d.size == 0:
        raise BadInput("paired difference without common items; compare runs over the same items")
    n, value = int(d.size), float(d.mean())
    if n < 2:
        return Estimate(value, n=n)
    se = float(d.std(ddof=1)) / math.sqrt(n)
    q = t_quantile(0.5 + LEVEL / 2, n - 1)
    if not step:
        return Estimate(value, se, value - q * se, value + q * se, n)
    centre = float(d.sum()) / (n + 2)
    half = q * math.sqrt((float((d * d).sum() + step * step) / (n + 2) - centre**2) / (n + 2))
    return Estimate(value, se, centre - half, centre + half, n)


def bootstrap(tasks: Sequence[ArrayLike], *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float] | None:
    """95% interval of a mean of paired differences by question: symmetric studentised bootstrap.

    ``tasks``: differences of each task, [n] each; questions are drawn within their tasks and the mean is the plain one
    over tasks. None where a task has fewer than two questions, or nothing varies.
    """
    parts = [np.asarray(t, dtype=float) for t in tasks]
    if not parts or min(p.size for p in parts) < 2:
        return None
    found = [_resampled(p, seed + i, draws) for i, p in enumerate(parts)]
    value = float(np.mean([p.mean() for p in parts]))
    se = math.sqrt(sum(float(p.var(ddof=1)) / p.size for p in parts)) / len(parts)
    if se <= 1e-12:
        return None
    means = np.mean([m for m, _ in found], axis=0)
    errors = np.sqrt(np.sum([v for _, v in found], axis=0)) / len(parts)
    away = np.abs(means - value)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(away < 1e-12, 0.0, away / np.where(errors > 1e-12, errors, np.nan))
    ratios = np.where(np.isnan(ratios), np.inf, ratios)  # a draw of equal questions, away from the mean
    q = float(np.quantile(ratios, LEVEL, method="higher"))
    return (value - q * se, value + q * se) if math.isfinite(q) else None


def _resampled(d: Array, seed: int, draws: int) -> tuple[Array, Array]:
    """Mean and squared standard error of [n] in each draw."""
    means, squares = [], []
    for w in weights(d.size, seed, draws):
        means.append(w @ d / d.size)
        squares.append(w @ (d * d) / d.size)
    mean = np.concatenate(means)
    return mean, np.maximum(np.concatenate(squares) - mean**2, 0.0) / (d.size - 1)


def weights(n: int, seed: int, draws: int) -> Iterator[Array]:
    """How often each of n questions is drawn, [some draws, n] at a time; the same for the same seed."""
    some = max(1, min(draws, CACHED // (16 * n)))
    for start in range(0, draws, some):
        count = min(some, draws - start)
        kept = _kept(n, seed, draws)[start : start + count] if n * draws <= CACHED else _drawn(n, (seed, start), count)
        yield kept.astype(float)


@lru_cache(maxsize=12)
def _kept(n: int, seed: int, draws: int) -> NDArray[np.uint8]:
    return _drawn(n, (seed, 0), draws).astype(np.uint8)  # a question comes once a draw on average, never 255 times


def _drawn(n: int, seed: tuple[int, int], draws: int) -> NDArray[np.int64]:
    picks = np.random.default_rng(seed).integers(0, n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(picks.ravel(), minlength=n * draws).reshape(draws, n)


class McNemar(msgspec.Struct, frozen=True):
    """Questions that only one side solved, and the exact two-sided p of McNemar's test on them."""

    only: int
    only_reference: int
    p: float


def mcnemar(solved: Sequence[bool], reference: Sequence[bool]) -> McNemar:
    """Exact McNemar test on paired verdicts, one a question: a fair coin decided each question that only one solved."""
    if len(solved) != len(reference):
        raise BadInput(f"{len(solved)} and {len(reference)} verdicts; both sides need the same questions")
    pairs = list(zip(solved, reference, strict=True))
    return _exact(sum(bool(s) and not r for s, r in pairs), sum(bool(r) and not s for s, r in pairs))


def mcnemar_of(tasks: Sequence[McNemar]) -> McNemar:
    """The test on the questions of several tasks together."""
    return _exact(sum(t.only for t in tasks), sum(t.only_reference for t in tasks))


def _exact(a: int, b: int) -> McNemar:
    tail = sum(math.comb(a + b, i) for i in range(min(a, b) + 1))
    return McNemar(a, b, min(1.0, 2 * tail / 2 ** (a + b)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: below 0.05 wherever the chance of even one false alarm stays below 5%."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, top = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        top = max(top, min(1.0, (len(p) - rank) * p[i]))
        out[i] = top
    return out


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's correction: of the rows below 0.05, 5% are false alarms on average. For exploring."""
    order = sorted(range(len(p)), key=lambda i: p[i], reverse=True)
    out, least = [0.0] * len(p), 1.0
    for rank, i in enumerate(order):
        least = min(least, p[i] * len(p) / (len(p) - rank))
        out[i] = least
    return out


class Variances(msgspec.Struct, frozen=True):
    """Squared standard error of a paired difference as (between + within / k): questions, and samples of one question.

    ``within`` is None where a question has one sample.
    """

    between: float
    within: float | None
    questions: int
    k: int


def variances(gaps: Sequence[Sequence[float]]) -> Variances:
    """Parts of the squared error of mean differences; ``gaps``: [questions][samples], paired by seed."""
    means = np.array([np.mean(g) for g in gaps])
    n, k = len(gaps), min(map(len, gaps), default=0)
    if n < 2:
        raise BadInput(f"{n} questions say nothing about how questions differ; take at least 2")
    total = float(means.var(ddof=1)) / n
    if k < 2:
        return Variances(total, None, n, k)
    within = float(np.mean([np.var(g, ddof=1) * k / len(g) for g in gaps])) / n  # times k: of one sample
    return Variances(max(0.0, total - within / k), within, n, k)


def needs(points: float, parts: Sequence[Variances], se: float | None = None) -> dict[str, Any] | None:
    """What a difference of ``points`` would need to be shown (80% power, two-sided 5%), from the observed variances.

    ``parts``: one a task; the difference is the plain mean over tasks. ``se``: observed standard error, default from
    the parts. Returns ``questions`` (as many over all tasks, samples a question unchanged), ``samples`` a question
    (questions unchanged; None where no number is enough or within is unknown) and ``detectable`` (the least
    difference that the run as it is would show); None where nothing varied, since then nothing can be foretold.
    """
    tasks = len(parts)
    between = sum(p.between for p in parts) / tasks**2
    known = all(p.within is not None for p in parts)
    within = sum(p.within or 0.0 for p in parts) / tasks**2
    n, k = sum(p.questions for p in parts), min(p.k for p in parts)
    se = math.sqrt(between + within / max(k, 1)) if se is None else se
    if se <= 1e-12 or points <= 0:
        return None
    quantiles = _both(n - tasks)
    questions = float(n)
    for _ in range(50):  # the t quantiles depend on the number sought
        questions = max(2.0 * tasks, n * (se * _both(questions - tasks) / points) ** 2)
    room = (points / quantiles) ** 2 - between
    samples = math.ceil(within / room - 1e-9) if known and room > 0 else None
    return {
        "points": points, "power": POWER, "questions": math.ceil(questions - 1e-9), "k": k,
        "samples": None if samples is None else max(1, samples), "detectable": se * quantiles,
    }  # fmt: skip


def _both(dof: float) -> float:
    dof = max(1.0, round(dof))
    return t_quantile(0.5 + LEVEL / 2, dof) + (t_quantile(POWER, dof) if dof < 1e6 else NormalDist().inv_cdf(POWER))
