"""EAGLE and unverified MTP inside SGLang's NEXTN, over the native MTP head of a regular model.

SGLang drafts, keeps the caches and takes rejected places back. What it does not do is verify without loss: its
verification gives all places of a pass the penalties of the first one and counts a pass's last token only, filters
top-k and top-p one after the other, knows no min-p, and takes the likeliest token on a CPU whatever the temperature.
So the choice of tokens is ours, for chains of drafts (topk 1) under the schedule without overlap. Settings of a place
are those of regular decoding: penalties and min_new_tokens with every token before it counted, grammar, logit bias,
temperature, top-k and top-p jointly, min-p.

On a hybrid SGLang's prefix cache knows single tokens, not pairs of neighbours, so a hit may bring an MTP row that was
written before another token: drafts are a little worse then, what comes out is the same.

Everything here is dormant unless a server was started with the model override ``pipo_method`` of eagle or mtp.

Shape legend: R requests, D places of a pass (the last known token, then S = D - 1 drafts), N = R * D, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipo.sglang.hooks import mtp
from pipo.sglang.hooks.places import agree, distribution, draw, settle
from pipo.sglang.hooks.scheduler import speculative


def sample(
    original: Any,
    verify_input: Any,
    batch: Any,
    logits_output: Any,
    grammar_mask: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Tokens of a verify pass: ids [N] int32, how many of each request's places count [R], and which [R, depth]."""
    method, info = speculative(), batch.sampling_info
    if method is None or batch.forward_mode.is_idle() or info.has_watermark_candidates:
        return original(verify_input, batch, logits_output, grammar_mask, *args, **kwargs)
    from sglang.srt.utils.async_probe import sanitize_nan_logits

    logits_NV = logits_output.next_token_logits
    sanitize_nan_logits(logits_NV, "verify: target model logits")
    drafts_RS = verify_input.draft_token.view(-1, verify_input.draft_token_num)[:, 1:].long()
    R, D = len(drafts_RS), verify_input.draft_token_num
    if method == "mtp":
        ids_RD, kept_R = mtp.keep_all(logits_NV.view(R, D, -1), drafts_RS, verify_input.draft_probs, info)
    else:
        settle(logits_NV.view(R, D, -1), info, drafts_RS, grammar_mask)
        ids_RD, kept_R = verify(logits_NV.view(R, D, -1), drafts_RS, verify_input.draft_probs, info)
    agree(ids_RD, kept_R)
    rows_RD = torch.arange(R * D, device=ids_RD.device).view(R, D)
    index_RD = torch.where(torch.arange(D, device=ids_RD.device) <= kept_R[:, None], rows_RD, -1)
    index = index_RD[:, : verify_input.max_tree_depth].int().contiguous()
    return ids_RD.flatten().int(), kept_R.int() + 1, index


def verify(logits_RDV: Tensor, drafts_RS: Tensor, q_RSV: Tensor | None, info: Any) -> tuple[Tensor, Tensor]:
    """What stands after each place, [R, D], and how many drafts are kept, [R]; logits with all penalties in them."""
    if info.is_all_greedy:
        best_RD = logits_RDV.argmax(-1)
        kept_R = (best_RD[:, :-1] == drafts_RS).long().cumprod(1).sum(1)
        return best_RD, kept_R
    p_RDV = distribution(logits_RDV, info)
    kept_R, rest_RV = accept(p_RDV, drafts_RS, q_RSV, torch.rand(drafts_RS.shape, device=drafts_RS.device))
    ids_RD = torch.cat([drafts_RS, drafts_RS[:, :1]], 1).scatter(1, kept_R[:, None], draw(rest_RV)[:, None])
    return ids_RD, kept_R


def accept(p_RDV: Tensor, drafts_RS: Tensor, q_RSV: Tensor | None, u_RS: Tensor) -> tuple[Tensor, Tensor]:
    """How many drafts are kept, [R], and the distribution of the token after them, [R, V] (its sum is free).

    The rule of Leviathan et al. 2023 and Chen et al. 2023: a draft x from q is kept with min(1, p(x) / q(x)), and where
    one is rejected the token comes from (p - q)+. ``q_RSV`` None: drafts were the only ones possible.
    """
    R, S = drafts_RS.shape
    at = drafts_RS[:, :, None]
    if q_RSV is None:
        q_RSV = torch.zeros_like(p_RDV[:, 1:]).scatter_(2, at, 1.0)
    p_RS, q_RS = p_RDV[:, :S].gather(2, at).squeeze(2), q_RSV.gather(2, at).squeeze(2)
    kept_R = (u_RS * q_RS < p_RS).long().cumprod(1).sum(1)
    rows = torch.arange(R, device=kept_R.device)
    p_RV, q_RV = p_RDV[rows, kept_R], q_RSV[rows, kept_R.clamp(max=S - 1)] * (kept_R < S)[:, None]
    rest_RV = (p_RV - q_RV).clamp_(min=0)
    return kept_R, torch.where(rest_RV.sum(-1, keepdim=True) > 0, rest_RV, p_RV)  # p where rounding left nothing
