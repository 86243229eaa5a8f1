"""Which answers repeat themselves: the same n tokens too often, or a loop at the end. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NGRAM = 20
LONGEST_PERIOD = 256  # tokens; a loop of longer turns is one of paragraphs, which n-grams find
ROUNDS = 4  # how often a loop goes round before it is one
LEAST = 40  # tokens that a loop lasts at least, so that a row of zeros in a number is none
_BASE = np.uint64(0x9E3779B97F4A7C15)


def most_repeats(ids: Sequence[int], n: int = NGRAM) -> int:
    """How often the most frequent run of ``n`` tokens stands in ``ids``, overlapping ones counted; 0 where none fits.

    Runs are told apart by a 64-bit hash.
    """
    a = np.asarray(ids, np.uint64)
    if len(a) < n:
        return 0
    with np.errstate(over="ignore"):
        mixed = (a + np.uint64(1)) * _BASE
        mixed ^= mixed >> np.uint64(29)
        marks = np.zeros(len(a) - n + 1, np.uint64)
        for i in range(n):
            marks = marks * _BASE + mixed[i : len(a) - n + 1 + i]
    return int(np.unique(marks, return_counts=True)[1].max())


def end_loop(ids: Sequence[int], last: int = 1) -> int:
    """The period of the loop that ``ids`` end in, 0 for none; ``last`` tokens at the end (EOS) are not looked at.

    A loop goes round at least ``ROUNDS`` times and lasts at least ``LEAST`` tokens.
    """
    a: Any = np.asarray(ids)[-(LONGEST_PERIOD * ROUNDS + last) : len(ids) - last]
    for period in range(1, LONGEST_PERIOD + 1):
        span = max(ROUNDS * period, LEAST)
        if span > len(a):
            if ROUNDS * period > len(a):
                return 0
            continue
        tail = a[len(a) - span :]
        if (tail[period:] == tail[:-period]).all():
            return period
    return 0
