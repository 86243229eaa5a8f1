"""Bookkeeping of speculative decoding on a CPU, for chains of drafts (topk 1): slots, chains and greedy verification.

Signatures are those of the calls in SGLang 0.5.23 (``sglang/kernels/ops/speculative``). Results go into the arguments
that those call sites mark as mutable.

Shape legend: n requests, M places a request to verify (the last token and M-1 drafts), P places of a request's row.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from .common import chain


def _spans(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and places of the spans [start, end) of n requests, one behind the other."""
    lens = end.long() - start.long()
    rows = torch.arange(len(lens)).repeat_interleave(lens)
    return rows, torch.arange(len(rows)) + (end.long() - lens.cumsum(0))[rows]


def assign_req_to_token_pool_cpu(
    req_pool_indices: Tensor, req_to_token: Tensor, start: Tensor, end: Tensor, out_cache_loc: Tensor, pool_len: int
) -> None:
    """Write slots, request by request, into places [start, end) of rows of ``req_to_token`` [rows, P]."""
    rows, places = _spans(start, end)
    req_to_token[req_pool_indices.long()[rows], places] = out_cache_loc[: len(rows)].to(req_to_token.dtype)


def assign_extend_cache_locs_cpu(
    req_pool_indices: Tensor, req_to_token: Tensor, start: Tensor, end: Tensor, out_cache_loc: Tensor, pool_len: int
) -> None:
    """Read the slots of places [start, end) of rows of ``req_to_token`` [rows, P] into ``out_cache_loc``."""
    rows, places = _spans(start, end)
    out_cache_loc[: len(rows)] = req_to_token[req_pool_indices.long()[rows], places].to(out_cache_loc.dtype)


def assign_draft_cache_locs_contiguous_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    seq_lens: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
    topk: int,
    num_steps: int,
) -> None:
    """Read the ``topk * num_steps`` slots that follow each request's length into ``out_cache_loc``."""
    places = seq_lens.long()[:, None] + torch.arange(topk * num_steps)
    slots = req_to_token[req_pool_indices.long()[:, None], places].flatten()
    out_cache_loc[: len(slots)] = slots.to(out_cache_loc.dtype)


def copy_all_layer_kv_cache_cpu(data_ptrs: Tensor, strides: Tensor, tgt_loc: Tensor, src_loc: Tensor) -> None:
    """Copy slots ``src_loc`` to ``tgt_loc`` in every buffer of keys and values, given as addresses and bytes a slot."""
    if not len(src_loc):
        return
    slots = 1 + int(torch.cat([tgt_loc, src_loc]).max())
    for address, stride in zip(data_ptrs.tolist(), strides.tolist(), strict=True):
        raw = (ctypes.c_uint8 * (slots * stride)).from_address(address)
        buffer = torch.frombuffer(raw, dtype=torch.uint8).view(slots, stride)
        buffer[tgt_loc.long()] = buffer[src_loc.long()]  # read before it is written: the two may overlap


def fill_bonus_tokens_cpu(accept_tokens: Tensor, accept_lens: Tensor, bonus_tokens: Tensor, accept_stride: int) -> None:
    """The last accepted token of each request; ``accept_tokens`` [n * accept_stride], ``accept_lens`` [n]."""
    last = torch.arange(len(accept_lens)) * accept_stride + accept_lens.long() - 1
    bonus_tokens[: len(last)] = accept_tokens.flatten()[last].to(bonus_tokens.dtype)


def fill_accept_out_cache_loc_cpu(accept_index: Tensor, out_cache_loc: Tensor, accept_out_cache_loc: Tensor) -> None:
    """The slots of the accepted places one behind the other; -1 in ``accept_index`` is none."""
    slots = out_cache_loc[accept_index[accept_index > -1].long()]
    accept_out_cache_loc[: len(slots)] = slots.to(accept_out_cache_loc.dtype)


def build_tree_kernel_efficient_cpu(
    parent_list: Tensor,
    selected_index: Tensor,
    seq_lens: Tensor,
    tree_mask: Tensor,
    positions: Tensor,
    retrieve_index: Tensor,
    retrieve_next_token: Tensor,
    retrieve_next_sibling: Tensor,
    topk: int,
    depth: int,
    draft_token_num: int,
    tree_mask_mode: Any,
) -> None:
    """The tree of a chain: each draft's parent is the one before it.

    Fills ``positions`` [n*M], ``retrieve_*`` [n, M] and the square of the drafts in ``tree_mask``: mode 0 has n blocks
    [M, length + M], whose part before the drafts stays as it is, mode 1 n blocks [M, M].
    """
    chain("build_tree_kernel_efficient_cpu", topk)
    n, M, mode = len(seq_lens), draft_token_num, int(tree_mask_mode)
    if mode not in (0, 1):
        raise NotImplementedError(f"build_tree_kernel_efficient_cpu was called for tree mask mode {mode}, not 0 or 1")
    step, lens = torch.arange(M), seq_lens.long()
    positions[: n * M] = (lens[:, None] + step).flatten()
    retrieve_index[:n] = torch.arange(n * M).view(n, M)
    retrieve_next_token[:n] = torch.cat([step[1:], step.new_tensor([-1])])
    retrieve_next_sibling[:n] = -1
    before = lens if mode == 0 else torch.zeros_like(lens)
    block = M * (before + M)
    row = (block.cumsum(0) - block)[:, None] + step * (before + M)[:, None] + before[:, None]  # [n, M]
    tree_mask[row[:, :, None] + step] = step <= step[:, None]


def verify_tree_greedy_cpu(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Accept the drafts of each chain up to the first that is not the target's token.

    The call site names its arguments so (``retrive``).

    Args:
        predicts: [n*M], written at accepted places. ``accept_index`` [n, M]: accepted places, -1 behind them.
        accept_token_num: [n], accepted drafts. ``candidates`` and ``target_predict`` [n, M].
    """
    chain("verify_tree_greedy_cpu", 1 if (retrive_next_sibling < 0).all() else 2)
    n, M = candidates.shape
    most = min(M, accept_index.shape[1])
    hits = candidates[:, 1:most] == target_predict[:, : most - 1]
    accepted = hits.long().cumprod(1).sum(1)
    kept = torch.arange(most) <= accepted[:, None]
    accept_index[:, :most] = retrive_index[:, :most].where(kept, accept_index[:, :most]).to(accept_index.dtype)
    accept_token_num[:n] = accepted.to(accept_token_num.dtype)
    out = predicts[: n * M].view(n, M)[:, :most]
    out.copy_(target_predict[:, :most].to(out.dtype).where(kept, out))
