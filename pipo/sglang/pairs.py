"""Pairs as scheduler tokens: ``first | second << 20``. Torch-free, but packing works on tensors as on ints.

The runtime's scheduler, chunked prefill, radix tree and retraction see one 64-bit id a pair, PAD included, and so work
at pair granularity by themselves. Where the next pair is known, its first token stands above (``<< 40``): the MTP
layer's cache row of a pair depends on it, so a prefix may be reused only where it is the same, and keys must differ.
What a user sees (token ids, counts, text, log-probabilities) is unpacked here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

SHIFT = 20
MOST_TOKENS = 1 << SHIFT
MASK = MOST_TOKENS - 1
PAIR = (1 << 2 * SHIFT) - 1


def pack(first: Any, second: Any) -> Any:
    """One id of a pair; ids below 2^20, both ints or both int64 tensors."""
    return first | (second << SHIFT)


def unpack(pair: Any) -> tuple[Any, Any]:
    """Both ids of a pair, whatever stands above them."""
    return pair & MASK, (pair >> SHIFT) & MASK


def before(pair: int, first: int) -> int:
    """A pair as the cache's key where ``first`` follows it."""
    return (pair & PAIR) | (first << 2 * SHIFT)


def pack_prompt(ids: Sequence[int], pad: int) -> array[int]:
    """A prompt as pairs that know what follows them (the last does not: PAD stands there, which is never first).

    An odd prompt gets one PAD after its last token, as in training. PADs that stand in ``ids`` already (a history that
    a client kept as ids) must stand second in a pair.
    """
    places = [*ids, pad] if len(ids) % 2 else ids
    firsts = places[::2]
    rows = zip(firsts, places[1::2], [*firsts[1:], pad], strict=True)
    return array("q", [before(pack(a, b), following) for a, b, following in rows])


def tokens_of(pairs: Iterable[int], pad: int) -> array[int]:
    """The tokens of pairs, PADs left out."""
    return array("q", [t for t in chain.from_iterable(map(unpack, pairs)) if t != pad])


class PairText:
    """What a request has generated, as tokens beside its pairs.

    ``tokens``: array of ids without PADs. ``ends``: for each pair, how many tokens there are up to its end.
    ``end``: tokens that count, once the request is finished. ``limit``: the most tokens it may generate.
    """

    __slots__ = ("pad", "limit", "tokens", "ends", "end", "prompt", "cached", "scores", "scored",
                 "details", "detailed")  # fmt: skip

    def __init__(self, pad: int, limit: int | None, prompt: Sequence[int]) -> None:
        self.pad, self.limit = pad, limit
        self.prompt = tokens_of(prompt, pad)
        self.tokens: array[int] = array("q")
        self.ends: list[int] = []
        self.end: int | None = None
        self.cached: dict[int, int] = {}
        self.scores: dict[str, list[Any]] = {}
        self.scored = 0
        self.details: list[Any] = []
        self.detailed = 0

    def follow(self, pairs: Sequence[int]) -> int:
        """Take in the pairs that came since the last call; how many tokens they brought."""
        had = len(self.tokens)
        for pair in pairs[len(self.ends) :]:
            first, second = unpack(pair)
            self.tokens.append(first)
            if second != self.pad:
                self.tokens.append(second)
            self.ends.append(len(self.tokens))
        return len(self.tokens) - had

    def pairs_through(self, tokens: int) -> int:
        """How many pairs the first ``tokens`` tokens stand in."""
        return min(bisect_left(self.ends, tokens) + 1, len(self.ends)) if tokens else 0

    def cached_tokens(self, pairs: int, prompt: Sequence[int]) -> int:
        """Tokens in the first ``pairs`` pairs of a prompt (and of what was generated before a retraction)."""
        if pairs not in self.cached:
            self.cached[pairs] = len(tokens_of(prompt[:pairs], self.pad))
        return self.cached[pairs]

    def counts(self) -> dict[str, int]:
        """Slots, PADs and kept drafts among what counts."""
        end = len(self.tokens) if self.end is None else self.end
        slots = self.pairs_through(end)
        return {"slots": slots, "tokens": end, "pads": 2 * slots - end}
