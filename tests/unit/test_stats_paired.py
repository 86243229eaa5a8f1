"""Paired differences, tests, corrections and power against scipy and numbers worked out by hand."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench import stats
from bench.stats_paired import benjamini_hochberg, bootstrap, difference, holm, mcnemar, needs, variances, weights
from pipo.errors import BadInput


def test_without_a_step_it_is_the_plain_paired_interval() -> None:
    gaps = [0.5, -0.25, 0.0, 0.25, 1.0]
    assert difference(gaps) == stats.mean(gaps)


def test_few_questions_that_differ_settle_nothing() -> None:
    """Four of thirty questions differ, all one way: Student t calls it settled at 5%, McNemar gives p 0.125."""
    gaps = [1.0] * 4 + [0.0] * 26
    plain, guarded = difference(gaps), difference(gaps, 1.0)
    assert plain.low is not None and plain.low > 0
    assert guarded.low is not None and guarded.low < 0 < guarded.high  # type: ignore[operator]
    assert mcnemar([g == 1 for g in gaps], [False] * 30).p == pytest.approx(0.125)
    assert guarded.value == plain.value and guarded.se == plain.se


def test_no_difference_at_all_still_leaves_doubt() -> None:
    found = difference([0.0] * 30, 0.25)
    assert found.low is not None and found.low == pytest.approx(-found.high)  # type: ignore[operator]
    assert 0.01 < found.high < 0.03  # type: ignore[operator]
    assert stats.p_value([found]) == 1.0


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=2, max_size=60))
def test_the_value_lies_in_its_interval(gaps: list[float]) -> None:
    found = difference(gaps, 0.5)
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    other = difference([-g for g in gaps], 0.5)
    assert (other.low, other.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(BadInput, match="common items"):
        difference([])
    assert difference([0.5], 1.0) == stats.Estimate(0.5, n=1)
    with pytest.raises(BadInput, match="2 and 1 verdicts"):
        mcnemar([True, False], [True])


def test_bootstrap_is_seeded_symmetric_and_near_student_t_for_many_questions() -> None:
    gaps = np.random.default_rng(0).normal(0.1, 1, 400)
    found, again, other = bootstrap([gaps]), bootstrap([gaps]), bootstrap([gaps], seed=9)
    assert found is not None and found == again != other
    assert sum(found) / 2 == pytest.approx(gaps.mean())
    plain = stats.mean(gaps)
    assert found[0] == pytest.approx(plain.low, abs=0.01) and found[1] == pytest.approx(plain.high, abs=0.01)


def test_bootstrap_draws_questions_within_their_tasks() -> None:
    """A difference between tasks is no spread: each task's gaps are alike but for a little noise."""
    rng = np.random.default_rng(1)
    found = bootstrap([1.0 + 0.01 * rng.normal(size=50), -1.0 + 0.01 * rng.normal(size=50)])
    assert found is not None and -0.01 < found[0] < found[1] < 0.01


def test_bootstrap_says_none_where_nothing_can_be_said() -> None:
    assert bootstrap([[0.5]]) is None
    assert bootstrap([[0.5, 0.5, 0.5]]) is None
    assert bootstrap([]) is None
    assert bootstrap([[1.0, 0.0, 0.0]]) is None, "many draws of three questions have no spread"


@pytest.mark.parametrize(("n", "draws"), [(7, 50), (3000, 700), (400_000, 3)])
def test_every_draw_has_as_many_questions(n: int, draws: int) -> None:
    parts = list(weights(n, 3, draws))
    assert sum(len(p) for p in parts) == draws
    assert all((p.sum(1) == n).all() for p in parts)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_scipy_s_binomial_test_on_what_only_one_solved(pairs: list[tuple[bool, bool]]) -> None:
    one, other = zip(*pairs, strict=True)
    found = mcnemar(one, other)
    a, b = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    assert (found.only, found.only_reference) == (a, b)
    expected = scipy.stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)


ps = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(ps)
def test_benjamini_hochberg_is_scipy_s(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(list(scipy.stats.false_discovery_control(p)), abs=1e-12)


@given(ps)
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    found = holm(p)
    assert all(a <= b <= min(1.0, len(p) * a) + 1e-12 or a == b for a, b in zip(p, found, strict=True) if b <= 1)
    ranked = [found[i] for i in sorted(range(len(p)), key=lambda i: p[i])]
    assert ranked == sorted(ranked) and ranked[0] == pytest.approx(min(1.0, len(p) * min(p)))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == benjamini_hochberg([]) == []


def test_variance_parts_add_up_to_the_squared_error() -> None:
    rng = np.random.default_rng(3)
    hardness = rng.normal(0, 0.4, 500)
    gaps = hardness[:, None] + rng.normal(0, 0.8, (500, 8))
    found = variances(gaps.tolist())
    assert found.within is not None
    assert found.between + found.within / 8 == pytest.approx(gaps.mean(1).var(ddof=1) / 500)
    assert found.within * 500 == pytest.approx(0.64, rel=0.05)
    assert found.between * 500 == pytest.approx(0.16, rel=0.15)


def test_what_a_difference_needs() -> None:
    """Spread 0.3 between questions, 0.5 between samples: both ways to show 3 points, worked out by hand."""
    rng = np.random.default_rng(8)
    gaps = 0.3 * rng.normal(size=2000)[:, None] + 0.5 * rng.normal(size=(2000, 4))
    part = variances(gaps.tolist())
    assert part.within is not None
    found = needs(0.03, [part])
    assert found is not None
    z = (1.96 + 0.8416) ** 2
    assert found["questions"] == pytest.approx(z * (0.09 + 0.25 / 4) / 0.0009, rel=0.06)
    assert found["samples"] == pytest.approx(part.within / (0.0009 / z - part.between), rel=0.1, abs=1)
    assert found["detectable"] == pytest.approx(2.8016 * np.sqrt((0.09 + 0.25 / 4) / 2000), rel=0.05)


def test_samples_do_not_help_where_questions_are_too_few() -> None:
    rng = np.random.default_rng(8)
    gaps = 0.3 * rng.normal(size=30)[:, None] + 0.5 * rng.normal(size=(30, 4))
    found = needs(0.03, [variances(gaps.tolist())])
    assert found is not None and found["samples"] is None and found["questions"] > 500
    assert needs(0.03, [variances([[0.0, 0.0]] * 5)]) is None, "nothing varied, so nothing can be foretold"
    single = needs(0.03, [variances([[0.0], [1.0], [0.0]])])
    assert single is not None and single["samples"] is None
    with pytest.raises(BadInput, match="at least 2"):
        variances([[0.5, 0.5]])
