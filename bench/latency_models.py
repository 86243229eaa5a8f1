"""The models that ``latency`` times: by name through bench.loading, or a random one of a shape; each in an engine."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec

from bench import loading
from bench.latency_arms import ROOM, Arm, LatencySpec, places_needed
from bench.loading import Loaded
from bench.provenance import settings_hash
from pipo.errors import BadInput
from pipo.jobs import JobContext


class Subject(msgspec.Struct, frozen=True):
    """A model that is ready to be timed. ``words``: ids that prompts are drawn from; ``mark``: its fingerprint."""

    engine: Any
    words: list[int]
    mark: str
    loaded: Loaded | None = None  # None for a shape

    def prompt(self, length: int, seed: int) -> tuple[int, ...]:
        """``length`` random ids, the same for equal vocabularies."""
        return tuple(random.Random(f"{seed}/{length}").choices(self.words, k=length))


def subjects(settings: LatencySpec, arms: list[Arm], ctx: JobContext) -> dict[str, Subject]:
    """The models of all arms, by the names that arms give them.

    Raises:
        BadInput: an unknown shape, a method that a model cannot do, prompts longer than a model or its engine takes.
        BadModel: a model that cannot be loaded.
    """
    found: dict[str, Subject] = {}
    for arm in arms:
        name = arm.variant.model
        if name not in found:
            ctx.check()
            found[name] = of_shape(name, settings, ctx) if settings.shape else _named(name, settings, ctx)
        subject = found[name]
        if subject.loaded is not None:
            loading.check_method(f"variant {arm.name}", arm.method, subject.loaded)
        check_room(arm, subject.engine, settings)
    return found


def _named(name: str, settings: LatencySpec, ctx: JobContext) -> Subject:
    loaded = loading.load(name, ctx, settings.family)
    special = set(loaded.tokenizer.all_special_ids)  # type: ignore[attr-defined]
    words = sorted(i for i in loaded.tokenizer.get_vocab().values() if i not in special)  # type: ignore[attr-defined]
    return Subject(loaded.engine, words, loading.fingerprint(loaded.folder), loaded)


def of_shape(shape: str, settings: LatencySpec, ctx: JobContext) -> Subject:
    """A random model of a shape under an engine for one request, wide enough for the longest prompt.

    It is made anew by each job and not kept: it costs seconds, and may fill the device.
    """
    import torch

    from bench.shapes import random_model, shape_config
    from pipo.engine import TorchEngine
    from pipo.model.draft_vocab import eos_ids
    from pipo.model.threads import fit_threads

    config = shape_config(shape)
    longest = max(settings.lengths)
    context = longest + settings.new_tokens + ROOM
    if context > config.max_position_embeddings:
        raise BadInput(
            f"{longest} prompt tokens and {settings.new_tokens} new ones do not fit into the "
            f"{config.max_position_embeddings} positions of shape {shape!r}; shorten --input-length"
        )
    device = loading.device()
    dtype = getattr(torch, settings.dtype or loading.default_dtype())
    ctx.emit("log", text=f"a random model of shape {shape}, {str(dtype).removeprefix('torch.')} on {device}")
    model = random_model(config, device, dtype, settings.seed)
    fit_threads(model)
    engine: Any = TorchEngine(model, max_batch=1, context=context, mixed=True)
    special = {config.pad_token_id, *eos_ids(config)}
    words = [i for i in range(config.vocab_size) if i not in special]
    text = json.dumps(config.to_dict(), sort_keys=True, default=str)
    mark = settings_hash({"config": text, "dtype": str(dtype), "seed": settings.seed})
    return Subject(engine, words, mark)


def check_room(arm: Arm, engine: Any, settings: LatencySpec) -> None:
    """Raise BadInput where the longest prompt and what follows it need more places than the model or the memory has.

    An engine whose plan is too narrow because it holds many rows is given one row instead.
    """
    longest = max(settings.lengths)
    need = places_needed(arm.method, longest, settings.new_tokens)
    positions = engine.model.config.max_position_embeddings
    if engine.plan.context < min(need, positions) and engine.max_batch > 1:
        engine.resize(max_batch=1)
    have = min(positions, engine.plan.context)
    if need > have:
        unit = "pairs" if arm.method.pairs else "tokens"
        whose = "its model has" if have == positions else "the memory leaves a row"
        raise BadInput(
            f"variant {arm.name} needs {need} places for {longest} prompt tokens and {settings.new_tokens} new ones "
            f"(it counts {unit}), {whose} {have}; shorten --input-length"
        )
