"""The gate of ``pipo report diff`` on simulated runs: how often it alarms, and how often it finds what is there.

Two runs of the same truth must not fail more often than the level says; a planted loss must be found as often as
``bench.stats_paired.needs`` foretells. Seeds are fixed; run with -rP for the rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from bench import stats_paired
from bench.diff import Settings, rows_of
from bench.diff_load import MOVE_TOGETHER, faster_paired
from bench.diff_runs import Side
from bench.diff_stats import faster
from bench.stats_paired import POWER
from tests.unit.diff_sides import chances, drawn, side

pytestmark = pytest.mark.slow

RUNS = 1000
K = 4
Rng = np.random.Generator


def bound(rate: float, runs: int = RUNS) -> float:
    """What a rate may reach by chance in so many runs: three standard errors above it."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / runs)


def one_task(
    rng: Rng, questions: int = 60, loss: float = 0.0, variants: int = 1, prefix: str = "i"
) -> tuple[Side, Side]:
    """Two runs of one truth (the second with a share ``loss`` of its right answers spoiled), in all else apart."""
    p = {f"v{i}": chances(rng, questions) for i in range(variants)}
    old = {(name, "t"): drawn(rng, q, K) for name, q in p.items()}
    if prefix != "i":
        p = {name: chances(rng, questions) for name in p}
    new = {(name, "t"): drawn(rng, q * (1 - loss), K) for name, q in p.items()}
    return side(old), side(new, seed=0, prefix=prefix)


def rates(make: Callable[[Rng], tuple[Side, Side]], settings: Settings, runs: int = RUNS) -> tuple[float, float]:
    """Shares of pairs of runs in which the gate failed, and in which some row was called better or worse."""
    rng = np.random.default_rng(17)
    failed = settled = 0
    for _ in range(runs):
        rows, _ = rows_of(*make(rng), settings)
        deciding = [r for r in rows if r["decides"]]
        failed += any(r["failed"] for r in deciding)
        settled += any(r["settled"] != "not settled" for r in deciding)
    return failed / runs, settled / runs


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["avg", "pass@4"])
@pytest.mark.parametrize("prefix", ["i", "j"], ids=["paired", "unpaired"])
def test_two_runs_of_the_same_truth_rarely_differ(metric: str, prefix: str) -> None:
    failed, settled = rates(lambda rng: one_task(rng, prefix=prefix), Settings(metrics=[metric]))
    print(f"{metric}, {prefix}: fails {100 * failed:.1f}%, settles {100 * settled:.1f}%")
    assert failed <= bound(0.025), f"the gate failed in {100 * failed:.1f}% of {RUNS} pairs of equal runs"
    assert settled <= min(0.06, bound(0.05)), f"{100 * settled:.1f}% of differences settled where there are none"


@pytest.mark.slow
def test_many_comparisons_do_not_alarm_more_often() -> None:
    failed, settled = rates(lambda rng: one_task(rng, variants=4), Settings(), runs=600)
    print(f"four variants, two metrics: fails {100 * failed:.1f}%, settles some row in {100 * settled:.1f}%")
    assert failed <= bound(0.05, 600), "Holm keeps the chance of any false alarm down"
    assert settled > 0.08, "row by row there are more, which is why the gate corrects"


@pytest.mark.slow
def test_a_planted_loss_is_found_as_often_as_foretold() -> None:
    """The size for 80% power from one run's variances: as many questions find a loss of 10 points 4 times of 5."""
    rng = np.random.default_rng(3)
    loss = 0.25  # of 40% right: 10 points
    old, new = one_task(rng, questions=4000, loss=loss)
    pairs = [
        [
            float(b.correct) - a.correct
            for a, b in zip(old.samples["v0", "t"][i], new.samples["v0", "t"][i], strict=True)
        ]
        for i in old.samples["v0", "t"]
    ]
    need = stats_paired.needs(0.4 * loss, [stats_paired.variances(pairs)])
    assert need is not None
    found, _ = rates(lambda r: one_task(r, need["questions"], loss), Settings(metrics=["avg"]))
    print(f"{need['questions']} questions: found in {100 * found:.1f}%, foretold {100 * POWER:.0f}%")
    assert POWER - 0.06 <= found <= POWER + 0.06, f"found in {100 * found:.1f}% of runs, foretold {100 * POWER:.0f}%"


@pytest.mark.slow
def test_a_margin_forgives_a_loss_of_its_size_and_no_more() -> None:
    loss = 0.25  # 10 points
    at, _ = rates(lambda r: one_task(r, 120, loss), Settings(metrics=["avg"], margin=10), runs=600)
    below, _ = rates(lambda r: one_task(r, 120, loss), Settings(metrics=["avg"], margin=2), runs=600)
    print(f"margin of the loss itself fails {100 * at:.1f}%, a fifth of it {100 * below:.1f}%")
    assert at <= bound(0.025, 600) and below > 0.8


@pytest.mark.slow
def test_non_inferiority_passes_a_run_that_is_worse_by_the_margin_at_the_level_only() -> None:
    settings = Settings(metrics=["avg"], margin=10, non_inferiority=True)
    failed, _ = rates(lambda r: one_task(r, 120, 0.25), settings, runs=600)
    same, _ = rates(lambda r: one_task(r, 120), settings, runs=600)
    print(f"worse by the margin: passes {100 * (1 - failed):.1f}%; equal: passes {100 * (1 - same):.1f}%")
    assert 1 - failed <= bound(0.025, 600) and 1 - same > 0.8


TIMES: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "lognormal": lambda rng, n: np.exp(rng.normal(0, 0.05, n)),
    "spikes": lambda rng, n: 1 + rng.exponential(0.05, n),
}


@pytest.mark.parametrize("statistic", ["p50", "mean"])
@pytest.mark.parametrize("trials", [5, 8, 16])
@pytest.mark.parametrize("shape", TIMES)
def test_equal_times_rarely_differ(shape: str, trials: int, statistic: str) -> None:
    rng = np.random.default_rng(1)
    draw = TIMES[shape]
    found = [faster(draw(rng, trials), draw(rng, trials), statistic, draws=400) for _ in range(RUNS)]
    alarms = float(np.mean([e.low > 0 or e.high < 0 for e in found]))  # type: ignore[operator]
    print(f"{shape}, {trials} trials, {statistic}: {100 * alarms:.1f}%")
    assert alarms <= bound(0.05), f"{100 * alarms:.1f}% of {RUNS} pairs of equal runs differ"


def waits(due: np.ndarray, service: np.ndarray) -> np.ndarray:
    """From when each request is due to its end, one after the other."""
    free, out = 0.0, []
    for at, needs in zip(due, service, strict=True):
        free = max(free, at) + needs
        out.append(free - at)
    return np.array(out)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("requests", [50, 200])
def test_equal_queues_rarely_differ(requests: int, load: float) -> None:
    """The same arrivals and needs, a fifth of noise of its own in each run; near saturation rows have no interval."""
    rng, alarms, known, runs = np.random.default_rng(4), 0, 0, 400
    for _ in range(runs):
        due, needs = np.cumsum(rng.exponential(1, requests)), rng.exponential(load, requests)
        new, old = (waits(due, needs * np.exp(0.2 * rng.normal(size=requests))) for _ in range(2))
        gap, together = faster_paired(new, old)
        assert gap.low is not None and gap.high is not None
        if together < MOVE_TOGETHER:
            known += 1
            alarms += gap.high < 0
    print(f"{requests} requests at {load:.0%}: an interval in {known / runs:.0%}, slower in {alarms / runs:.1%}")
    assert alarms / runs <= 0.05, "the gate would fail too often"
    assert known / runs > 0.6 or load > 0.5
