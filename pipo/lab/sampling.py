"""Samples of lab problems from an engine, batch by batch: for roll-outs and for calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from pipo.engine import TorchEngine
from pipo.engine.types import Event, Request
from pipo.jobs import JobContext
from pipo.lab.tasks import LabItem, extract_answer


class Sample(NamedTuple):
    """One sample: its text, the slots it took, and whether it ended by itself with the right answer."""

    text: str
    slots: int
    correct: bool


def sample_seed(*parts: Any) -> int:
    """A seed from any values, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def sample_items(
    engine: TorchEngine,
    tokenizer: Any,
    items: list[LabItem],
    k: int,
    max_slots: int,
    seed: int,
    ctx: JobContext,
    chunk: int = 64,
) -> Iterator[tuple[LabItem, list[Sample]]]:
    """``k`` regular samples at temperature 1 of each item, in the items' order."""  # fmt: skip
    for at in range(0, len(items), chunk):
        ctx.check()
        part = items[at : at + chunk]
        requests = [
            Request(id=f"{i}/{j}", group=str(i), prompt=tuple(tokenizer.encode(item.prompt, add_special_tokens=False)),
                    seed=sample_seed(seed, item.id, j), max_slots=max_slots)
            for i, item in enumerate(part) for j in range(k)
        ]  # fmt: skip
        events = engine.generate(requests)
        for i, item in enumerate(part):
            yield item, [_read(tokenizer, item, events[f"{i}/{j}"]) for j in range(k)]


def _read(tokenizer: Any, item: LabItem, events: list[Event]) -> Sample:
    text = tokenizer.decode([t for e in events for t in e.tokens])
    right = events[-1].finish == "eos" and extract_answer(text) == item.answer
    return Sample(text, sum(e.slots for e in events), right)
