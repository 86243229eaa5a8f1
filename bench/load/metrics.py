"""What one request's record says of its times, and whether it met an SLO. Torch-free.

Two tokens a step make some usual definitions say what they should not, so:

- TTFT: from due to the first token. *First pair*: to the second token, wherever it came from.
- TPOT: from the first token to the last, over the tokens after the first. Honest for pairs over a whole answer.
- *Gap*: between two chunks, whatever they bring: what a reader sees as a pause.
- ITL: between two tokens; tokens of one chunk have gaps of 0, and the first of them has the chunk's gap. Its median is
  0 where most steps bring two tokens. That is true and no speed-up of anything, so both stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.load.records import RequestRecord

Value = Callable[[RequestRecord], float]


def e2e(r: RequestRecord) -> float:
    """Seconds from due to the last token; -1 where none came."""
    return r.chunk_s[-1] if r.chunk_s else -1.0


def tpot(r: RequestRecord) -> float:
    """Seconds a token after the first; -1 with fewer than two tokens."""
    return (r.chunk_s[-1] - r.first_s) / (r.tokens - 1) if r.tokens > 1 else -1.0


def gaps(r: RequestRecord) -> list[float]:
    """Seconds between chunks."""
    return [b - a for a, b in zip(r.chunk_s, r.chunk_s[1:])]


def itl(r: RequestRecord) -> list[float]:
    """Seconds between tokens: one value a token after the first."""
    out = [0.0] * (r.chunk_tokens[0] - 1) if r.chunk_tokens else []
    for gap, count in zip(gaps(r), r.chunk_tokens[1:]):
        out += [gap, *[0.0] * (count - 1)]
    return out


def longest_gap(r: RequestRecord) -> float:
    """The longest pause between chunks; -1 with one chunk or none."""
    return max(gaps(r), default=-1.0)


VALUES: Mapping[str, Value] = {
    "ttft": lambda r: r.first_s,
    "first_pair": lambda r: r.pair_s,
    "tpot": tpot,
    "gap": longest_gap,
    "e2e": e2e,
}


def meets(r: RequestRecord, slo: Mapping[str, float]) -> bool:
    """Whether a request ended well within all limits; what it does not have (one token has no TPOT) counts as kept."""
    return r.status == "ok" and all(VALUES[name](r) <= limit for name, limit in slo.items())
