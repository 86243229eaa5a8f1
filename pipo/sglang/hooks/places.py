"""The choice of tokens at several places of a request in one pass: settings of each place, and draws.

Settings of a place are those of regular decoding there: penalties and min_new_tokens with every token before it
counted, grammar, logit bias, temperature, top-k and top-p jointly, min-p.

Shape legend: R requests, P places, S drafts that stand before the last of them, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipo.sglang.hooks.sampling import count_tokens

TINY = 1e-38  # the smallest waiting time of ``draw``: one of zero would make a token without mass infinitely likely


def draw(p_RV: Tensor) -> Tensor:
    """A token a row, [R]; ``p`` need not sum to one. The first of V exponential clocks at rates p rings."""
    return (p_RV / torch.empty_like(p_RV).exponential_(1.0).clamp_min_(TINY)).argmax(-1)


def distribution(logits_RPV: Tensor, info: Any) -> Tensor:
    """What regular decoding samples from, [R, P, V] float32; a greedy row (top-k 1) has all mass on one token."""
    p_RPV = (logits_RPV.float() / info.temperatures[:, None]).softmax(-1)
    if not (info.need_top_k_sampling or info.need_top_p_sampling or info.need_min_p_sampling):
        return p_RPV
    top_k, top_p, min_p = (x.view(-1, 1, 1) for x in (info.top_ks, info.top_ps, info.min_ps))
    p, index = p_RPV.sort(-1, descending=True)
    rank = torch.arange(p.shape[-1], device=p.device)
    out = (rank >= top_k) | (p.cumsum(-1) - p > top_p) | (p < p[..., :1] * min_p)
    p = p.masked_fill_(out, 0)
    return torch.zeros_like(p).scatter_(-1, index, p / p.sum(-1, keepdim=True))


def settle(logits_RPV: Tensor, info: Any, drafts_RS: Tensor, grammar_mask: Any = None) -> None:
    """Penalties, grammar and logit bias in place: at place p as after the first p drafts (P places, at most S + 1)."""
    orchestrator = info.penalties
    if orchestrator is not None and orchestrator.is_required:
        with counting(orchestrator):
            for place, logits_RV in enumerate(logits_RPV.unbind(1)):
                penalise(logits_RV, orchestrator)
                if place < drafts_RS.shape[1]:
                    orchestrator.cumulate_output_tokens(drafts_RS[:, place])
    if grammar_mask is not None:
        grammar_mask.apply(logits_RPV.flatten(0, 1))
    if info.logit_bias is not None:
        logits_RPV += info.logit_bias[:, None]


def penalise(logits_RV: Tensor, orchestrator: Any) -> None:
    """Penalties as they stand now, in place, in SGLang's order: what is subtracted, then what scales."""
    orchestrator.accumulate_additive_penalties(logits_RV)
    scale_RV = orchestrator.accumulate_scaling_penalties()
    if scale_RV is not None:
        logits_RV.copy_(torch.where(logits_RV < 0, logits_RV * scale_RV, logits_RV / scale_RV))


@contextmanager
def counting(orchestrator: Any) -> Iterator[None]:
    """Tokens that are counted inside are forgotten again: drafts, of which nobody knows yet whether they stay."""
    ready = [p for p in orchestrator.penalizers.values() if p.is_prepared()]
    states = [
        (p, n, v) for p in ready for n, v in vars(p).items() if n.startswith("cumulated_") or n.startswith("len_")
    ]
    for penalizer, name, value in states:
        setattr(penalizer, name, value.clone())
    try:
        yield
    finally:
        for penalizer, name, value in states:
            setattr(penalizer, name, value)


def count_accepted(orchestrator: Any, reqs: Any, device: Any) -> None:
    """Feed the penalizers every token that came since the last time; SGLang's own count takes one a pass."""
    fresh = [list(r.output_ids[getattr(r, "counted", 0) :]) if _has_penalty(r) else [] for r in reqs]
    for r in reqs:
        r.counted = len(r.output_ids)
    for step in range(max(map(len, fresh), default=0)):
        ids = [tokens[step] if step < len(tokens) else -1 for tokens in fresh]
        ids_R = torch.tensor(ids, dtype=torch.int64, device=device)
        count_tokens(orchestrator, ids_R.clamp(min=0), ids_R >= 0)


def _has_penalty(req: Any) -> bool:
    s = req.sampling_params
    return bool(s.presence_penalty or s.frequency_penalty or s.min_new_tokens or s.repetition_penalty != 1)


def begin(orchestrator: Any, reqs: Any, device: Any) -> None:
    """Penalizers of a new batch; a request that was retracted has its earlier tokens counted again."""
    for r in reqs:
        r.counted = 0
    if orchestrator.is_required:
        count_accepted(orchestrator, reqs, device)


def agree(*chosen: Tensor) -> None:
    """Ranks of a tensor-parallel group go on with the first one's choice, as in SGLang's own verification."""
    from sglang.srt.layers.dp_attention import is_dp_attention_enabled
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    group = parallel.attn_tp_group if is_dp_attention_enabled() else parallel.tp_group
    if group.world_size > 1:
        for tensor in chosen:
            group.broadcast(tensor, src=0)
