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

BLOCK = 512  # queries of a long prompt's chunk that share a mask


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
    G = heads // k_TD.shape[0]
    k_new, v_new = (t.repeat_interleave(G, 0)[None] for t in (k_TD, v_TD))
    if q_hTD.device.type != "cpu":
        k, v = (torch.cat([old.repeat_interleave(G, 0)[None], new], 2) for old, new in ((k_LD, k_new), (v_LD, v_new)))
        return in_blocks(q_hTD[None], k, v)[0]
    # two passes without a mask, put together by their sums of exponentials
    over = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    old, old_sum = over(q_hTD.reshape(1, -1, G * T, D), k_LD[None], v_LD[None], scale=1.0)
    new, new_sum = over(q_hTD[None], k_new, v_new, is_causal=True, scale=1.0)
    share = (old_sum.reshape(heads, T) - new_sum.reshape(heads, T)).sigmoid()[..., None]
    return torch.lerp(new[0], old.reshape(heads, T, D), share)


def in_blocks(q: Tensor, k: Tensor, v: Tensor, size: int = BLOCK) -> Tensor:
    """The last T of L + T places, causally over all before: [1, heads, T, D] over [1, heads, L + T, D].

    In blocks of queries, so that a mask over the whole past stays small.
    """
    T, past = q.shape[2], k.shape[2] - q.shape[2]
    out = []
    for start in range(0, T, size):
        end = min(T, start + size)
        places = torch.arange(past + end, device=q.device)
        seen = places <= past + torch.arange(start, end, device=q.device)[:, None]
        k_seen, v_seen = k[:, :, : past + end], v[:, :, : past + end]
        out.append(F.scaled_dot_product_attention(q[:, :, start:end], k_seen, v_seen, attn_mask=seen, scale=1.0))
    return torch.cat(out, 2)
