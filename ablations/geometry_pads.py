"""How a gate's PADs are spread over real generations: from records of runs, of any job that samples. Torch-free.

A *slot* is a pair of a pair method that a draft was offered for; the pair that EOS or a budget ends has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import msgspec

from ablations.looks import by_item, estimate
from bench import stats
from bench.record import SampleRecord

PARTS = 10  # of an answer, by its slots
LONGEST = 8  # runs of PADs at least as long are counted together
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0)  # of confidence: most drafts are near 1
KINDS = ("number", "letter", "word", "symbol", "mixed", "special")


class DraftRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="drafts"):
    """One sample: ``chance`` of each of its drafts, in order, to be what the backbone says after a PAD in its place."""

    variant: str
    task: str
    item: str
    sample: int
    chance: list[float]


class Slot(NamedTuple):
    """A pair that a draft was offered for. ``part``: where in the answer, 0 to 9.

    ``next``: the next pair's first token. ``chance``: see DraftRecord; None where it was not computed.
    """

    item: str
    part: int
    first: int
    draft: int
    kept: bool
    confidence: float | None
    next: int | None
    chance: float | None = None


def slots(r: SampleRecord, chance: Sequence[float] | None = None) -> list[Slot]:
    """The slots of one sample of a pair method."""
    firsts = r.places[::2]
    return [
        Slot(
            f"{r.task}/{r.item}", i * PARTS // len(firsts), firsts[i], d.id, d.kept, d.confidence,
            firsts[i + 1] if i + 1 < len(firsts) else None, None if chance is None else chance[i],
        )
        for i, d in enumerate(r.drafts)
    ]  # fmt: skip


def token_kind(text: str, special: bool = False) -> str:
    """number (digits), letter (one), word (letters), symbol (neither), mixed, or special, by a token's text."""
    word = text.strip()
    if special or not word:
        return "special"
    if word.isdigit():
        return "number"
    if word.isalpha():
        return "letter" if len(word) == 1 else "word"
    return "mixed" if any(c.isalnum() for c in word) else "symbol"


def behaviour(samples: Sequence[Sequence[Slot]], kind_of: Callable[[int], str]) -> dict[str, Any]:
    """All that a report shows of one variant's PADs; ``samples``: the slots of each, ``kind_of``: of a token id.

    Shares have Wilson intervals, means Student's t, both clustered by item.
    """
    every = [s for sample in samples for s in sample]
    rejected = [s for s in every if not s.kept]
    found = [list(group) for sample in samples for _, group in groupby(sample, key=lambda s: s.kept)]
    runs = [group for group in found if not group[0].kept]
    pads = share(every, lambda s: not s.kept)
    return {
        "samples": len(samples),
        "slots": len(every),
        "pad_share": pads,
        "pad_chance_after_pad": share([b for a, b in _pairs(samples) if not a.kept], lambda s: not s.kept),
        "pad_chance_after_kept": share([b for a, b in _pairs(samples) if a.kept], lambda s: not s.kept),
        "run_length": estimate(by_item((run[0].item, [float(len(run))]) for run in runs)),
        "agreement": share([s for s in rejected if s.next is not None], lambda s: s.draft == s.next),
        "agreement_expected": mean([s for s in rejected if s.next is not None], lambda s: s.chance),
        "chance_kept": mean([s for s in every if s.kept], lambda s: s.chance),
        "by_part": [
            {"part": part, "slots": len(at), "pad_share": share(at, lambda s: not s.kept)}
            for part in range(PARTS)
            if (at := [s for s in every if s.part == part])
        ],
        "runs": [
            {"length": n, "runs": sum(min(len(run), LONGEST) == n for run in runs)} for n in range(1, LONGEST + 1)
        ],
        "after": [
            {"kind": kind, "slots": len(at), "pad_share": share(at, lambda s: not s.kept)}
            for kind in KINDS
            if (at := [s for s in every if kind_of(s.first) == kind])
        ],
        "confidence": [_bin(every, low, high) for low, high in pairwise(EDGES)],
    }


def _pairs(samples: Iterable[Sequence[Slot]]) -> Iterable[tuple[Slot, Slot]]:
    return (pair for sample in samples for pair in pairwise(sample))


def _bin(every: Sequence[Slot], low: float, high: float) -> dict[str, Any]:
    """Drafts of a bin of confidence; ``chance``: of all, ``agreement``: of the rejected that had a next pair."""
    at = [s for s in every if s.confidence is not None and low <= s.confidence and (s.confidence < high or high == 1)]
    gone = [s for s in at if not s.kept and s.next is not None]
    return {
        "low": low, "high": high, "kept": sum(s.kept for s in at), "rejected": sum(not s.kept for s in at),
        "mean": mean(at, lambda s: s.confidence), "chance": mean(at, lambda s: s.chance),
        "agreement": share(gone, lambda s: s.draft == s.next),
    }  # fmt: skip


def share(at: Sequence[Slot], is_so: Callable[[Slot], bool]) -> dict[str, Any] | None:
    """Share of slots, an Estimate as a dict; None where there is no slot."""
    items: Mapping[str, list[float]] = by_item((s.item, [float(is_so(s))]) for s in at)
    if not items:
        return None
    means = [sum(v) / len(v) for v in items.values()]
    return stats.share(means, [len(v) for v in items.values()], most=len(at)).plain()


def mean(at: Sequence[Slot], value: Callable[[Slot], float | None]) -> dict[str, Any] | None:
    """Mean over slots that have the value; None where none has."""
    return estimate(by_item((s.item, [v]) for s in at if (v := value(s)) is not None))
