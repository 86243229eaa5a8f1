"""The small fused kernels of Qwen3.5's layers on a CPU, in plain torch (call sites: SGLang 0.5.23's ``qwen3_5.py``).

Shape legend: T places, H query heads, Hk key heads, D head size; nk and nv key and value heads of linear attention,
dk and dv their sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last axis times 1 + weight, as Gemma and Qwen3.5 have it. Dtype of ``x``."""
    h = x.float()
    return (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps) * (1 + weight.float())).to(x.dtype)


def fused_qk_gemma_rmsnorm_cpu(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, eps: float, head_dim: int
) -> tuple[Tensor, Tensor]:
    """``q`` [T, H*D] and ``k`` [T, Hk*D], normed by head: [T*H, D] and [T*Hk, D]."""
    return _norm(q.reshape(-1, head_dim), q_weight, eps), _norm(k.reshape(-1, head_dim), k_weight, eps)


def fused_qk_gemma_rmsnorm_with_gate_cpu(
    q_gate: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, eps: float, head_dim: int, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``q_gate`` [T, H*2D], query and gate side by side in each head: normed queries, normed keys and gates [.., D]."""
    q, gate = q_gate.reshape(-1, num_heads, 2, head_dim).unbind(2)
    q, k = fused_qk_gemma_rmsnorm_cpu(q, k, q_weight, k_weight, eps, head_dim)
    return q, k, gate.reshape(-1, head_dim).contiguous()  # the call site views it


def fused_sigmoid_mul_cpu(x: Tensor, gate: Tensor) -> None:
    """``x`` times sigmoid(``gate``), in place; both [T, H*D]."""
    x.mul_(gate.sigmoid().view(x.shape))


def fused_qkvzba_split_reshape_cat_contiguous_cpu(
    qkvz: Tensor, ba: Tensor, nk: int, nv: int, dk: int, dv: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``qkvz`` [T, 2*nk*dk + 2*nv*dv] and ``ba`` [T, 2*nv] to qkv [T, ..], z [T, nv, dv], b and a [T, nv]."""
    qkv, z = qkvz.split([2 * nk * dk + nv * dv, nv * dv], 1)
    b, a = ba.split(nv, 1)
    return qkv.contiguous(), z.reshape(-1, nv, dv), b.contiguous(), a.contiguous()
