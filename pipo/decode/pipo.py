"""PIPO: a pair a step. The MTP head drafts the second token, the confidence gate keeps it or puts PAD there.

The gate compares in float32; threshold 0 keeps every draft and 1 none, whatever the sigmoid rounds to. A rejected
draft's id and confidence stay in the event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose
from pipo.engine import forward as fw
from pipo.engine.batch import Batch, Decoder
from pipo.engine.cache import Plan
from pipo.engine.commit import Outcome
from pipo.engine.types import Draft

# (batch, hiddens [n, H], draft hiddens [n, H]) -> kept [n] bool, confidence [n] or None
Gate = Callable[[Batch, Tensor, Tensor], tuple[Tensor, Tensor | None]]


def confident(batch: Batch, h_nH: Tensor, d_nH: Tensor) -> tuple[Tensor, Tensor | None]:
    """Keep where the confidence reaches the row's threshold."""
    c_n = fw.confidence(batch.w, h_nH, d_nH)
    return c_n >= batch.threshold, c_n


def pair(batch: Batch, h_nH: Tensor, first_n: Tensor, plan: Plan, gate: Gate) -> list[Outcome]:
    """Draft and gate the second token of the pair whose first is ``first`` [n]; carry the pair to the next step."""
    batch.note(first_n[:, None])
    d_nH = fw.mtp_step(batch.w, batch.cache, batch.embed(first_n), h_nH, plan)
    draft_n = batch.sample(d_nH, Purpose.DRAFT, 1)
    kept_n, c_n = gate(batch, h_nH, d_nH)
    second_n = torch.where(kept_n, draft_n, batch.pad)
    batch.note(second_n[:, None])
    batch.carry = {"pair": torch.stack([first_n, second_n], 1)}
    firsts, drafts, keeps = torch.stack([first_n, draft_n, kept_n.long()]).tolist()
    confidences = [None] * len(firsts) if c_n is None else c_n.tolist()
    return [
        Outcome((a, b) if keep else (a,), (Draft(b, bool(keep), c),), pair=True)
        for a, b, keep, c in zip(firsts, drafts, keeps, confidences, strict=True)
    ]


def first_pair(batch: Batch, gate: Gate) -> Iterator[list[Outcome]]:
    """The first token from the prefill, announced at once; then its draft, over the MTP cache that prefill filled."""
    first_n = batch.sample(batch.hidden, Purpose.TOKEN)
    yield [Outcome((t,), announce=True) for t in first_n.tolist()]
    yield pair(batch, batch.hidden, first_n, batch.last_place(), gate)


def next_pair(batch: Batch, gate: Gate) -> Iterator[list[Outcome]]:
    """One backbone pass over the last pair, one MTP pass, one pair."""
    assert batch.w.compressor is not None
    z_nH = batch.w.compressor(batch.embed(batch.carry["pair"])).squeeze(1)
    h_nH, plan = batch.backbone(z_nH)
    yield pair(batch, h_nH, batch.sample(h_nH, Purpose.TOKEN), plan, gate)


def first(batch: Batch) -> Iterator[list[Outcome]]:
    """The first pair."""
    return first_pair(batch, confident)


def step(batch: Batch) -> Iterator[list[Outcome]]:
    """The next pair."""
    return next_pair(batch, confident)


DECODER = Decoder(first, step, pairs=True, mtp=True)
