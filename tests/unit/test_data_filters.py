"""Filters for repetition against slow, plain twins, on random and on planted sequences."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipo.data.filters import LEAST, LONGEST_PERIOD, ROUNDS, end_loop, most_repeats

ids = st.lists(st.integers(0, 3), max_size=80)


def slow_repeats(a: list[int], n: int) -> int:
    return max(Counter(tuple(a[i : i + n]) for i in range(len(a) - n + 1)).values(), default=0)


def slow_loop(a: list[int], last: int) -> int:
    a = a[: len(a) - last] if last else a
    for period in range(1, LONGEST_PERIOD + 1):
        span = max(ROUNDS * period, LEAST)
        if span <= len(a) and all(a[-i] == a[-i - period] for i in range(1, span - period + 1)):
            return period
    return 0


@given(ids, st.integers(2, 8))
def test_repeats_equal_counting(a: list[int], n: int) -> None:
    assert most_repeats(a, n) == slow_repeats(a, n)


@given(ids, st.integers(1, 12), st.integers(0, 60), st.integers(0, 2))
@settings(max_examples=300)
def test_loops_equal_looking(a: list[int], period: int, more: int, last: int) -> None:
    turn = (a * 12)[:period] or [1]
    looping = a + (turn * 60)[:more] + [9] * last
    assert end_loop(looping, last) == slow_loop(looping, last)


@given(st.lists(st.integers(0, 250_000), min_size=1, max_size=LONGEST_PERIOD), st.lists(st.integers(0, 9), max_size=30))
def test_a_planted_loop_is_found(turn: list[int], head: list[int]) -> None:
    rounds = max(ROUNDS, -(-LEAST // len(turn)))
    assert 0 < end_loop([*head, *turn * rounds, 2]) <= len(turn)


def test_what_goes_on_after_a_loop_is_no_loop() -> None:
    assert end_loop([1, 2] * 60 + [3, 4, 5]) == 0
    assert end_loop([1, 2] * 60 + [5]) == 2, "EOS alone may follow"


def test_a_short_run_of_one_token_is_no_loop() -> None:
    assert end_loop([5, *[0] * (LEAST - 1), 2]) == 0 and end_loop([5, *[0] * LEAST, 2]) == 1


def test_ids_of_a_large_vocabulary_are_told_apart() -> None:
    a = list(range(0, 248_320, 5))
    assert most_repeats(a) == 1 and most_repeats(a + a[7:27] + a[9:29]) == 2
    assert most_repeats(a[:19]) == 0, "too short for a run of 20"
