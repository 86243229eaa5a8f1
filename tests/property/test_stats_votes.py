"""pass@k for every k and maj@k against brute force: all subsets enumerated, ties shared out by hand."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stats
from bench.stats_votes import maj_at_k, pass_curve, pass_table
from pipo.errors import BadInput

answers = st.lists(st.sampled_from(["7", "8", "9", "10", None]), min_size=1, max_size=8)


def brute(given_: list[str | None], right: set[str], k: int) -> float:
    """Mean over all subsets of the share of the most frequent answers that are right."""
    subsets = list(combinations(given_, k))
    total = 0.0
    for subset in subsets:
        votes = Counter(a for a in subset if a is not None)
        best = [a for a, n in votes.items() if n == max(votes.values())]
        total += sum(a in right for a in best) / len(best) if best else 0.0
    return total / len(subsets)


@given(answers, st.sets(st.sampled_from(["7", "8", "9"])), st.data())
def test_maj_at_k_is_the_mean_over_subsets_with_ties_shared(
    given_: list[str | None], right: set[str], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(given_)))
    assert maj_at_k(given_, [a in right for a in given_], k) == pytest.approx(brute(given_, right, k), abs=1e-12)


def test_maj_at_one_is_the_share_of_right_answers() -> None:
    assert maj_at_k(["a", "b", "b", None], [True, False, False, False], 1) == pytest.approx(0.25)
    assert maj_at_k(["a", "b"], [True, False], 2) == 0.5, "a tie favours nobody"
    assert maj_at_k([None, None], [False, False], 2) == 0.0


def test_many_samples_are_exact_and_quick() -> None:
    given_ = ["right"] * 20 + ["wrong"] * 19 + [str(i) for i in range(25)]
    right = [a == "right" for a in given_]
    assert maj_at_k(given_, right, 64) == pytest.approx(1.0)
    assert 0.4 < maj_at_k(given_, right, 32) < 0.6


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_whole_curves_are_the_single_values_and_never_fall(pair: tuple[int, int]) -> None:
    n, c = pair
    curve = pass_curve(n, c)
    assert curve == pytest.approx([stats.pass_at_k(n, c, k) for k in range(1, n + 1)], abs=1e-12)
    assert curve == sorted(curve) and curve[0] == pytest.approx(c / n)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(BadInput, match="3 right samples of 2"):
        pass_curve(2, 3)
    with pytest.raises(BadInput, match="there are 0"):
        pass_table(0)
    with pytest.raises(BadInput, match=r"k is 3, n \(samples an item\) is 2"):
        maj_at_k(["a", "b"], [True, False], 3)
    with pytest.raises(BadInput, match="2 answers and 1 verdicts"):
        maj_at_k(["a", "b"], [True], 1)
