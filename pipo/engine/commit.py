"""From what a method drew to events: end of sequence, budgets, counts. Torch-free.

A method says per row what came out (an ``Outcome``); here it is cut where the request ends.
"""

from __future__ import annotations

from typing import NamedTuple

from pipo.engine.stops import StopFinder
from pipo.engine.types import Draft, Event, Finish, Logprob, Request


class Outcome(NamedTuple):
    """What one pass drew for one row.

    ``tokens``: ids in order; of a pair the second only where its draft was kept. ``drafts``: drafts offered.
    ``draft_from``: index in ``tokens`` of the place that the first draft was for (token methods). ``pair``: whether
    this commits a pair. ``announce``: the first token of a pair whose draft is still to come; commits nothing.
    ``logprobs``: of each place that was drawn, a pair's rejected second included; empty where not asked for.
    """

    tokens: tuple[int, ...]
    drafts: tuple[Draft, ...] = ()
    draft_from: int = 0
    pair: bool = False
    announce: bool = False
    logprobs: tuple[Logprob, ...] = ()


class Limits(NamedTuple):
    """What ends a request. ``slots`` includes the room that the model's positions leave."""

    slots: int
    tokens: int
    eos: frozenset[int]
    pad: int
    vocab: int


class Progress:
    """How far one request is. ``announced``: the end that the current pair's first token brought, once it is out."""

    __slots__ = ("request", "limits", "slots", "tokens", "announced", "stop", "finish")

    def __init__(self, request: Request, limits: Limits, stop: StopFinder | None = None) -> None:
        self.request, self.limits, self.stop = request, limits, stop
        self.slots = self.tokens = 0
        self.announced: Announced | None = None
        self.finish: Finish | None = None

    @property
    def place(self) -> int:
        """Index of the next generated place: a token, or for pair methods half a pair."""
        return self.slots * 2 if self.request.method.pairs else self.slots

    def end(self, token: int) -> Finish | None:
        """Why the request ends with this token, the next of its text; None where it goes on. Once a token."""
        stopped = self.stop is not None and self.stop.completes(token)
        if token in self.limits.eos:
            return "eos"
        return "stop" if stopped else None

    def budget(self) -> Finish | None:
        """The budget that is used up, if one is."""
        if self.tokens >= self.limits.tokens:
            return "tokens"
        return "slots" if self.slots >= self.limits.slots else None

    def scores(self, outcome: Outcome, start: int, end: int) -> tuple[Logprob, ...]:
        """Log-probabilities of the outcome's places start .. end-1, as many of the likeliest as this request wants."""
        top = self.request.logprobs
        if top is None:
            return ()
        return tuple([Logprob(x.logprob, x.top[:top]) for x in outcome.logprobs[start:end]])


class Announced(NamedTuple):
    """The end that an announced first token brings, if any (a tuple, so that "announced, goes on" is not None)."""

    end: Finish | None


def commit(row: Progress, outcome: Outcome, now: float, sound: bool = False) -> Event:
    """Advance ``row`` by an outcome and say so; sets ``row.finish`` on the last event.

    ``sound``: no id of this pass marks a failed row, nobody needs to look.
    """
    vocab = row.limits.vocab
    if not sound and (max(outcome.tokens) >= vocab or any([d.id >= vocab for d in outcome.drafts])):
        row.finish = "failed"
        error = f"the model's output is not finite at generated place {row.place}; check the weights of the model"
        return Event(request_id=row.request.id, time=now, finish="failed", error=error)
    if outcome.announce:
        row.announced = Announced(row.end(outcome.tokens[0]))
        row.tokens += 1
        return Event(request_id=row.request.id, time=now, tokens=outcome.tokens, logprobs=row.scores(outcome, 0, 1))
    return _commit_pair(row, outcome, now) if outcome.pair else _commit_tokens(row, outcome, now)


def _commit_tokens(row: Progress, outcome: Outcome, now: float) -> Event:
    limits, tokens, drafts = row.limits, outcome.tokens, outcome.drafts
    count, end = min(len(tokens), limits.slots - row.slots, limits.tokens - row.tokens), None
    for i, token in enumerate(tokens[:count]):
        if (end := row.end(token)) is not None:
            count = i + 1
            break
    if count < len(tokens):
        tokens, drafts = tokens[:count], drafts[: max(0, count - outcome.draft_from)]
    row.slots += count
    row.tokens += count
    row.finish = end or row.budget()
    return Event(
        request_id=row.request.id, time=now, tokens=tokens, places=tokens, slots=count, drafts=drafts,
        logprobs=row.scores(outcome, 0, count), finish=row.finish,
    )  # fmt: skip


def _commit_pair(row: Progress, outcome: Outcome, now: float) -> Event:
    limits, announced = row.limits, row.announced
    first, second, drafts = outcome.tokens[0], outcome.tokens[1:], outcome.drafts
    if outcome.logprobs and row.request.logprobs is None:  # a batch mate asked for them
        drafts = tuple(Draft(d.id, d.kept, d.confidence) for d in drafts)
    end = row.end(first) if announced is None else announced.end
    before = row.tokens - (announced is not None)
    if end is not None or before + 1 >= limits.tokens:
        second, drafts = (), ()
    elif second:
        end = row.end(second[0])
    new = (first, *second) if announced is None else second
    row.tokens, row.announced = before + 1 + len(second), None
    row.slots += 1
    row.finish = end or row.budget()
    return Event(
        request_id=row.request.id, time=now, tokens=new, places=(first, *(second or (limits.pad,))), slots=1,
        drafts=drafts, logprobs=row.scores(outcome, announced is not None, 1 + len(second)), finish=row.finish,
    )  # fmt: skip
