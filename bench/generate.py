"""The job ``generate``: one prompt, its text streamed piece by piece as tokens come out."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from bench import loading
from bench.runner import clean_exit, encode
from bench.timing import Trace
from pipo.engine.types import Event, Method, Request, Sampling
from pipo.errors import BadInput, JobFailed
from pipo.jobs import JobContext

DEFAULT_SLOTS = 2048


class GenerateSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``generate``. ``method``: default by the model's kind. Without a budget: 2,048 slots."""

    model: str
    prompt: str
    method: Method | None = None
    sampling: Sampling = Sampling()
    seed: int = 0
    max_slots: int | None = None
    max_tokens: int | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_slots", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} must be at least 1")


class Pieces:
    """Turns growing token lists into pieces of text; holds back what later tokens may still change."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.sent = tokenizer, ""

    def next(self, tokens: list[int], *, last: bool) -> str:
        """The text that is new since the last call. ``last``: nothing more will come."""
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        if not text.startswith(self.sent) or (text.endswith("\ufffd") and not last):
            return ""
        piece, self.sent = text[len(self.sent) :], text
        return piece


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Generate; emits a ``token`` event a token (text, kept, confidence) and returns the whole.

    Returns:
        text, tokens, slots, steps, finish, method, prompt_tokens, offered, kept, kept_share (None without drafts),
        ttft_s, tpot_s, seconds.
    """
    settings = loading.read_spec(spec, GenerateSpec, "generate")
    loaded = loading.load(settings.model, ctx, settings.family)
    method = settings.method or loading.default_method(loaded)
    loading.check_method("generate", method, loaded)
    engine = loaded.engine
    slots = settings.max_slots if settings.max_slots or settings.max_tokens else DEFAULT_SLOTS
    name = f"generate/{time.perf_counter_ns()}"
    request = Request(
        id=name, prompt=encode(loaded.tokenizer, settings.prompt, engine.model.config.vocab_size, "generate"),
        method=method, sampling=settings.sampling, seed=settings.seed, max_slots=slots, max_tokens=settings.max_tokens,
    )  # fmt: skip
    engine.submit(request)
    trace, pieces, step = Trace(engine.submitted[name], method), Pieces(loaded.tokenizer), 0
    with clean_exit(engine, [name]):
        while trace.finish is None:
            ctx.check()
            for event in engine.step():
                if event.request_id == name:
                    trace.add(event, step)
                    _emit(ctx, pieces, trace, event, method)
            step += 1
    if trace.finish == "failed":
        raise JobFailed(f"the generation failed: {trace.error}")
    return _result(trace, method, loaded.tokenizer, len(request.prompt))


def _emit(ctx: JobContext, pieces: Pieces, trace: Trace, event: Event, method: Method) -> None:
    """One ``token`` event a token (``kept`` True where it was a draft, None where not), one a rejected draft."""
    kept = [d for d in event.drafts if d.kept]
    first = 0 if method.name == "eagle" else len(event.tokens) - len(kept)  # verified drafts come before the new token
    before = len(trace.tokens) - len(event.tokens)
    for place in range(len(event.tokens)):
        draft = kept[place - first] if 0 <= place - first < len(kept) else None
        last = trace.finish is not None and place == len(event.tokens) - 1
        text = pieces.next(trace.tokens[: before + place + 1], last=last)
        ctx.emit("token", text=text, kept=True if draft else None, confidence=draft.confidence if draft else None)
    for draft in event.drafts:
        if not draft.kept:
            ctx.emit("token", text="", kept=False, confidence=draft.confidence)


def _result(trace: Trace, method: Method, tokenizer: Any, prompt_tokens: int) -> dict[str, Any]:
    offered, kept = len(trace.drafts), sum(d.kept for d in trace.drafts)
    return {
        "text": tokenizer.decode(trace.tokens, skip_special_tokens=True), "tokens": len(trace.tokens),
        "slots": trace.slots, "steps": trace.steps, "finish": trace.finish, "method": msgspec.to_builtins(method),
        "prompt_tokens": prompt_tokens, "offered": offered, "kept": kept,
        "kept_share": kept / offered if offered else None, "ttft_s": trace.ttft, "tpot_s": trace.tpot(),
        "seconds": trace.times[-1] if trace.times else None,
    }  # fmt: skip
