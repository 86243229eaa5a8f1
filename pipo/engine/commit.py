"""From what a method drew to events: end of sequence, budgets, counts. Torch-free.

A method says per row what came out (an ``Outcome``); here it is cut where the request ends.
"""

from __future__ import annotations

from typing import NamedTuple

from pipo.engine.types import Draft, Event, Finish, Request


class Outcome(NamedTuple):
    """What one pass drew for one row.

    ``tokens``: ids in order; of a pair the second only where its draft was kept. ``drafts``: drafts offered.
    ``draft_from``: index in ``tokens`` of the place that the first draft was for (token methods). ``pair``: whether
    this commits a pair. ``announce``: the first token of a pair whose draft is still to come; commits nothing.
    """

    tokens: tuple[int, ...]
    drafts: tuple[Draft, ...] = ()
    draft_from: int = 0
    pair: bool = False
    announce: bool = False


class Limits(NamedTuple):
    """What ends a request. ``slots`` includes the room that the model's positions leave."""

    slots: int
    tokens: int
    eos: frozenset[int]
    pad: int
    vocab: int


class Progress:
    """How far one request is. ``announced``: the first token of the current pair is out already."""

    __slots__ = ("request", "limits", "slots", "tokens", "announced", "finish")

    def __init__(self, request: Request, limits: Limits) -> None:
        self.request, self.limits = request, limits
        self.slots = self.tokens = 0
        self.announced = False
        self.finish: Finish | None = None

    @property
    def place(self) -> int:
        """Index of the next generated place: a token, or for pair methods half a pair."""
        return self.slots * 2 if self.request.method.pairs else self.slots


def commit(row: Progress, outcome: Outcome, now: float) -> Event:
    """Advance ``row`` by an outcome and say so; sets ``row.finish`` on the last event."""
    ids = (*outcome.tokens, *(d.id for d in outcome.drafts))
    if max(ids) >= row.limits.vocab:
        row.finish = "failed"
        error = f"the model's output is not finite at generated place {row.place}; check the weights of the model"
        return Event(request_id=row.request.id, time=now, finish="failed", error=error)
    if outcome.announce:
        row.announced = True
        row.tokens += 1
        return Event(request_id=row.request.id, time=now, tokens=outcome.tokens)
    return _commit_pair(row, outcome, now) if outcome.pair else _commit_tokens(row, outcome, now)


def _commit_tokens(row: Progress, outcome: Outcome, now: float) -> Event:
    limits, tokens, drafts = row.limits, outcome.tokens, outcome.drafts
    room = min(len(tokens), limits.slots - row.slots, limits.tokens - row.tokens)
    end = next((i + 1 for i, t in enumerate(tokens[:room]) if t in limits.eos), 0)
    count = end or room
    if count < len(tokens):
        tokens, drafts = tokens[:count], drafts[: max(0, count - outcome.draft_from)]
    row.slots += count
    row.tokens += count
    row.finish = "eos" if end else _budget(row)
    return Event(
        request_id=row.request.id, time=now, tokens=tokens, places=tokens, slots=count, drafts=drafts,
        finish=row.finish,
    )  # fmt: skip


def _commit_pair(row: Progress, outcome: Outcome, now: float) -> Event:
    limits = row.limits
    before = row.tokens - row.announced
    first, second, drafts = outcome.tokens[0], outcome.tokens[1:], outcome.drafts
    end = first in limits.eos
    if end or before + 1 >= limits.tokens:
        second, drafts = (), ()
    end = end or (bool(second) and second[0] in limits.eos)
    new = second if row.announced else (first, *second)
    row.tokens, row.announced = before + 1 + len(second), False
    row.slots += 1
    row.finish = "eos" if end else _budget(row)
    return Event(
        request_id=row.request.id, time=now, tokens=new, places=(first, *(second or (limits.pad,))), slots=1,
        drafts=drafts, finish=row.finish,
    )  # fmt: skip


def _budget(row: Progress) -> Finish | None:
    if row.tokens >= row.limits.tokens:
        return "tokens"
    return "slots" if row.slots >= row.limits.slots else None
