"""The gated delta rule of GatedDeltaNet over one token, over a few tokens that may be taken back, and over a prompt.

S_t = a_t S_(t-1) + k_t^T u_t with u_t = b_t (v_t - k_t a_t S_(t-1)) and o_t = q_t S_t (Yang et al., 2024). ``few``
solves the few tokens' u at once from the state before them, which it only reads; ``Arena.accept`` writes the state.

Shape legend: n rows, S tokens a row, Hv value heads, B = n*Hv, Dk and Dv key and value size, T prompt places.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule


def one(rec: Tensor, qk: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """One token: updates ``rec`` [n, Hv, Dk, Dv] in place and returns the output [n, Hv, Dv] (unscaled query).

    ``qk`` [n, 2 Hv, Dk] unit vectors, ``v`` [n, Hv Dv], ``decay`` (not its log) and ``beta`` [n, Hv].
    """
    n, heads, Dk, Dv = rec.shape
    q, k = qk.view(n, 2, heads, Dk).unbind(1)
    k = k.reshape(-1, 1, Dk)
    state = rec.view(-1, Dk, Dv).mul_(decay.reshape(-1, 1, 1))
    change = (v.reshape(-1, 1, Dv) - torch.bmm(k, state)) * beta.reshape(-1, 1, 1)
    state.baddbmm_(k.transpose(1, 2), change)
    return torch.bmm(q.reshape(-1, 1, Dk), state).view(n, heads, Dv)


def few(rec: Tensor, qk: Tensor, v: Tensor, g: Tensor, beta: Tensor, S: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """S tokens a row from the state before them, [n, Hv, Dk, Dv], which stays as it is.

    Args:
        qk: [n*S, 2 Hv, Dk] unit vectors; ``v`` [n*S, Hv Dv]; ``g`` (log decay) and ``beta`` [n*S, Hv].

    Returns:
        outputs [n*S, Hv, Dv] (unscaled query), keys [B, S, Dk], written values u [B, S, Dv], cumulated log decay
        [B, S].
    """
    n, heads, Dk, Dv = rec.shape
    x = qk.view(n, S, 2, heads, Dk).permute(0, 3, 2, 1, 4).reshape(n * heads, 2 * S, Dk)
    k = x[:, S:]
    past = torch.bmm(x, rec.view(-1, Dk, Dv))
    gram = torch.bmm(x, k.transpose(1, 2))
    G, b = (t.view(n, S, heads).transpose(1, 2).reshape(-1, S) for t in (g, beta))
    G = G.cumsum(1)
    between = (G[:, :, None] - G[:, None, :]).exp_().tril_()
    since, b = G.exp()[..., None], b[..., None]
    v = v.view(n, S, heads, Dv).transpose(1, 2).reshape(-1, S, Dv)
    u = (v - past[:, S:] * since) * b
    lower = gram[:, S:] * between * b
    for t in range(1, S):  # forward substitution; S is small
        u[:, t : t + 1].baddbmm_(lower[:, t : t + 1, :t], u[:, :t], alpha=-1)
    o = torch.baddbmm(past[:, :S] * since, gram[:, :S] * between, u)
    return o.view(n, heads, S, Dv).transpose(1, 2).reshape(n * S, heads, Dv), k, u, G


def chunk_rule(device: torch.device) -> Any:
    """The rule over a prompt: flash-linear-attention's kernel on a GPU where it is installed, else transformers'."""
    if device.type == "cuda":
        try:
            from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        except ImportError:
            return torch_chunk_gated_delta_rule
        return chunk_gated_delta_rule
    return torch_chunk_gated_delta_rule
