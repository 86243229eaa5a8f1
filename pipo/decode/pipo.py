"""PIPO: a pair a step. The MTP head drafts the second token, the confidence gate keeps it or puts PAD there.

The gate compares in float32; threshold 0 keeps every draft and 1 none, whatever the sigmoid rounds to. A rejected
draft's id and confidence stay in the event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pipo.decode.regular import token
from pipo.engine import forward as fw
from pipo.engine.cache import Plan
from pipo.engine.commit import Outcome
from pipo.engine.frame import Decoder, Drawn, Frame, Read
from pipo.engine.types import Draft, Logprob

# (frame, hiddens [n, H], draft hiddens [n, H]) -> kept [n] bool, confidence [n] or None
Gate = Callable[[Frame, Tensor, Tensor], tuple[Tensor, Tensor | None]]


def confident(f: Frame, h_nH: Tensor, d_nH: Tensor) -> tuple[Tensor, Tensor | None]:
    """Keep where the confidence reaches the row's threshold."""
    c_n = fw.confidence(f.w, h_nH, d_nH)
    return c_n >= f.threshold, c_n


def second(f: Frame, h_nH: Tensor, first: Drawn, plan: Plan, gate: Gate) -> Drawn:
    """Draft and gate the second token of the pair whose first was drawn; carry the pair to the next step."""
    first_n = first.carry["token"]
    d_nH = fw.mtp_step(f.w, f.arena, f.embed(first_n), h_nH, plan)
    draft_n, logits, index_n = f.draft(d_nH, 1)
    kept_n, c_n = gate(f, h_nH, d_nH)
    second_n = torch.where(kept_n, draft_n, f.pad)
    f.note(second_n)
    ids = torch.stack([first_n, draft_n, kept_n.long()], 1)
    carry = {"pair": torch.stack([first_n, second_n], 1)}
    return Drawn(carry, ids, _tell_pair, confidence=c_n, scored=[*first.scored, (logits, index_n)])


def _tell_first(read: Read) -> list[Outcome]:
    return [Outcome((t,), announce=True, logprobs=read.logprob(i, 0, 1)) for i, (t,) in enumerate(read.ids)]


def _tell_pair(read: Read) -> list[Outcome]:
    out = []
    for i, (a, b, kept) in enumerate(read.ids):
        c = None if read.confidence is None else read.confidence[i]
        scores: tuple[Logprob, ...] = read.logprob(i, 0, 2)
        draft = Draft(b, bool(kept), c, scores[1].logprob if scores else None)
        out.append(Outcome((a, b) if kept else (a,), (draft,), pair=True, logprobs=scores))
    return out


def first_pair(f: Frame, hidden_nH: Tensor, gate: Gate) -> Iterator[Drawn]:
    """The first token from the prefill, announced at once; then its draft, over the MTP cache that prefill filled."""
    drawn = token(f, hidden_nH)
    yield Drawn({}, drawn.ids, _tell_first, scored=drawn.scored)
    yield second(f, hidden_nH, drawn, f.last_place(), gate)


def next_pair(f: Frame, gate: Gate) -> Drawn:
    """One backbone pass over the last pair, one MTP pass, one pair."""
    h_nH, plan = f.backbone(fw.fold(f.w, f.carry["pair"]).squeeze(1))
    return second(f, h_nH, token(f, h_nH), plan, gate)


def first(f: Frame, hidden_nH: Tensor) -> Iterator[Drawn]:
    """The first pair."""
    return first_pair(f, hidden_nH, confident)


def step(f: Frame) -> Drawn:
    """The next pair."""
    return next_pair(f, confident)


DECODER = Decoder(first, step, pairs=True, mtp=True)
