"""From time stamps of an engine's events to TTFT, first pair and time per output token. Torch-free.

Tokens that come out of one step share its time. So time per output token (TPOT) is counted between step ends: from the
step that completed the first slot to the step by which at least ``first`` tokens were out, over the tokens in between.
For regular decoding this is the usual (t_16 - t_1) / 15; for pairs it does not credit the first step's second token.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipo.engine.types import Draft, Event

TPOT_TOKENS = 16


def tpot(times: Sequence[float], start: float, first: int | None = None) -> float:
    """Seconds a token after ``start`` (time of the first complete slot), over the first ``first`` tokens or all.

    Args:
        times: time of each token, ascending, tokens of one step alike.
    Returns:
        -1 where fewer than ``first`` tokens came (or none after ``start``).
    """
    if first is not None and len(times) < first:
        return -1.0
    if not times or start < 0:
        return -1.0
    end = times[-1] if first is None else times[first - 1]
    count = sum(start < t <= end for t in times)
    return (end - start) / count if count else -1.0


class Trace:
    """What came out for one request: events added one by one, times kept relative to its submission."""

    def __init__(self, submitted: float, pairs: bool) -> None:
        self.submitted, self.pairs = submitted, pairs
        self.tokens: list[int] = []
        self.places: list[int] = []
        self.times: list[float] = []
        self.drafts: list[Draft] = []
        self.slots = 0
        self.steps = 0
        self.first_slot = -1.0
        self.first_pair = -1.0
        self.finish: str | None = None
        self.error: str | None = None

    def add(self, event: Event) -> None:
        """Take in the request's next event."""
        at = round(event.time - self.submitted, 7)
        self.tokens += event.tokens
        self.places += event.places
        self.times += [at] * len(event.tokens)
        self.drafts += event.drafts
        self.slots += event.slots
        self.steps += event.slots > 0
        if self.first_slot < 0 and event.slots:
            self.first_slot = at
        if self.first_pair < 0 and (event.slots if self.pairs else len(self.tokens) >= 2):
            self.first_pair = at
        if event.finish is not None:
            self.finish, self.error = event.finish, event.error

    @property
    def ttft(self) -> float:
        """Seconds from submission to the first token; -1 where none came."""
        return self.times[0] if self.times else -1.0

    def tpot(self, first: int | None = None) -> float:
        """See ``tpot``."""
        return tpot(self.times, self.first_slot, first)
