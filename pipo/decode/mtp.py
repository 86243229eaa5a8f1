"""MTP decoding without verification: two tokens a step, the second from the MTP head and always kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose
from pipo.engine import forward as fw
from pipo.engine.batch import Batch, Decoder
from pipo.engine.commit import Outcome
from pipo.engine.types import Draft


def first(batch: Batch) -> Iterator[list[Outcome]]:
    """The first token from the prefill, then its draft, over the MTP cache that prefill filled."""
    token_n = batch.sample(batch.hidden, Purpose.TOKEN)
    batch.note(token_n[:, None])
    yield [Outcome((t,)) for t in token_n.tolist()]
    d_nH = fw.mtp_step(batch.w, batch.cache, batch.embed(token_n), batch.hidden, batch.last_place())
    draft_n = _draft(batch, token_n, d_nH)
    yield [Outcome((t,), (Draft(t, True),)) for t in draft_n.tolist()]


def step(batch: Batch) -> Iterator[list[Outcome]]:
    """One backbone pass and one MTP pass over the last two tokens, two tokens."""
    last_n2 = batch.carry["tokens"]
    h_NH, plan = batch.backbone(batch.embed(last_n2).flatten(0, 1), S=2)
    h_n2H = h_NH.unflatten(0, (-1, 2))
    token_n = batch.sample(h_n2H[:, 1], Purpose.TOKEN)
    batch.note(token_n[:, None])
    next_n2 = torch.stack([last_n2[:, 1], token_n], 1)
    d_NH = fw.mtp_step(batch.w, batch.cache, batch.embed(next_n2).flatten(0, 1), h_NH, plan)
    draft_n = _draft(batch, token_n, d_NH.unflatten(0, (-1, 2))[:, 1])
    yield [
        Outcome((a, b), (Draft(b, True),), draft_from=1)
        for a, b in zip(token_n.tolist(), draft_n.tolist(), strict=True)
    ]


def _draft(batch: Batch, token_n: Tensor, d_nH: Tensor) -> Tensor:
    """Draw the drafts [n] and carry both tokens to the next step."""
    draft_n = batch.sample(d_nH, Purpose.DRAFT, 1)
    batch.note(draft_n[:, None])
    batch.carry = {"tokens": torch.stack([token_n, draft_n], 1)}
    return draft_n


DECODER = Decoder(first, step, pairs=False, mtp=True)
