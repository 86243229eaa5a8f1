"""Statistics against brute force: subsets enumerated, variances written out, quantiles from a table."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
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


@given(st.floats(0.51, 0.9999), st.floats(0.5, 1e5))
def test_t_quantile_and_tail_agree_with_scipy(p: float, dof: float) -> None:
    t = float(scipy.stats.t.ppf(p, dof))
    assert stats.t_quantile(p, dof) == pytest.approx(t, rel=1e-7, abs=1e-9)
    assert stats.t_tail(-t, dof) == pytest.approx(2 * (1 - p), rel=1e-6, abs=1e-9)


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


shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=40)


@given(shares, st.integers(1, 4))
def test_interval_of_a_share_holds_it_and_stays_in_range(values: list[float], k: int) -> None:
    found = stats.share(values, most=k * len(values))
    assert found.value == pytest.approx(np.mean(values)) and found.n == len(values)
    assert found.low is not None and found.high is not None
    assert 0.0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1.0
    assert found.high > found.low, "even equal scores leave doubt"
    mirrored = stats.share([1 - v for v in values], most=k * len(values))
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - found.high), pytest.approx(1 - found.low))


def test_a_share_of_independent_verdicts_is_wilson_s_interval() -> None:
    found = stats.share([1.0] * 60 + [0.0] * 140)
    size, q = 199.0, stats.t_quantile(0.975, 199)  # p (1 - p) / se^2 with the unbiased variance
    centre, wide = (0.3 + q * q / 2 / size) / (1 + q * q / size), q / (1 + q * q / size)
    half = wide * np.sqrt(0.21 / size + (q / 2 / size) ** 2)
    assert (found.low, found.high) == (pytest.approx(centre - half), pytest.approx(centre + half))


def test_equal_scores_near_the_edge_count_as_one_sample_an_item() -> None:
    none = stats.share([0.0] * 30, most=480)
    assert none.low == 0.0 and none.high == pytest.approx(2.045230**2 / (30 + 2.045230**2), abs=1e-6)
    with pytest.raises(BadInput, match=r"reach from 0 to 1\.5"):
        stats.share([0.0, 1.5])


@given(st.lists(shares, min_size=2, max_size=4))
def test_mean_over_tasks_lies_in_its_interval_and_is_as_lopsided_as_its_tasks(tasks: list[list[float]]) -> None:
    parts = [stats.share(t) for t in tasks]
    found = stats.combine(parts)
    assert found.low is not None and found.high is not None
    assert found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high
    alike = stats.combine([parts[0], parts[0]])
    down, up = parts[0].value - parts[0].low, parts[0].high - parts[0].value  # type: ignore[operator]
    assert (alike.value - alike.low) * up == pytest.approx((alike.high - alike.value) * down, abs=1e-9)  # type: ignore[operator]


@given(st.lists(st.lists(floats, min_size=3, max_size=9), min_size=1, max_size=3))
def test_p_is_below_five_percent_where_the_interval_leaves_out_zero(tasks: list[list[float]]) -> None:
    parts = [stats.mean(t) for t in tasks]
    found, p = stats.combine(parts), stats.p_value(parts)
    assert found.low is not None and found.high is not None
    if p is not None and abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (found.low > 0 or found.high < 0)


def test_p_of_one_task_is_the_paired_t_test_of_scipy() -> None:
    rng = np.random.default_rng(4)
    one, other = rng.normal(0.3, 1, 25), rng.normal(0, 1, 25)
    expected = scipy.stats.ttest_rel(one, other).pvalue
    assert stats.p_value([stats.mean(one - other)]) == pytest.approx(expected, rel=1e-9)


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
