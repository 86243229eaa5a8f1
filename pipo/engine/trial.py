"""For timing only: requests that start as if their prompts had been prefilled."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pipo.engine.admission import key_of
from pipo.engine.torch_engine import TorchEngine
from pipo.engine.types import Event, Request
from pipo.errors import BadInput


@torch.inference_mode()
def start_at(engine: TorchEngine, requests: Iterable[Request], places: int) -> list[Event]:
    """Start requests as if so many backbone places of their prompts had been prefilled.

    The caches hold noise, so the tokens mean nothing. BadInput where there are not enough free rows or places.
    """
    events: list[Event] = []
    for request in requests:
        if engine._free() < 1 or places >= engine.plan.context:
            raise BadInput(
                f"{places} places do not fit: the plan has {engine._free()} free rows of {engine.plan.context} places"
            )
        engine.submit(request)
        progress = engine._waiting.pop()
        hidden = torch.randn(1, engine.weights.embed.shape[1], device=engine.weights.device).to(engine.weights.embed)
        row = engine._rows.room(key_of(request), 1)
        engine.arena.noise(row, places)
        events += engine._start([progress], row, hidden)
    engine._retire(events)
    return events
