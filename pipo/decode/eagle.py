"""EAGLE: a chain of drafts from the MTP head, verified by one backbone pass; samples exactly as regular decoding.

Draft j+1 comes from the MTP head fed with draft j and its own last output. Verification accepts a draft x with
min(1, p(x) / q(x)) and samples from (p - q)+ where one is rejected (Leviathan et al. 2023, Chen et al. 2023). Both p
and q carry all sampling settings, penalties on the accepted prefix included; without that it is another distribution.

Shape legend: n rows, k drafts a step (depth), S = k + 1, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose, draw, greedy, residual
from pipo.engine import forward as fw
from pipo.engine.batch import Batch, Decoder
from pipo.engine.commit import Outcome
from pipo.engine.types import Draft


def first(batch: Batch) -> Iterator[list[Outcome]]:
    """The first token from the prefill, then the first draft, over the MTP cache that prefill filled."""
    token_n = batch.sample(batch.hidden, Purpose.TOKEN)
    batch.note(token_n[:, None])
    yield [Outcome((t,)) for t in token_n.tolist()]
    d_nH = fw.mtp_step(batch.w, batch.cache, batch.embed(token_n), batch.hidden, batch.last_place())
    _carry(batch, token_n, d_nH, [1] * len(batch.rows))


def step(batch: Batch) -> Iterator[list[Outcome]]:
    """k drafts, one backbone pass over k+1 tokens, up to k+1 tokens out."""
    k, n = batch.depth, len(batch.rows)
    drafts_nk, q_nkV, seen = _chain(batch, k)
    ids_nS = torch.cat([batch.carry["token"][:, None], drafts_nk], 1)
    plan = batch.cache.plan(batch.cache.lens, k + 1)
    h_NH = fw.step(batch.w, batch.cache, batch.embed(ids_nS).flatten(0, 1), plan)
    logits_NV = fw.logits(batch.w, h_NH)
    accepted_n, token_n = _verify(batch, logits_NV, drafts_nk, q_nkV, seen)

    accepted = accepted_n.tolist()
    outcomes = []
    for ids, a, t in zip(drafts_nk.tolist(), accepted, token_n.tolist(), strict=True):
        outcomes.append(Outcome((*ids[:a], t), tuple(Draft(x, j < a) for j, x in enumerate(ids))))
    yield outcomes

    batch.cache.accept([a + 1 for a in accepted])
    # what followed each of the k+1 tokens; beyond the new token the ids are leftovers, later steps overwrite them
    next_nS = torch.cat([drafts_nk, token_n[:, None]], 1).scatter_(1, accepted_n[:, None], token_n[:, None])
    beyond = torch.arange(k + 1, device=token_n.device) > accepted_n[:, None]
    batch.note(next_nS.masked_fill(beyond, batch.pad))
    d_NH = fw.mtp_step(batch.w, batch.cache, batch.embed(next_nS).flatten(0, 1), h_NH, plan)
    rows = torch.arange(n, device=token_n.device)
    _carry(batch, token_n, d_NH.unflatten(0, (n, k + 1))[rows, accepted_n], [a + 1 for a in accepted])


def _carry(batch: Batch, token_n: Tensor, d_nH: Tensor, offsets: list[int]) -> None:
    """Draw the first draft of the next chain, ``offsets`` places after the step's first, and carry it over."""
    draft_n, q_nV = _draw(batch, d_nH, batch.seen, offsets)
    if q_nV is None:  # rows that are not greedy may join
        q_nV = torch.zeros(len(token_n), batch.vocab + 1, device=token_n.device).scatter_(1, draft_n[:, None], 1.0)
        q_nV = q_nV[:, :-1]
    batch.carry = {"token": token_n, "draft": draft_n, "hidden": d_nH, "q": q_nV}


def _draw(batch: Batch, d_nH: Tensor, seen_nV: Tensor | None, offset: int | list[int]) -> tuple[Tensor, Tensor | None]:
    """A draft a row and the distribution it came from (None where all rows are greedy)."""
    logits_nV = fw.logits(batch.w, d_nH)
    if batch.settings.all_greedy:
        return greedy(batch.settings.penalised(logits_nV, seen_nV)), None
    q_nV = batch.settings.probabilities(logits_nV, seen_nV)
    return draw(q_nV, batch.uniform(Purpose.DRAFT, offset)), q_nV


def _chain(batch: Batch, k: int) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Drafts [n, k], their distributions [n, k, V], and what was seen before each of the k+1 places."""
    drafts, d_nH = [batch.carry["draft"]], batch.carry["hidden"]
    q: list[Tensor | None] = [batch.carry["q"]]
    seen = [] if batch.seen is None else [batch.seen]
    for j in range(1, k + 1):
        if seen:
            seen.append(seen[-1].scatter(1, drafts[-1].clamp(max=batch.vocab - 1)[:, None], 1.0))
        if j == k:
            break
        plan = batch.cache.plan([length - 1 + j for length in batch.cache.lens], 1)
        d_nH = fw.mtp_step(batch.w, batch.cache, batch.embed(drafts[-1]), d_nH, plan)
        draft_n, q_nV = _draw(batch, d_nH, seen[-1] if seen else None, j)
        drafts.append(draft_n)
        q.append(q_nV)
    q_nkV = None if batch.settings.all_greedy else torch.stack([x for x in q if x is not None], 1)
    return torch.stack(drafts, 1), q_nkV, seen


def _verify(
    batch: Batch, logits_NV: Tensor, drafts_nk: Tensor, q_nkV: Tensor | None, seen: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """How many drafts each row accepts, [n], and the token that follows them, [n]."""
    n, k = drafts_nk.shape
    settings = batch.settings.repeated(k + 1)
    seen_NV = torch.stack(seen, 1).flatten(0, 1) if seen else None
    rows = torch.arange(n, device=drafts_nk.device)
    if q_nkV is None:
        best_nS = greedy(settings.penalised(logits_NV, seen_NV)).view(n, k + 1)
        accepted_n = (best_nS[:, :k] == drafts_nk).long().cumprod(1).sum(1)
        return accepted_n, best_nS[rows, accepted_n]
    p_nSV = settings.probabilities(logits_NV, seen_NV).view(n, k + 1, -1)
    at = drafts_nk.clamp(max=batch.vocab - 1)[:, :, None]
    u_nk = torch.stack([batch.uniform(Purpose.ACCEPT, j) for j in range(k)], 1)
    ok_nk = u_nk * q_nkV.gather(2, at).squeeze(2) < p_nSV[:, :k].gather(2, at).squeeze(2)
    accepted_n = ok_nk.long().cumprod(1).sum(1)
    q_nSV = torch.cat([q_nkV, torch.zeros_like(q_nkV[:, :1])], 1)  # past the last draft nothing was proposed
    rest_nV = residual(p_nSV[rows, accepted_n], q_nSV[rows, accepted_n])
    u_nS = torch.stack([batch.uniform(Purpose.TOKEN, j) for j in range(k + 1)], 1)
    return accepted_n, draw(rest_nV, u_nS[rows, accepted_n])


DECODER = Decoder(first, step, pairs=False, mtp=True)
