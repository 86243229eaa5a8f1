"""From time stamps of an engine's events to TTFT, first pair and time per output token. Torch-free.

Tokens of one step come out together or nearly so. So time per output token (TPOT) is counted between step ends: from
the end of the first step (the prefill, with the first draft where the method drafts there) to the step by which at
least ``first`` tokens were out, over the tokens in between. For regular decoding this is the usual (t_16 - t_1) / 15;
for pairs it does not credit the first step's second token.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import SampleRecord
from pipo.engine.types import Draft, Event, Method

TPOT_TOKENS = 16


def tpot(times: Sequence[float], start: float, first: int | None = None) -> float:
    """Seconds a token after ``start`` (end of the first step), over the first ``first`` tokens or all.

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


def drafts_at_once(method: Method) -> bool:
    """Whether a method's first step gives a draft beside the first token."""
    return method.pairs or method.name == "mtp"


def first_step_end(r: SampleRecord, method: Method) -> float:
    """Seconds until the first step of a sample ended; -1 where it did not."""
    return r.first_pair_s if drafts_at_once(method) else r.ttft_s


class Trace:
    """What came out for one request: events added one by one, times kept relative to its submission."""

    def __init__(self, submitted: float, method: Method) -> None:
        self.submitted, self.method = submitted, method
        self.tokens: list[int] = []
        self.places: list[int] = []
        self.times: list[float] = []
        self.drafts: list[Draft] = []
        self.slots = 0
        self.steps = 0
        self.step = -1
        self.first_step = -1.0
        self.first_pair = -1.0
        self.finish: str | None = None
        self.error: str | None = None

    def add(self, event: Event, step: int) -> None:
        """Take in the request's next event, of the engine's step of that number. A restart voids what came before."""
        if event.restarted:
            vars(self).update(vars(Trace(event.time, self.method)))
            return
        at = round(event.time - self.submitted, 7)
        self.tokens += event.tokens
        self.places += event.places
        self.times += [at] * len(event.tokens)
        self.drafts += event.drafts
        self.slots += event.slots
        if event.tokens or event.slots:
            self.steps += step != self.step
            self.step = step
        if self.steps == 1:
            self.first_step = at
        if self.first_pair < 0 and (event.slots if self.method.pairs else len(self.tokens) >= 2):
            self.first_pair = at
        if event.finish is not None:
            self.finish, self.error = event.finish, event.error

    @property
    def ttft(self) -> float:
        """Seconds from submission to the first token; -1 where none came."""
        return self.times[0] if self.times else -1.0

    def tpot(self, first: int | None = None) -> float:
        """See ``tpot``."""
        return tpot(self.times, self.first_step, first)
