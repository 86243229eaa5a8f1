"""MTP decoding without verification: two tokens a step, the second from the MTP head and always kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipo.decode.regular import tell as tell_token
from pipo.decode.regular import token
from pipo.engine import forward as fw
from pipo.engine.commit import Outcome
from pipo.engine.frame import Decoder, Drawn, Frame, Read
from pipo.engine.types import Draft


def first(f: Frame, hidden_nH: Tensor) -> Iterator[Drawn]:
    """The first token from the prefill, then its draft, over the MTP cache that prefill filled."""
    drawn = token(f, hidden_nH)
    yield Drawn({}, drawn.ids, tell_token, scored=drawn.scored)
    token_n = drawn.carry["token"]
    d_nH = fw.mtp_step(f.w, f.arena, f.embed(token_n), hidden_nH, f.last_place())
    draft_n, carry, scored = _draft(f, token_n, d_nH)
    yield Drawn(carry, draft_n[:, None], _tell_draft, scored=scored)


def step(f: Frame) -> Drawn:
    """One backbone pass and one MTP pass over the last two tokens, two tokens."""
    last_n2 = f.carry["tokens"]
    h_NH, plan = f.backbone(f.embed(last_n2).flatten(0, 1), S=2)
    drawn = token(f, h_NH.unflatten(0, (-1, 2))[:, 1])
    token_n = drawn.carry["token"]
    next_n2 = torch.stack([last_n2[:, 1], token_n], 1)
    d_NH = fw.mtp_step(f.w, f.arena, f.embed(next_n2).flatten(0, 1), h_NH, plan)
    _, carry, scored = _draft(f, token_n, d_NH.unflatten(0, (-1, 2))[:, 1])
    return Drawn(carry, carry["tokens"], _tell_both, scored=drawn.scored + scored)


def _draft(f: Frame, token_n: Tensor, d_nH: Tensor) -> tuple[Tensor, dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """Draw the drafts [n]; both tokens are carried to the next step."""
    draft_n, logits, index_n = f.draft(d_nH, 1)
    f.note(draft_n)
    return draft_n, {"tokens": torch.stack([token_n, draft_n], 1)}, [(logits, index_n)]


def _tell_draft(read: Read) -> list[Outcome]:
    return [Outcome((t,), (Draft(t, True),), logprobs=read.logprob(i, 0, 1)) for i, (t,) in enumerate(read.ids)]


def _tell_both(read: Read) -> list[Outcome]:
    return [
        Outcome((a, b), (Draft(b, True),), draft_from=1, logprobs=read.logprob(i, 0, 2))
        for i, (a, b) in enumerate(read.ids)
    ]


DECODER = Decoder(first, step, pairs=False, mtp=True)
