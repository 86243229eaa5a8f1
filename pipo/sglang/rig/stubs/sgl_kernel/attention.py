"""Attention over SGLang's pool of keys and values on a CPU, batched, in plain torch.

These are the kernels of its ``intel_amx`` attention backend (``intel_amx_backend.py`` of SGLang 0.5.23), the only one
for a CPU under which it drafts. ``torch_native`` goes without them, one sequence after the other. Ask for both
``prefill_attention_backend`` and ``decode_attention_backend``: without AMX a plain ``attention_backend`` falls back.

Shape legend: n sequences, T new places of all of them, L places of the longest, Hq and Hk query and key heads, D and Dv
head sizes, P places of a request's row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import alike, chain, only


def _attend(q: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lens: Tensor, scale: float) -> Tensor:
    """Queries at the last S places of n sequences, each over the places up to its own.

    Args:
        q: [n, S, Hq, D], the last query at place ``end - 1`` of its row, where ``lens`` [n, S] is what each sees.
        keys: [slots, Hk, D], ``values`` [slots, Hk, Dv]; ``slots`` [n, at least L].

    Returns:
        [n, S, Hq, Dv].
    """
    L = int(lens.max())
    seen = torch.arange(L) < lens[:, :, None]
    slots = slots[:, :L].where(torch.arange(L) < lens.amax(1, keepdim=True), slots[:, :1]).long()
    k, v = keys[slots].transpose(1, 2), values[slots].transpose(1, 2)
    o = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.to(q.dtype), v.to(q.dtype), attn_mask=seen[:, None], scale=scale, enable_gqa=True
    )
    return o.transpose(1, 2)


def decode_attention_cpu(
    q: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    k_scale: float,
    v_scale: float,
    o: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    cache_loc: Tensor,
    attn_logits: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    scaling: float,
    logit_cap: float,
    is_cross: bool,
    window: int,
    encoder_lens: Tensor | None,
    sinks: Tensor | None,
) -> None:
    """One new place a sequence: its key and value go to ``cache_loc`` [n], the result into ``o`` [n, Hq, Dv].

    Args:
        q: [n, Hq, D]; ``k`` and ``v`` [n, Hk, ..] or None where they are in the buffers [slots, Hk, ..] already.
        req_to_token: [rows, P], slots by place; ``req_pool_indices`` [n]: rows; ``seq_lens`` [n], the new place too.
    """
    only(
        "decode_attention_cpu", k_scale=None if k_scale == v_scale == 1 else k_scale, logit_cap=logit_cap or None,
        is_cross=is_cross or None, window=window or None, encoder_lens=encoder_lens, sinks=sinks,
    )  # fmt: skip
    if k is not None:
        k_buffer[cache_loc.long()] = k.view(len(q), *k_buffer.shape[1:]).to(k_buffer.dtype)
        v_buffer[cache_loc.long()] = v.view(len(q), *v_buffer.shape[1:]).to(v_buffer.dtype)
    slots = req_to_token[req_pool_indices.long()]
    o.copy_(_attend(q[:, None], k_buffer, v_buffer, slots, seq_lens[:, None], scaling)[:, 0])


def extend_attention_cpu(
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    o: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    k_scale: float,
    v_scale: float,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    extend_seq_lens: Tensor,
    extend_start_loc: Tensor,
    max_extend_len: int,
    scaling: float,
    logit_cap: float,
    is_cross: bool,
    window: int,
    encoder_lens: Tensor | None,
    sinks: Tensor | None,
    tree_mask: Tensor | None,
    is_causal: bool,
) -> None:
    """Several new places a sequence, whose keys and values the caller has put into the buffers.

    Args:
        q: [T, Hq, D], ``o`` [T, Hq, Dv]; ``extend_start_loc`` and ``extend_seq_lens`` [n]: each sequence's part.
        seq_lens: [n], the new places too. ``req_to_token`` [rows, P] and ``req_pool_indices`` [n] as for one place.
    """
    only(
        "extend_attention_cpu", k_scale=None if k_scale == v_scale == 1 else k_scale, logit_cap=logit_cap or None,
        is_cross=is_cross or None, window=window or None, encoder_lens=encoder_lens, sinks=sinks, tree_mask=tree_mask,
        is_causal=None if is_causal else False,
    )  # fmt: skip
    new, start = extend_seq_lens.long(), extend_start_loc.long()
    for rows, longest in alike(new):
        step = torch.arange(longest).expand(len(rows), longest)
        inside = step < new[rows, None]
        place = (start[rows, None] + step).where(inside, start[rows, None])
        lens = ((seq_lens - new)[rows, None] + step + 1).minimum(seq_lens[rows, None])
        out = _attend(q[place], k_buffer, v_buffer, req_to_token[req_pool_indices[rows].long()], lens, scaling)
        o[place[inside]] = out[inside]


def build_draft_decode_metadata_cpu(
    req_to_token: Tensor, req_pool_indices: Tensor, seq_lens: Tensor, topk: int, num_steps: int, pool_len: int
) -> Tensor:
    """The rows of ``req_to_token`` [rows, P] that drafts read, [n, P]: a chain's slots follow its sequence's."""
    chain("build_draft_decode_metadata_cpu", topk)
    return req_to_token[req_pool_indices.long()]
