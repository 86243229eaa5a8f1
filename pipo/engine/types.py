"""What goes into an engine and what comes out: requests and events. Torch-free, shared by every engine.

A *slot* is one committed backbone position: a token for regular, mtp and eagle, a pair for pipo and random.
PADs never reach ``Event.tokens``; ``Event.places`` has them, for records and training.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from pipo.errors import BadInput

MethodName = Literal["regular", "mtp", "eagle", "pipo", "random"]
METHODS: tuple[str, ...] = ("regular", "mtp", "eagle", "pipo", "random")
PAIR_METHODS = ("pipo", "random")
Finish = Literal["eos", "stop", "slots", "tokens", "cancelled", "failed"]
MOST_TOP_LOGPROBS = 100


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the next token is drawn. ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch off.

    ``min_p``: tokens less likely than this share of the likeliest one are left out. ``presence_penalty``: taken off
    the logit of each token generated before, ``frequency_penalty``: as often as it was; the prompt does not count.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadInput(f"temperature {self.temperature} must be a finite number >= 0; 0 means greedy")
        if self.top_k < 0:
            raise BadInput(f"top_k {self.top_k} must be >= 0; 0 switches it off")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p {self.top_p} must lie in (0, 1]; 1 switches it off")
        if not 0 <= self.min_p <= 1:
            raise BadInput(f"min_p {self.min_p} must lie in [0, 1]; 0 switches it off")
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise BadInput(f"{name} {getattr(self, name)} must be a finite number; 0 switches it off")


class Method(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decoding method with its settings. A setting that the method does not use has no effect on it.

    ``threshold`` (pipo): a draft is kept where its confidence >= threshold; 0 keeps all, 1 keeps none.
    ``depth`` (eagle): drafts a step. ``keep_rate`` (random): chance that a draft is kept.
    """

    name: MethodName = "regular"
    threshold: float = 0.95
    depth: int = 3
    keep_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise BadInput(f"unknown method {self.name!r}; methods are {', '.join(METHODS)}")
        if not 0 <= self.threshold <= 1:  # NaN fails too
            raise BadInput(f"threshold {self.threshold} must lie in [0, 1]; 0 keeps every draft, 1 keeps none")
        if not 1 <= self.depth <= 16:
            raise BadInput(f"depth {self.depth} must lie in [1, 16]")
        if not 0 <= self.keep_rate <= 1:
            raise BadInput(f"keep_rate {self.keep_rate} must lie in [0, 1]")

    @property
    def pairs(self) -> bool:
        """Whether the method feeds the backbone pairs (needs a PIPO model)."""
        return self.name in PAIR_METHODS


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One sample to generate. ``prompt``: real token ids without PADs (the engine pads an odd prompt itself).

    ``seed`` alone fixes the sample, whatever else is in the batch. At least one budget must be set.
    ``group``: requests of one group have the same prompt and share its prefill. ``stop``: the request ends with the
    token that completes one of these strings in the generated text, across steps and pair ends (the token comes out).
    ``logprobs``: report each token's log-probability and that many of the likeliest ones; None reports nothing.
    """

    id: str
    prompt: tuple[int, ...]
    method: Method = Method()
    sampling: Sampling = Sampling()
    seed: int = 0
    max_slots: int | None = None
    max_tokens: int | None = None
    group: str | None = None
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


class Draft(msgspec.Struct, frozen=True, array_like=True):
    """One draft token: its id, whether it was kept, and the confidence in it (None for methods without a gate).

    ``logprob``: under the MTP head that drew it, for pair methods where the request asked for log-probabilities.
    """

    id: int
    kept: bool
    confidence: float | None = None
    logprob: float | None = None


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """Natural log-probability of one token that came out, and the likeliest ids there with theirs, likeliest first.

    Of the model's own distribution at that place: temperature 1, no filter, no penalty, PAD left out. The backbone's
    head for all tokens but those that come from a kept draft of mtp, pipo and random: there the MTP head's.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine step did for one request. ``time``: seconds on ``time.perf_counter``'s clock, taken in the engine

    ``tokens``: the real tokens that came out, in order. ``places``: the same with PADs where drafts were rejected
    (pair methods: always two places a slot, a pair that EOS ends included, PAD after it). ``slots``: slots committed.
    ``drafts``: drafts offered at this step, in order. ``logprobs``: one for each of ``tokens``, where asked for.
    ``finish``: set on a request's last event. ``restarted``: the request begins anew, what came out before is void.
    """

    request_id: str
    time: float
    tokens: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    slots: int = 0
    drafts: tuple[Draft, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    finish: Finish | None = None
    error: str | None = None
    restarted: bool = False
