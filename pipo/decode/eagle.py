"""EAGLE: a chain of drafts from the MTP head, verified by one backbone pass; samples exactly as regular decoding.

Draft j+1 comes from the MTP head fed with draft j and its own last output. Verification accepts a draft x with
min(1, p(x) / q(x)) and samples from (p - q)+ where one is rejected (Leviathan et al. 2023, Chen et al. 2023). Both p
and q carry all sampling settings, penalties on the accepted prefix included; without that it is another distribution.
q may live on a smaller draft vocabulary: p is whole, so nothing is lost but acceptance.

A step starts where the last one ended: the MTP head first reads the tokens that were accepted then.

Shape legend: n rows, k drafts a step (depth), S = k + 1, H hidden, V vocabulary, M outputs of the draft head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pipo.decode.regular import tell as tell_token
from pipo.decode.regular import token
from pipo.decode.sampling import Purpose, draw, greedy, residual
from pipo.engine import forward as fw
from pipo.engine.commit import Outcome
from pipo.engine.frame import Decoder, Drawn, Frame, Read
from pipo.engine.types import Draft


class Chain(NamedTuple):
    """Drafts and where they came from: ids [n, k], indices in the draft head's outputs [n, k], distributions [n, k, M]
    (None where all rows are greedy), and the counts before each of the S places (empty without penalties)."""

    ids_nk: Tensor
    index_nk: Tensor
    q_nkM: Tensor | None
    counts: list[Tensor]


def first(f: Frame, hidden_nH: Tensor) -> Iterator[Drawn]:
    """The first token from the prefill."""
    drawn = token(f, hidden_nH)
    n, S = len(f.pos), f.depth + 1
    hidden_nSH = hidden_nH.new_zeros(n, S, hidden_nH.shape[1])
    hidden_nSH[:, 0] = hidden_nH
    next_nS = drawn.ids.repeat(1, S)  # one is new, the others are overwritten before they are read
    carry = {"hidden": hidden_nSH, "next": next_nS, "count": torch.ones_like(f.pos)}
    yield Drawn(carry, drawn.ids, tell_token, scored=drawn.scored)


def step(f: Frame) -> Drawn:
    """k drafts, one backbone pass over k+1 tokens, up to k+1 tokens out."""
    k, n = f.depth, len(f.pos)
    chain = _chain(f, k)
    newest_n1 = f.carry["next"].gather(1, f.carry["count"][:, None] - 1)
    plan = f.plan(f.pos, k + 1, f.length + k + 1)
    h_NH = fw.step(f.w, f.arena, f.embed(torch.cat([newest_n1, chain.ids_nk], 1)).flatten(0, 1), plan)
    logits_NV = fw.logits(f.w, h_NH)
    accepted_n, token_n = _verify(f, logits_NV, chain)
    f.arena.accept(f.first, accepted_n + 1)

    # what followed each of the k+1 tokens; beyond the new token the ids are leftovers, later steps overwrite them
    next_nS = torch.cat([chain.ids_nk, token_n[:, None]], 1).scatter_(1, accepted_n[:, None], token_n[:, None])
    if f.counts is not None:
        here = torch.arange(k + 1, device=token_n.device) <= accepted_n[:, None]
        f.counts.scatter_add_(1, next_nS.clamp(max=f.vocab - 1), here.float())
    scored = [(logits_NV.view(n, k + 1, -1)[:, j], next_nS[:, j]) for j in range(k + 1)]
    carry = {"hidden": h_NH.view(n, k + 1, -1), "next": next_nS, "count": accepted_n + 1}
    ids = torch.cat([chain.ids_nk, token_n[:, None], accepted_n[:, None]], 1)
    return Drawn(carry, ids, _tell, scored=scored)


def _tell(read: Read) -> list[Outcome]:
    outcomes = []
    for i, (*drafts, t, accepted) in enumerate(read.ids):
        offered = tuple([Draft(x, j < accepted) for j, x in enumerate(drafts)])
        outcomes.append(Outcome((*drafts[:accepted], t), offered, logprobs=read.logprob(i, 0, accepted + 1)))
    return outcomes


def _chain(f: Frame, k: int) -> Chain:
    """Draft k tokens a row, the first from an MTP pass over what the last step accepted."""
    count_n, next_nS = f.carry["count"], f.carry["next"]
    n, S = next_nS.shape
    plan = f.plan(f.pos - count_n, S, f.length - 1 + S)
    d_NH = fw.mtp_step(f.w, f.arena, f.embed(next_nS).flatten(0, 1), f.carry["hidden"].flatten(0, 1), plan)
    d_nH = d_NH.view(n, S, -1)[torch.arange(n, device=count_n.device), count_n - 1]
    everything, counts = f.counts, [] if f.counts is None else [f.counts]
    ids: list[Tensor] = []
    index: list[Tensor] = []
    q: list[Tensor | None] = []
    for j in range(k):
        if j:
            d_nH = fw.mtp_step(f.w, f.arena, f.embed(ids[-1]), d_nH, f.plan(f.pos - 1 + j, 1, f.length + j))
        x_n, at_n, q_nM = _draft(f, d_nH, j)
        ids.append(x_n)
        index.append(at_n)
        q.append(q_nM)
        if everything is not None:
            seen = counts[-1].clone()
            f.counts = seen
            f.note(x_n)
            counts.append(seen)
    f.counts = everything
    q_nkM = None if f.settings.all_greedy else torch.stack([x for x in q if x is not None], 1)
    return Chain(torch.stack(ids, 1), torch.stack(index, 1), q_nkM, counts)


def _draft(f: Frame, d_nH: Tensor, j: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A draft a row, its index in the draft head's outputs, and the distribution it came from (None: all greedy)."""
    logits, ids = fw.draft_logits(f.w, d_nH), f.w.mtp.ids
    counts = f.counts if ids is None or f.counts is None else f.counts[:, ids[:-1]]
    q_nM = None
    if f.settings.all_greedy:
        index_n = greedy(f.settings.penalised(logits, counts))
    else:
        q_nM = f.settings.probabilities(logits, counts)
        index_n = draw(q_nM, f.uniform(Purpose.DRAFT, j))
    return (index_n if ids is None else ids[index_n]), index_n, q_nM


def _verify(f: Frame, logits_NV: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
    """How many drafts each row accepts, [n], and the token that follows them, [n]."""
    n, k = chain.ids_nk.shape
    settings = f.settings.repeated(k + 1)
    counts_NV = torch.stack(chain.counts, 1).flatten(0, 1) if chain.counts else None
    rows = torch.arange(n, device=logits_NV.device)
    if chain.q_nkM is None:
        best_nS = greedy(settings.penalised(logits_NV, counts_NV)).view(n, k + 1)
        accepted_n = (best_nS[:, :k] == chain.ids_nk).long().cumprod(1).sum(1)
        return accepted_n, best_nS[rows, accepted_n]
    p_nSV = settings.probabilities(logits_NV, counts_NV).view(n, k + 1, -1)
    p_nk = p_nSV[:, :k].gather(2, chain.ids_nk.clamp(max=f.vocab - 1)[:, :, None]).squeeze(2)
    M = chain.q_nkM.shape[2]
    q_nk = chain.q_nkM.gather(2, chain.index_nk.clamp(max=M - 1)[:, :, None]).squeeze(2)
    accepted_n = (f.u[:, :k, Purpose.ACCEPT] * q_nk < p_nk).long().cumprod(1).sum(1)
    rest_nV = residual(p_nSV[rows, accepted_n], _proposed(f, chain.q_nkM, accepted_n))
    return accepted_n, draw(rest_nV, f.u[rows, accepted_n, Purpose.TOKEN])


def _proposed(f: Frame, q_nkM: Tensor, accepted_n: Tensor) -> Tensor:
    """What was proposed at the place after the accepted drafts, over the whole vocabulary; nothing after the last."""
    n, k, M = q_nkM.shape
    rows = torch.arange(n, device=accepted_n.device)
    q_nM = q_nkM[rows, accepted_n.clamp(max=k - 1)] * (accepted_n < k)[:, None]
    if f.w.mtp.ids is None:
        return q_nM
    ids = f.w.mtp.ids[:-1].expand(n, M)
    return q_nM.new_zeros(n, f.vocab).scatter_(1, ids, q_nM)


DECODER = Decoder(first, step, pairs=False, mtp=True)
