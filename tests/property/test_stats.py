"""Statistics against brute force: subsets enumerated, variances written out, quantiles from a table."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from pipo.errors import BadInput

floats = st.floats(-100, 100, allow_nan=False)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    subsets = list(combinations(right, k))
    expected = sum(any(s) for s in subsets) / len(subsets)
    assert stats.pass_at_k(len(right), sum(right), k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 20), st.integers(1, 20))
def test_pass_at_k_larger_than_n_names_both(n: int, more: int) -> None:
    with pytest.raises(BadInput, match=rf"k is {n + more}, n \(samples an item\) is {n}\b"):
        stats.pass_at_k(n, 0, n + more)


@given(st.integers(2, 6).flatmap(lambda k: st.lists(st.lists(floats, min_size=k, max_size=k), min_size=2, max_size=12)))
def test_clustered_error_is_the_plain_error_of_item_means(clusters: list[list[float]]) -> None:
    found, means = stats.clustered(clusters), np.mean(clusters, axis=1)
    assert found.value == pytest.approx(means.mean(), abs=1e-9)
    assert found.se == pytest.approx(means.std(ddof=1) / np.sqrt(len(means)), abs=1e-9)


def test_clustered_error_sees_that_samples_of_an_item_are_alike() -> None:
    alike = [[1.0] * 4, [0.0] * 4] * 10
    apart = [[1.0, 0.0] * 2] * 20
    assert stats.clustered(alike).se == pytest.approx(0.5 * np.sqrt(20 / 19) / np.sqrt(20))
    assert stats.clustered(apart).se == pytest.approx(0.0, abs=1e-12)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(floats, floats), min_size=2))
def test_paired_difference_is_the_mean_of_differences(pairs: dict[str, tuple[float, float]]) -> None:
    one, other = {i: a for i, (a, _) in pairs.items()}, {i: b for i, (_, b) in pairs.items()}
    found = stats.paired(one, other | {"only here": 5.0})
    gaps = np.array([a - b for a, b in pairs.values()])
    assert found.n == len(pairs)
    assert found.value == pytest.approx(gaps.mean(), abs=1e-9)
    assert found.se == pytest.approx(gaps.std(ddof=1) / np.sqrt(len(gaps)), abs=1e-9)
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("dof", "expected"),
    [(1, 12.7062047), (2, 4.3026527), (5, 2.5705818), (30, 2.0422725), (199, 1.9719565), (5000, 1.9604386)],
)
def test_t_quantile_agrees_with_the_printed_table(dof: int, expected: float) -> None:
    assert stats.t_quantile(0.975, dof) == pytest.approx(expected, abs=2e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_interval_of_few_items_covers_the_truth_about_as_often_as_it_says(seed: int) -> None:
    draws = np.random.default_rng(seed).normal(size=(300, 5))
    covered = np.mean([(e := stats.mean(d)).low <= 0 <= e.high for d in draws])  # type: ignore[operator]
    assert 0.88 <= covered <= 1.0, f"covered {covered:.3f} of 300 at seed {seed}; 0.95 expected, 5 sigma is 0.063"


@given(st.lists(st.lists(floats, min_size=2, max_size=9), min_size=2, max_size=4))
def test_overall_is_the_plain_mean_of_tasks(tasks: list[list[float]]) -> None:
    parts = [stats.mean(t) for t in tasks]
    found = stats.combine(parts)
    assert found.value == pytest.approx(np.mean([np.mean(t) for t in tasks]), abs=1e-9)
    expected = np.sqrt(sum(np.var(t, ddof=1) / len(t) for t in tasks)) / len(tasks)
    assert found.se == pytest.approx(expected, abs=1e-9)
    assert found.n == sum(map(len, tasks))


def test_one_item_has_no_error_bar() -> None:
    assert stats.mean([0.5]) == stats.Estimate(0.5, n=1)
    assert stats.combine([stats.mean([0.5]), stats.mean([1.0, 0.0])]).se is None


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=10), st.integers(0, 99))
def test_bootstrap_ratio_is_seeded_and_holds_its_value(pairs: list[tuple[float, float]], seed: int) -> None:
    over, under = zip(*pairs, strict=True)
    first = stats.bootstrap_ratio(over, under, seed=seed, draws=200)
    assert first == stats.bootstrap_ratio(over, under, seed=seed, draws=200)
    assert first.value == pytest.approx(np.median(over) / np.median(under))


def test_a_common_disturbance_leaves_the_paired_ratio_alone() -> None:
    machine = np.array([1.0, 5.0, 1.2, 9.0, 2.0])
    found = stats.bootstrap_ratio(2 * machine, machine)
    assert (found.low, found.high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_ratio_of_sums_weighs_items_by_their_size() -> None:
    found = stats.ratio([1, 30], [10, 30])
    assert found.value == pytest.approx(31 / 40)
    with pytest.raises(BadInput, match="denominators sum to 0"):
        stats.ratio([0.0], [0.0])


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(BadInput, match="no items"):
        stats.mean([])
    with pytest.raises(BadInput, match="no tasks"):
        stats.combine([])
    with pytest.raises(BadInput, match="common items"):
        stats.paired({}, {"a": 1.0})
