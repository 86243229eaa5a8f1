"""Rules that a request must keep before it is queued, and where it will end."""

from __future__ import annotations

from typing import Any

from pipo.engine.admission import places_of
from pipo.engine.commit import Limits
from pipo.engine.plan import MemoryPlan
from pipo.engine.types import MOST_TOP_LOGPROBS, Request
from pipo.errors import BadInput
from pipo.model.draft_vocab import eos_ids

NO_LIMIT = 1 << 62


def check(r: Request, model: Any, plan: MemoryPlan, *, mixed: bool, can_decode: bool) -> Limits:
    """Check a request against the model and the memory plan and say where it ends. Raises BadInput."""
    _check_method(r, model, mixed)
    _check_prompt(r, model.config)
    for name, value in (("max_slots", r.max_slots), ("max_tokens", r.max_tokens)):
        if value is not None and value < 1:
            raise BadInput(f"{name} {value} must be at least 1")
    if r.max_slots is None and r.max_tokens is None:
        raise BadInput(f"request {r.id!r} has no budget; set max_slots or max_tokens")
    if r.stop and not can_decode:
        raise BadInput("stop strings need an engine that knows the tokenizer; give TorchEngine a decode function")
    if not all(r.stop):
        raise BadInput("a stop string is empty; it would end every request at once, leave it out")
    if r.logprobs is not None and not 0 <= r.logprobs <= MOST_TOP_LOGPROBS:
        raise BadInput(f"logprobs {r.logprobs} must lie in [0, {MOST_TOP_LOGPROBS}]")
    room = _room(r, model.config.max_position_embeddings, plan)
    ids = frozenset(() if r.ignore_eos else eos_ids(model.config))
    slots = min(r.max_slots or NO_LIMIT, room)
    return Limits(slots, r.max_tokens or NO_LIMIT, ids, model.config.pad_token_id, model.config.vocab_size)


def _check_method(r: Request, model: Any, mixed: bool) -> None:
    if r.method.pairs and not model.is_pipo:
        raise BadInput(f"method {r.method.name!r} needs a PIPO model; this is a regular one (regular, mtp, eagle)")
    if not r.method.pairs and model.is_pipo and not mixed:
        raise BadInput(f"method {r.method.name!r} needs a regular model; this is a PIPO one (pipo, random)")


def _check_prompt(r: Request, config: Any) -> None:
    vocab, pad = config.vocab_size, config.pad_token_id
    if not r.prompt:
        raise BadInput("the prompt is empty; give at least one token, the begin-of-sequence token for instance")
    if min(r.prompt) < 0 or max(r.prompt) >= vocab:
        bad = next(t for t in r.prompt if not 0 <= t < vocab)
        raise BadInput(f"prompt token {bad} is outside the vocabulary of {vocab}; use this model's tokenizer")
    if pad in r.prompt:
        raise BadInput(f"the prompt has PAD ({pad}) at place {r.prompt.index(pad)}; leave PADs to the engine")


def _room(r: Request, positions: int, plan: MemoryPlan) -> int:
    """Slots that the model's positions leave. Raises BadInput where the prompt, or what it asks for, cannot fit."""
    places, unit = places_of(r), "pairs" if r.method.pairs else "tokens"
    room = positions - places
    if room < 1:
        raise BadInput(f"the prompt has {places} {unit}, the model {positions} positions; shorten it")
    asked = min(r.max_slots or NO_LIMIT, r.max_tokens or NO_LIMIT, room)
    if places + asked > plan.context:
        raise BadInput(
            f"{places} prompt {unit} and up to {asked} slots need {places + asked} places, a row of the memory plan "
            f"has {plan.context}; ask for less, or give the engine fewer rows ({plan.rows} now) or more memory"
        )
    return room
