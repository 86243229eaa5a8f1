"""Statistics against known truth: simulated runs whose real values are known, seeds fixed.

95% intervals must cover the truth in 93 to 97% of runs, false alarms at 5% stay under 6%. Where scores are so
few-valued or so near 0 or 1 that an interval cannot keep to that from above, it must still not fall below 93%
(the lists named OVER; how far over: docs/STATISTICS.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import stats, stats_paired

RUNS = 2000
Array = NDArray[np.float64]


class Shape(NamedTuple):
    """Questions, samples a question, mean score, intraclass correlation (0: all questions alike, 1: all or nothing)."""

    questions: int
    k: int
    mean: float
    alike: float


def chances(shape: Shape, rng: np.random.Generator, runs: int = RUNS) -> Array:
    """Each question's chance to be solved, [runs, questions]: Beta with the shape's mean and correlation."""
    size = runs, shape.questions
    if shape.alike == 0:
        return np.full(size, shape.mean)
    s = 1 / shape.alike - 1
    return rng.beta(shape.mean * s, (1 - shape.mean) * s, size)


def covered(bounds: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in bounds]))


def share_bounds(x: Array, k: int) -> list[tuple[float, float]]:
    found = [stats.share(row, most=k * row.size) for row in x]
    return [(e.low, e.high) for e in found]  # type: ignore[misc]


SHARES = [
    Shape(30, 4, 0.5, 0.2), Shape(30, 4, 0.3, 0.6), Shape(30, 16, 0.5, 0.6), Shape(30, 16, 0.2, 0.2),
    Shape(30, 4, 0.1, 0.2), Shape(30, 1, 0.5, 0.0), Shape(200, 1, 0.3, 0.0), Shape(200, 4, 0.5, 0.2),
    Shape(200, 4, 0.1, 0.6), Shape(200, 4, 0.97, 0.6), Shape(200, 16, 0.03, 0.2), Shape(200, 1, 0.99, 0.0),
]  # fmt: skip
SHARES_OVER = [
    Shape(30, 1, 0.03, 0.0), Shape(30, 1, 0.9, 0.0), Shape(30, 4, 0.01, 0.2), Shape(30, 4, 0.97, 0.6),
    Shape(30, 16, 0.03, 0.6), Shape(30, 16, 0.9, 0.6), Shape(15, 4, 0.2, 0.2), Shape(15, 16, 0.03, 0.6),
    Shape(200, 4, 0.01, 0.6), Shape(200, 16, 0.99, 0.9),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHARES + SHARES_OVER, ids=str)
def test_intervals_of_shares_cover(shape: Shape) -> None:
    rng = np.random.default_rng(11)
    x = rng.binomial(shape.k, chances(shape, rng)) / shape.k
    found = covered(share_bounds(x, shape.k), shape.mean)
    plain = covered([(e.low, e.high) for e in map(stats.mean, x)], shape.mean)  # type: ignore[misc]
    print(f"{shape}: covers {100 * found:.1f}%, Student t {100 * plain:.1f}%")
    top = 1.0 if shape in SHARES_OVER else 0.97
    assert 0.93 <= found <= top, f"{shape}: covers {100 * found:.1f}% of {RUNS} runs"


def test_student_t_alone_would_not_do_near_the_edges() -> None:
    rng = np.random.default_rng(11)
    shape = Shape(30, 4, 0.03, 0.6)
    x = rng.binomial(shape.k, chances(shape, rng)) / shape.k
    plain = [(e.low, e.high) for e in map(stats.mean, x)]
    assert covered(plain, shape.mean) < 0.75  # type: ignore[arg-type]
    assert covered(share_bounds(x, shape.k), shape.mean) > 0.93


def test_intervals_of_a_mean_over_tasks_cover() -> None:
    """Three tasks of different size and difficulty, one near 1, one near 0."""
    shapes = [Shape(30, 4, 0.5, 0.6), Shape(60, 4, 0.95, 0.4), Shape(40, 4, 0.06, 0.4)]
    rng = np.random.default_rng(5)
    tasks = [rng.binomial(s.k, chances(s, rng)) / s.k for s in shapes]
    found = [stats.combine([stats.share(t[i], most=4 * t.shape[1]) for t in tasks]) for i in range(RUNS)]
    truth = float(np.mean([s.mean for s in shapes]))
    result = covered([(e.low, e.high) for e in found], truth)  # type: ignore[misc]
    assert 0.93 <= result <= 0.97, f"covers {100 * result:.1f}%"


def test_intervals_cover_with_unequal_numbers_of_samples() -> None:
    shape, counts = Shape(60, 4, 0.4, 0.3), np.array([1, 2, 4, 8, 16, 3] * 10)
    rng = np.random.default_rng(3)
    right = rng.binomial(counts, chances(shape, rng))
    found = [stats.share(r / counts, counts, most=float(counts.sum())) for r in right]
    result = covered([(e.low, e.high) for e in found], shape.mean)  # type: ignore[misc]
    assert 0.93 <= result <= 0.97, f"covers {100 * result:.1f}%"


class Pair(NamedTuple):
    """A shape, the share of the reference's failures that the variant mends, and the metric (avg or pass@k)."""

    shape: Shape
    gain: float
    metric: str = "avg"


def gaps(pair: Pair, rng: np.random.Generator) -> tuple[Array, float]:
    """Paired differences by question [runs, questions] and their expectation; 60% of the questions are equally hard."""
    shape, k = pair.shape, pair.shape.k
    p, other = chances(shape, rng), chances(shape, rng)
    q = np.where(rng.random(p.shape) < 0.6, p, other)
    q = q + pair.gain * (1 - q)
    a, b = rng.binomial(k, q), rng.binomial(k, p)
    if pair.metric == "avg":
        return (a - b) / k, pair.gain * (1 - shape.mean)
    truth = float(np.mean((1 - p) ** k - (1 - q) ** k)) if pair.gain else 0.0
    return (a > 0) * 1.0 - (b > 0), truth


PAIRS = [
    Pair(Shape(30, 1, 0.3, 0.2), 0.0), Pair(Shape(30, 1, 0.6, 0.2), 0.2), Pair(Shape(30, 4, 0.3, 0.2), 0.0),
    Pair(Shape(30, 4, 0.6, 0.7), 0.2), Pair(Shape(30, 4, 0.3, 0.7), 0.0), Pair(Shape(200, 1, 0.6, 0.7), 0.0),
    Pair(Shape(200, 4, 0.95, 0.2), 0.2), Pair(Shape(200, 4, 0.05, 0.7), 0.0), Pair(Shape(200, 4, 0.3, 0.2), 0.2),
    Pair(Shape(30, 4, 0.3, 0.2), 0.2, "pass"), Pair(Shape(30, 4, 0.3, 0.7), 0.0, "pass"),
    Pair(Shape(200, 4, 0.6, 0.7), 0.2, "pass"), Pair(Shape(200, 4, 0.3, 0.2), 0.0, "pass"),
]  # fmt: skip
PAIRS_OVER = [
    Pair(Shape(30, 1, 0.05, 0.7), 0.0), Pair(Shape(30, 1, 0.95, 0.7), 0.2), Pair(Shape(30, 4, 0.05, 0.7), 0.0),
    Pair(Shape(30, 4, 0.95, 0.7), 0.2), Pair(Shape(30, 4, 0.95, 0.7), 0.0, "pass"),
    Pair(Shape(200, 4, 0.95, 0.2), 0.2, "pass"),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS + PAIRS_OVER, ids=str)
def test_intervals_of_paired_differences_cover_and_alarms_are_rare(pair: Pair) -> None:
    d, truth = gaps(pair, np.random.default_rng(7))
    step = 1 / pair.shape.k if pair.metric == "avg" else 1.0
    found = [stats_paired.difference(row, step) for row in d]
    result = covered([(e.low, e.high) for e in found], truth)  # type: ignore[misc]
    plain = covered([(e.low, e.high) for e in map(stats_paired.difference, d)], truth)  # type: ignore[misc]
    print(f"{pair}: covers {100 * result:.1f}%, Student t {100 * plain:.1f}%")
    top = 1.0 if pair in PAIRS_OVER else 0.97
    assert 0.93 <= result <= top, f"{pair}: covers {100 * result:.1f}% of {RUNS} runs"
    if pair.gain == 0:
        alarms = float(np.mean([(p := stats.p_value([e])) is not None and p < 0.05 for e in found]))
        assert alarms < 0.06, f"{pair}: {100 * alarms:.1f}% false alarms at 5%"


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_paired_bootstrap_covers(pair: Pair) -> None:
    d, truth = gaps(pair, np.random.default_rng(7))
    found = [stats_paired.bootstrap([row], draws=1000) for row in d[:1000]]
    result = covered([b or (0.0, 0.0) for b in found], truth)
    print(f"{pair}: covers {100 * result:.1f}%")
    assert result >= 0.93, f"{pair}: covers {100 * result:.1f}% of 1000 runs"


@pytest.mark.parametrize("pair", [p for p in PAIRS + PAIRS_OVER if p.gain == 0], ids=str)
def test_false_alarms_of_mcnemar_stay_under_five_percent(pair: Pair) -> None:
    rng = np.random.default_rng(9)
    p = chances(pair.shape, rng)
    one, other = rng.random(p.shape) < p, rng.random(p.shape) < p
    alarms = float(np.mean([stats_paired.mcnemar(a, b).p < 0.05 for a, b in zip(one, other, strict=True)]))  # type: ignore[arg-type]
    assert alarms < 0.05, f"{pair}: {100 * alarms:.1f}%"


def test_corrections_hold_over_a_family() -> None:
    """Eight differences, none real: some alarm in nearly a third of the runs raw, in under 6% after Holm."""
    rng = np.random.default_rng(21)
    p = chances(Shape(200, 4, 0.5, 0.3), rng, 600)
    reference = rng.binomial(4, p) / 4
    raw, held = 0, 0
    for i in range(600):
        scores = rng.binomial(4, p[i], size=(8, 200)) / 4
        found = [stats.p_value([stats_paired.difference(s - reference[i], 0.25)]) or 0.0 for s in scores]
        raw += min(found) < 0.05
        held += min(stats_paired.holm(found)) < 0.05
    assert raw / 600 > 0.15 and held / 600 < 0.06, (raw, held)


def test_power_foretells_how_often_a_difference_is_shown() -> None:
    """A pilot says how many questions a difference of 6 points needs; runs of that size show it 4 times of 5."""
    rng = np.random.default_rng(2)

    def draws(questions: int, runs: int) -> tuple[Array, Array]:
        p = chances(Shape(questions, 4, 0.4, 0.4), rng, runs)
        q = p + 0.1 * (1 - p)  # 6 points
        size = runs, questions, 4
        return (rng.random(size) < q[..., None]) * 1.0, (rng.random(size) < p[..., None]) * 1.0

    one, other = draws(4000, 1)
    need = stats_paired.needs(0.06, [stats_paired.variances((one - other)[0].tolist())])
    assert need is not None
    one, other = draws(need["questions"], RUNS)
    d = (one - other).mean(2)
    shown = float(np.mean([stats_paired.difference(row, 0.25).low > 0 for row in d]))  # type: ignore[operator]
    assert 0.75 < shown < 0.85, f"{need}: shown in {100 * shown:.1f}% of runs"
