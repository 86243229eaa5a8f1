"""Attention over the arena's rows: a few new tokens a row, and a chunk of a prompt after what is cached.

On a GPU flash-attn is used where it is installed (extra ``gpu``): it reads each row up to its own length and needs no
mask. Elsewhere torch's scaled_dot_product_attention runs over the longest row, others masked.

Shape legend: n rows, S new tokens a row, N = n*S, T places of a chunk, L places before it, G query heads a kv head,
D head size.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipo.engine.cache import Plan


@cache
def flash(device: torch.device, dtype: torch.dtype) -> Any:
    """flash-attn's function over a key cache, or None where it cannot be used."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or find_spec("flash_attn") is None:
        return None
    from flash_attn import flash_attn_with_kvcache

    return flash_attn_with_kvcache


def attend(q_NhD: Tensor, layer: int, plan: Plan, kv_heads: int) -> Tensor:
    """Queries [N, heads, D] over their rows' keys in a layer, the new ones included: [N, heads * D]. Scale 1."""
    n, S = plan.n, plan.S
    N, heads, D = q_NhD.shape
    k, v = plan.views.k[layer].narrow(2, 0, plan.length), plan.views.v[layer].narrow(2, 0, plan.length)
    if (kernel := flash(q_NhD.device, q_NhD.dtype)) is not None:
        ends = plan.ends_n.to(torch.int32)
        q = q_NhD.view(n, S, heads, D)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        out: Tensor = kernel(q, k, v, cache_seqlens=ends, softmax_scale=1.0, causal=True)
        return out.reshape(N, -1)
    G = heads // kv_heads
    if S == 1:
        q = q_NhD.reshape(n, kv_heads, G, D)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=plan.mask, scale=1.0).reshape(N, -1)
    q = q_NhD.reshape(n, S, kv_heads, G, D).transpose(1, 2).reshape(n, kv_heads, S * G, D)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=plan.mask, scale=1.0)
    return o.view(n, kv_heads, S, G, D).transpose(1, 2).reshape(N, -1)


def attend_fresh(q_nhTD: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of prompts that start at place 0, [n, heads, T, D] over [n, kv_heads, T, D]."""
    gqa = q_nhTD.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q_nhTD, k, v, is_causal=True, scale=1.0, enable_gqa=gqa)


def attend_chunk(q_hTD: Tensor, k_LD: Tensor, v_LD: Tensor, k_TD: Tensor, v_TD: Tensor) -> Tensor:
    """One row's chunk: queries [heads, T, D] over L cached places, all of them seen, and causally over its own T.

    Keys and values are [kv_heads, L or T, D]. Returns [heads, T, D].
    """
    heads, T, D = q_hTD.shape
    G = heads // len(k_TD)
    if q_hTD.device.type == "cpu":  # two passes without a mask, put together by their sums of exponentials
        over = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        q = q_hTD.reshape(1, -1, G * T, D)
        old, old_sum = over(q, k_LD[None], v_LD[None], scale=1.0)
        k, v = (t.repeat_interleave(G, 0)[None] for t in (k_TD, v_TD))
        new, new_sum = over(q_hTD[None], k, v, is_causal=True, scale=1.0)
        share = (old_sum.reshape(heads, T) - new_sum.reshape(heads, T)).sigmoid()[..., None]
        return torch.lerp(new[0], old.reshape(heads, T, D), share)
    k, v = torch.cat([k_LD, k_TD], 1), torch.cat([v_LD, v_TD], 1)
    past = torch.ones(T, k_LD.shape[1], dtype=torch.bool, device=q_hTD.device)
    seen = torch.cat([past, torch.ones(T, T, dtype=torch.bool, device=q_hTD.device).tril()], 1)
    o = F.scaled_dot_product_attention(
        q_hTD[None], k[None], v[None], attn_mask=seen, scale=1.0, enable_gqa=heads != len(k)
    )
    return o[0]
