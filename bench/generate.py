"""The job ``generate``: one prompt, its text streamed piece by piece as tokens come out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from bench import engines, loading
from bench.engines import EngineSpec
from bench.runner import clean_exit, encode
from bench.timing import Trace
from pipo.engine.types import Event, Method, Request, Sampling
from pipo.errors import BadInput, JobFailed
from pipo.jobs import JobContext

DEFAULT_SLOTS = 2048


class GenerateSpec(EngineSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``generate``. ``method``: default by the model's kind. Without a budget: 2,048 slots.

    ``stop``: strings that end the sample; the text goes up to the first of them. ``logprobs``: report each token's
    log-probability and that many of the likeliest ones.
    """

    model: str
    prompt: str
    method: Method | None = None
    sampling: Sampling = Sampling()
    seed: int = 0
    max_slots: int | None = None
    max_tokens: int | None = None
    stop: list[str] = []
    logprobs: int | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stops(self.stop)
        for name in ("max_slots", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} must be at least 1")


class Pieces:
    """Turns growing token lists into pieces of text; holds back what later tokens may still change or cut off."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops, self.sent = tokenizer, tuple(stops), ""

    def text(self, tokens: list[int], finish: str | None) -> str:
        """The text of a whole sample: up to the stop string where one ended it."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        if finish != "stop":
            return text
        return text[: min((place for s in self.stops if (place := text.find(s)) >= 0), default=len(text))]

    def next(self, tokens: list[int], finish: str | None = None) -> str:
        """The text that is new since the last call. ``finish``: why the sample ends here; None where more will come."""
        text = self.text(tokens, finish)
        if finish is None:
            text = text[: len(text) - self._may_become_stop(text)]
        if not text.startswith(self.sent) or (text.endswith("\ufffd") and finish is None):
            return ""
        piece, self.sent = text[len(self.sent) :], text
        return piece

    def _may_become_stop(self, text: str) -> int:
        """Characters at the end of ``text`` with which a stop string begins."""
        longest = min(max((len(s) for s in self.stops), default=1) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self.stops)), 0)


def check_stops(stops: Sequence[str]) -> None:
    """Raise BadInput for an empty stop string, which every text has."""
    if "" in stops:
        raise BadInput("a stop string is empty; every text would end at once: give at least one character")


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Generate; emits a ``token`` event a token (text, kept, confidence) and returns the whole.

    Returns:
        text, tokens, slots, steps, finish, method, prompt_tokens, offered, kept, kept_share (None without drafts),
        ttft_s, tpot_s, seconds. Where log-probabilities were asked for, ``logprobs``, here for all tokens and in each
        event for its own: token (id), text, logprob, top (of the likeliest, each with token, text, logprob).
    """
    settings = loading.read_spec(spec, GenerateSpec, "generate")
    engines.check_usable(settings)
    method = settings.method or loading.default_method(settings, settings.model, ctx, settings.family)
    loaded = loading.load_for(settings, settings.model, method, "generate", ctx, settings.family)
    loading.check_method("generate", method, loaded)
    engine = loaded.engine
    slots = settings.max_slots if settings.max_slots or settings.max_tokens else DEFAULT_SLOTS
    name = f"generate/{time.perf_counter_ns()}"
    request = Request(
        id=name, prompt=encode(loaded.tokenizer, settings.prompt, engine.model.config.vocab_size, "generate"),
        method=method, sampling=settings.sampling, seed=settings.seed, max_slots=slots, max_tokens=settings.max_tokens,
        stop=tuple(settings.stop), logprobs=settings.logprobs,
    )  # fmt: skip
    engine.submit(request)
    stream, step = _Stream(ctx, request, Trace(engine.submitted[name], method), loaded.tokenizer), 0
    trace = stream.trace
    with clean_exit(engine, [name]):
        while trace.finish is None:
            ctx.check()
            for event in engine.step():
                if event.request_id == name:
                    stream.add(event, step)
            step += 1
    if trace.finish == "failed":
        raise JobFailed(f"the generation failed: {trace.error}")
    return stream.result()


class _Stream:
    """What comes out for the request: emitted token by token, kept for the result."""

    def __init__(self, ctx: JobContext, request: Request, trace: Trace, tokenizer: Any) -> None:
        self.ctx, self.request, self.trace, self.tokenizer = ctx, request, trace, tokenizer
        self.pieces = Pieces(tokenizer, request.stop)
        self.logprobs: list[dict[str, Any]] = []

    def add(self, event: Event, step: int) -> None:
        """One ``token`` event a token (``kept`` True where it was a draft, None where not), one a rejected draft."""
        before = len(self.trace.tokens)
        self.trace.add(event, step)
        if event.restarted:
            self.pieces, self.logprobs = Pieces(self.tokenizer, self.request.stop), []
            self.ctx.emit("log", text="the sample begins anew")
            return
        kept = [d for d in event.drafts if d.kept]
        eagle = self.request.method.name == "eagle"
        first = 0 if eagle else len(event.tokens) - len(kept)  # verified drafts come before the new token
        for place in range(len(event.tokens)):
            draft = kept[place - first] if 0 <= place - first < len(kept) else None
            finish = self.trace.finish if place == len(event.tokens) - 1 else None
            text = self.pieces.next(self.trace.tokens[: before + place + 1], finish)
            known = [self._known(event.tokens[place], x.logprob, x.top) for x in event.logprobs[place : place + 1]]
            self.logprobs += known
            self._emit(text, True if draft else None, draft.confidence if draft else None, known)
        for draft in event.drafts:
            if not draft.kept:
                known = [] if draft.logprob is None else [self._known(draft.id, draft.logprob)]
                self._emit("", False, draft.confidence, known)

    def _emit(self, text: str, kept: bool | None, confidence: float | None, known: list[dict[str, Any]]) -> None:
        more = {} if self.request.logprobs is None else {"logprobs": known}
        self.ctx.emit("token", text=text, kept=kept, confidence=confidence, **more)

    def _known(self, token: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> dict[str, Any]:
        return {**self._named(token, logprob), "top": [self._named(*x) for x in top]}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        return {"token": token, "text": text, "logprob": logprob}

    def result(self) -> dict[str, Any]:
        """What the job returns."""
        trace = self.trace
        offered, kept = len(trace.drafts), sum(d.kept for d in trace.drafts)
        found = {
            "text": self.pieces.text(trace.tokens, trace.finish), "tokens": len(trace.tokens), "slots": trace.slots,
            "steps": trace.steps, "finish": trace.finish, "method": msgspec.to_builtins(self.request.method),
            "prompt_tokens": len(self.request.prompt), "offered": offered, "kept": kept,
            "kept_share": kept / offered if offered else None, "ttft_s": trace.ttft, "tpot_s": trace.tpot(),
            "seconds": trace.times[-1] if trace.times else None,
        }  # fmt: skip
        return found if self.request.logprobs is None else {**found, "logprobs": self.logprobs}
