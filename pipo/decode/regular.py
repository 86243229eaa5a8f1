"""Regular decoding: one token a step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pipo.decode.sampling import Purpose
from pipo.engine.batch import Batch, Decoder
from pipo.engine.commit import Outcome


def token(batch: Batch, h_nH: Tensor) -> list[Outcome]:
    """Draw the next token of each row from the backbone's hiddens and carry it to the next step."""
    ids = batch.sample(h_nH, Purpose.TOKEN)
    batch.note(ids[:, None])
    batch.carry = {"token": ids}
    return [Outcome((t,)) for t in ids.tolist()]


def first(batch: Batch) -> Iterator[list[Outcome]]:
    """The first token, right from the prefill."""
    yield token(batch, batch.hidden)


def step(batch: Batch) -> Iterator[list[Outcome]]:
    """One backbone pass, one token."""
    h_nH, _ = batch.backbone(batch.embed(batch.carry["token"]))
    yield token(batch, h_nH)


DECODER = Decoder(first, step, pairs=False, mtp=False)
