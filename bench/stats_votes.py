"""Several samples of a question taken together: pass@k for every k, and maj@k, both exact. numpy only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np

from bench.stats import Array
from pipo.errors import BadInput


@lru_cache(maxsize=256)
def pass_table(n: int) -> Array:
    """[n + 1, n]: unbiased pass@k of c right samples among n, at row c and column k - 1 (``stats.pass_at_k``)."""
    if n < 1:
        raise BadInput(f"pass@k needs samples, there are {n}; run at least one an item")
    rows = [[1.0 - math.comb(n - c, k) / math.comb(n, k) for k in range(1, n + 1)] for c in range(n + 1)]
    table = np.array(rows)
    table.setflags(write=False)
    return table


def pass_curve(n: int, c: int) -> list[float]:
    """Unbiased pass@1 to pass@n of c right samples among n; never falling in k."""
    if not 0 <= c <= n:
        raise BadInput(f"{c} right samples of {n} cannot be; it must lie in [0, {n}]")
    return [float(v) for v in pass_table(n)[c]]


def maj_at_k(answers: Sequence[Hashable | None], right: Sequence[bool], k: int) -> float:
    """Unbiased chance that the answer given most often by k samples, drawn from these n without replacement, is right.

    Answers that tie win with equal chance, so no order of samples or answers is favoured. None does not vote: a draw
    in which nobody votes is wrong. An answer counts as right where one of its samples was.

    Args:
        answers: normalised answer of each sample, [n]. ``right``: whether it was right, [n].
    Raises:
        BadInput: k outside 1..n, or lists of different lengths.
    """
    n = len(answers)
    if len(right) != n:
        raise BadInput(f"{n} answers and {len(right)} verdicts; each sample needs both")
    if not 1 <= k <= n:
        rule = f"k is {k}, n (samples an item) is {n}; ask for a smaller k or for more samples"
        raise BadInput(f"maj@k needs 1 <= k <= n: {rule}")
    votes = Counter(a for a in answers if a is not None)
    good = {a for a, ok in zip(answers, right, strict=True) if ok and a is not None}
    first = tuple(sorted(votes[a] for a in good))
    rest = tuple(sorted(count for a, count in votes.items() if a not in good))
    return _wins(first, rest, n - sum(votes.values()), k)


@lru_cache(maxsize=65536)
def _wins(good: tuple[int, ...], bad: tuple[int, ...], silent: int, k: int) -> float:
    """Chance that a right answer wins k of the votes counted in ``good`` (right) and ``bad``, beside silent ones."""
    if not good:
        return 0.0
    total = math.comb(sum(good) + sum(bad) + silent, k)
    wins = 0.0
    for i, size in enumerate(good):
        others = good[:i] + good[i + 1 :] + bad
        for most in range(1, min(size, k) + 1):
            ways = _ways(others, silent, most, k - most)
            at_most = math.comb(size, most)
            wins += sum(at_most * count / (tied + 1) / total for tied, count in enumerate(ways))
    return min(1.0, wins)


def _ways(others: tuple[int, ...], silent: int, most: int, left: int) -> list[int]:
    """By number of answers that tie: ways to draw ``left`` more samples with no other answer above ``most`` votes."""
    table = {(drawn, 0): math.comb(silent, drawn) for drawn in range(min(silent, left) + 1)}
    for size in others:
        grown: dict[tuple[int, int], int] = {}
        for (drawn, tied), ways in table.items():
            for votes in range(min(size, most, left - drawn) + 1):
                key = drawn + votes, tied + (votes == most)
                grown[key] = grown.get(key, 0) + ways * math.comb(size, votes)
        table = grown
    out = [0] * (left // most + 1)
    for (drawn, tied), ways in table.items():
        if drawn == left:
            out[tied] += ways
    return out
