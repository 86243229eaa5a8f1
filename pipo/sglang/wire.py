"""Our requests as SGLang's ``/generate`` takes them, and its streamed chunks as our events. Torch-free, no I/O.

SGLang counts a token at a time. What a slot is, which draft was offered and why a request ended is put back here, so
that records come out as the torch engine's do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from pipo.engine.types import MOST_TOP_LOGPROBS, Draft, Event, Finish, Logprob, Method, Request
from pipo.errors import BadInput
from pipo.sglang.facts import Facts

Decode = Callable[[Sequence[int]], str]
UNKNOWN = -1  # id of a rejected draft that SGLang does not tell
NEVER = -1e9  # a logit bias: the token is not drawn
PENALTIES = ("presence_penalty", "frequency_penalty")
NO_LIMIT = 1 << 62


class MetaInfo(msgspec.Struct):
    """What we read of a chunk's ``meta_info``; lists have one entry for each of the chunk's tokens.

    ``spec_num_correct_drafts``: kept drafts of the whole request, those beyond its end included; in its last chunk.
    """

    finish_reason: dict[str, Any] | None = None
    pipo_slots: list[list[Any] | None] | None = None
    output_token_logprobs: list[tuple[float, int, Any]] | None = None
    spec_num_correct_drafts: int | None = None
    output_top_logprobs: list[list[tuple[float, int, Any]] | None] | None = None


class Chunk(msgspec.Struct):
    """A line of the stream: new tokens, or an error."""

    output_ids: list[int] = []
    meta_info: MetaInfo = msgspec.field(default_factory=MetaInfo)
    error: dict[str, Any] | None = None


class Live:
    """A request on its way. ``rid``: its name at the server, of which no other's is a beginning."""

    __slots__ = ("request", "slots", "rid", "assembler")

    def __init__(self, request: Request, slots: int, rid: str, assembler: Assembler) -> None:
        self.request, self.slots, self.rid, self.assembler = request, slots, rid, assembler


class News(NamedTuple):
    """From the connections: a chunk for a request, or why its stream broke (``lost``)."""

    live: Live
    time: float
    chunk: Chunk | None = None
    lost: str = ""


def depth_of(method: Method) -> int:
    """Drafts a pass that SGLang's NEXTN makes for a method."""
    return {"eagle": method.depth, "mtp": 1}.get(method.name, 0)


class Room(NamedTuple):
    """Backbone places of one request (``context``), and of all together (``pool``)."""

    context: int
    pool: int


def check(r: Request, facts: Facts, room: Room, can_decode: bool) -> int:
    """The request's budget in slots. Raises BadInput where it breaks a rule of ours or of SGLang's."""
    for name, value in (("max_slots", r.max_slots), ("max_tokens", r.max_tokens)):
        if value is not None and value < 1:
            raise BadInput(f"{name} {value} must be at least 1")
    if r.max_slots is None and r.max_tokens is None:
        raise BadInput(f"request {r.id!r} has no budget; set max_slots or max_tokens")
    if not all(r.stop):
        raise BadInput("a stop string is empty; it would end every request at once, leave it out")
    if r.stop and not can_decode:
        raise BadInput("stop strings need an engine that knows the tokenizer; give SglangEngine a decode function")
    if r.logprobs is not None and not 0 <= r.logprobs <= MOST_TOP_LOGPROBS:
        raise BadInput(f"logprobs {r.logprobs} must lie in [0, {MOST_TOP_LOGPROBS}]")
    for name in PENALTIES:
        if abs(value := getattr(r.sampling, name)) > 2:
            raise BadInput(f"{name} {value} must lie in [-2, 2] in SGLang; use the torch engine, or a smaller one")
    _check_prompt(r.prompt, facts)
    return _slots(r, room)


def _check_prompt(prompt: Sequence[int], facts: Facts) -> None:
    vocab, pad = facts.config.vocab_size, facts.config.pad_token_id
    if not prompt:
        raise BadInput("the prompt is empty; give at least one token, the begin-of-sequence token for instance")
    if min(prompt) < 0 or max(prompt) >= vocab:
        bad = next(t for t in prompt if not 0 <= t < vocab)
        raise BadInput(f"prompt token {bad} is outside the vocabulary of {vocab}; use this model's tokenizer")
    if pad in prompt:
        raise BadInput(f"the prompt has PAD ({pad}) at place {prompt.index(pad)}; leave PADs to the engine")


def _slots(r: Request, room: Room) -> int:
    places, unit = (-(-len(r.prompt) // 2), "pairs") if r.method.pairs else (len(r.prompt), "tokens")
    left = room.context - places
    if left < 1:
        raise BadInput(f"the prompt has {places} {unit}, the model {room.context} positions; shorten it")
    least = -(-r.max_tokens // 2) if r.max_tokens is not None and r.method.pairs else r.max_tokens or NO_LIMIT
    asked = min(r.max_slots or NO_LIMIT, least, left)
    if places + asked > room.pool:
        raise BadInput(
            f"{places} prompt {unit} and {asked} slots need {places + asked} places, the server's cache has "
            f"{room.pool} for all requests; ask for less, or give it more memory"
        )
    return min(r.max_slots or NO_LIMIT, left)


def payload(r: Request, rid: str, slots: int, pad: int) -> dict[str, Any]:
    """The body of a request. ``slots``: its budget, from ``check``. A seed has no counterpart: see the engine."""
    s = r.sampling
    params: dict[str, Any] = {
        "temperature": s.temperature, "top_k": s.top_k or -1, "top_p": s.top_p, "min_p": s.min_p,
        "presence_penalty": s.presence_penalty, "frequency_penalty": s.frequency_penalty, "ignore_eos": r.ignore_eos,
    }  # fmt: skip
    if r.stop:
        params["stop"] = list(r.stop)
    if r.method.pairs:
        params["max_new_tokens"] = r.max_tokens
        params["custom_params"] = {"threshold": r.method.threshold, "max_slots": slots, "details": True}
    else:
        params["max_new_tokens"] = min(slots, r.max_tokens or NO_LIMIT)
        if pad >= 0:
            params["logit_bias"] = {str(pad): NEVER}  # no method of ours ever draws PAD
    body: dict[str, Any] = {"rid": rid, "input_ids": list(r.prompt), "sampling_params": params, "stream": True}
    if r.logprobs is not None:
        body |= {"return_logprob": True, "top_logprobs_num": r.logprobs}
    return body


class Assembler:
    """The events of one request, out of its chunks."""

    def __init__(self, request: Request, facts: Facts, decode: Decode | None = None) -> None:
        self.request, self.config, self.decode = request, facts.config, decode
        self.depth = depth_of(request.method)
        self.kept = 0
        self.tokens: list[int] = []

    def events(self, chunk: Chunk, now: float) -> list[Event]:
        """What a chunk says: an event a slot (token methods: a token), the last one with the end where there is one."""
        if chunk.error is not None:
            return [self._failed(now, str(chunk.error.get("message", chunk.error)))]
        info, ids = chunk.meta_info, chunk.output_ids
        self.tokens += ids
        finish, error = self._finish(info.finish_reason)
        made: list[Event] | None
        if self.request.method.pairs:
            made = self._pairs(chunk, now, finish)
        else:
            made = self._chain(chunk, now) if self.depth else self._singles(chunk, now)
        if made is None:
            return [self._failed(now, "SGLang's answer has no word on its pairs; does its log say that hooks took?")]
        if finish is not None:
            last = made.pop() if made else Event(request_id=self.request.id, time=now)
            made.append(msgspec.structs.replace(last, finish=finish, error=error))
        return made

    def _failed(self, now: float, error: str) -> Event:
        return Event(request_id=self.request.id, time=now, finish="failed", error=error)

    def _singles(self, chunk: Chunk, now: float) -> list[Event]:
        scores = self._scores(chunk)
        return [
            Event(request_id=self.request.id, time=now, tokens=(t,), places=(t,), slots=1, logprobs=scores[i : i + 1])
            for i, t in enumerate(chunk.output_ids)
        ]

    def _chain(self, chunk: Chunk, now: float) -> list[Event]:
        """A pass of a method with drafts, which come before the new token. SGLang does not tell the rejected ones."""
        ids = tuple(chunk.output_ids)
        if not ids:
            return []
        drafts: tuple[Draft, ...] = ()
        if len(self.tokens) > len(ids):  # the prefill gives the first token alone
            drafts = self._drafts_of_pass(ids, chunk.meta_info)
        return [
            Event(
                request_id=self.request.id, time=now, tokens=ids, places=ids, slots=len(ids), drafts=drafts,
                logprobs=self._scores(chunk),
            )
        ]  # fmt: skip

    def _drafts_of_pass(self, ids: Sequence[int], info: MetaInfo) -> tuple[Draft, ...]:
        passes = -(-len(ids) // (self.depth + 1))
        kept = len(ids) - passes
        if self.request.method.name == "mtp":
            kept = passes  # all, and of a pass that the end cut through its draft is what came out
        elif info.finish_reason is not None and (info.spec_num_correct_drafts or 0) - self.kept >= len(ids):
            return tuple(Draft(t, True) for t in ids)  # the end came within the drafts
        self.kept += kept
        return (*[Draft(t, True) for t in ids[:kept]], *[Draft(UNKNOWN, False)] * (passes * self.depth - kept))

    def _pairs(self, chunk: Chunk, now: float, finish: Finish | None) -> list[Event] | None:
        ids, slots, scores = chunk.output_ids, chunk.meta_info.pipo_slots or [], self._scores(chunk)
        if len(slots) != len(ids) or (slots and slots[0] is None):
            return None
        starts = [i for i, slot in enumerate(slots) if slot is not None]
        made = []
        for start, end in zip(starts, [*starts[1:], len(ids)]):
            tokens, draft = tuple(ids[start:end]), self._draft(slots[start] or [])
            # Where the first token ends the request, no draft was asked for, though SGLang had drawn one.
            cut = end == len(ids) and len(tokens) == 1 and finish in ("eos", "stop", "tokens")
            places = tokens if len(tokens) == 2 else (*tokens, self.config.pad_token_id)
            made.append(
                Event(
                    request_id=self.request.id,
                    time=now,
                    tokens=tokens,
                    places=places,
                    slots=1,
                    drafts=() if cut else (draft,),
                    logprobs=scores[start:end],
                )
            )
        return made

    def _draft(self, slot: list[Any]) -> Draft:
        id_, kept, confidence, *logprob = slot
        told = bool(logprob) and self.request.logprobs is not None  # else a batch mate asked for it
        return Draft(int(id_), bool(kept), float(confidence), float(logprob[0]) if told else None)

    def _scores(self, chunk: Chunk) -> tuple[Logprob, ...]:
        if self.request.logprobs is None:
            return ()
        info = chunk.meta_info
        likeliest = info.output_top_logprobs or []
        return tuple(
            Logprob(
                value, tuple((id_, x) for x, id_, _ in (likeliest[i] or ()) if x > NEVER / 2)[: self.request.logprobs]
            )
            if i < len(likeliest)
            else Logprob(value)
            for i, (value, _, _) in enumerate(info.output_token_logprobs or [])
        )

    def _finish(self, reason: dict[str, Any] | None) -> tuple[Finish | None, str | None]:
        if reason is None:
            return None, None
        kind, matched, r = reason.get("type"), reason.get("matched"), self.request
        if kind == "abort":
            return "failed", str(reason.get("message") or "SGLang aborted the request")
        if kind == "stop" and isinstance(matched, str):
            if matched in r.stop:
                return "stop", None
            return "failed", f"SGLang ended the request: {matched}; check the weights of the model"
        if kind == "stop":
            return "eos", None
        # SGLang looks at the budget first; here, as in the torch engine, an end by the text goes before it.
        if self.tokens and not r.ignore_eos and self.tokens[-1] in self.config.eos_token_id:
            return "eos", None
        if r.stop and self.decode is not None:
            text = self.decode(self.tokens)
            if any(s in text for s in r.stop):
                return "stop", None
        return ("tokens" if len(self.tokens) >= (r.max_tokens or NO_LIMIT) else "slots"), None
