"""What a smaller draft head gains: section ``draft_head`` of engine_speed.

The lm_head is read once for the backbone's token and once for each draft. Over a draft vocabulary the second read is
short. Steps of eagle and pipo on one random model, with the whole head and with a small one, in turns; beside the
ratio of the steps stands that of their floors. What it costs in kept share is another question (docs/LOG.md).
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

from bench import machine, roofline
from bench.shapes import random_model, shape_config
from bench.speed_floors import MOST_TOKENS, SKIPPED, turn
from pipo.engine import TorchEngine
from pipo.engine.types import Method
from pipo.model.draft_vocab import eos_ids

METHODS = (Method("eagle", depth=3), Method("pipo", threshold=0.0))


def draft_head(
    shape: str = "158m", vocabs: tuple[int, ...] = (8192, 65536), *, share: int = 8, batches: tuple[int, ...] = (1, 8),
    context: int = 512, rounds: int = 5, steps: int = 6,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of shape, vocabulary, batch and method: step ms with the whole head and with a ``share``-th of it."""
    rates, found = machine.measure("cpu", torch.float32), []
    for vocab in vocabs:
        config = shape_config(shape)
        config.vocab_size = vocab
        model, size = random_model(config, "cpu", torch.float32), vocab // share
        room = context + MOST_TOKENS * (steps + SKIPPED + 4)
        engines: dict[int | None, TorchEngine] = {}
        engines[None] = TorchEngine(model, max_batch=max(batches), context=room, mixed=True)
        eos = eos_ids(config)
        ids = [i for i in range(vocab) if i not in (config.pad_token_id, *eos)][: size - len(eos)]
        model.set_draft_vocab(torch.tensor(sorted(ids + eos)))
        engines[size] = TorchEngine(model, max_batch=max(batches), context=room, mixed=True)
        shapes = roofline.shapes_of(model)
        for batch in batches:
            times: dict[Any, list[float]] = {}
            for number in range(rounds + 1):
                for method in METHODS:
                    for n, engine in engines.items():
                        seconds = turn(engine, method, batch, context, steps, count=False).seconds
                        if number:
                            times.setdefault((method.name, n), []).append(statistics.median(seconds))
            for m in METHODS:
                whole, small = times[m.name, None], times[m.name, size]
                floor = [
                    roofline.floor_step(rates, shapes, m, context, rows=batch, prompt=context, draft_vocab=n).seconds
                    for n in (None, size)
                ]
                found.append(
                    {
                        "shape": shape, "vocabulary": vocab, "draft_vocabulary": size, "batch": batch, "method": m.name,
                        "whole_ms": round(1e3 * statistics.median(whole), 3),
                        "small_ms": round(1e3 * statistics.median(small), 3),
                        "gain": round(statistics.median(a / b for a, b in zip(whole, small)), 3),
                        "floor_gain": round(floor[0] / floor[1], 3),
                    }
                )  # fmt: skip
    return found
