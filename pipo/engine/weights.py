"""A model's weights laid out for the engine: projections fused, norm weights folded into the matrix that follows.

What is read once a layer and step is one matrix here, because at small batches the number of torch calls sets the
pace. The fused matrices are copies: after training a model further, make a new engine (or call its ``reload``).

Shape legend: H hidden, C channels of the convolution (2 key + value), V vocabulary, D head size.
A product with a matrix is a ``Linear``, which knows its kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipo.engine.linear import Linear


class Unit:
    """x / sqrt(sum x^2 + dim * eps) over the last dimension: RMSNorm without its weight and its factor sqrt(dim).

    Both are folded into what follows. In float32 the three calls here cost half of ``F.rms_norm`` on a CPU.
    """

    def __init__(self, dim: int, eps: float, like: Tensor) -> None:
        self.eps, self.shape = eps, (dim,)
        self.full = like.dtype == torch.float32
        self.floor = torch.tensor(math.sqrt(dim * eps), device=like.device)
        self.weight = torch.full((dim,), dim**-0.5, device=like.device, dtype=like.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        if self.full:
            return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)
        return F.rms_norm(x, self.shape, self.weight, self.eps)


@dataclass(slots=True)
class LinearAttention:
    """GatedDeltaNet. ``proj`` gives [q0 k0 q1 k1 .. v | z | b | a + dt_bias]; ``conv_KC`` the depthwise taps."""

    unit: Unit
    proj: Linear
    sizes: tuple[int, int, int, int]
    conv_KC: Tensor
    decay: Tensor
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    qk_unit: Unit
    out_unit: Unit
    out: Linear


@dataclass(slots=True)
class Attention:
    """Full attention. ``proj`` gives [q k | v | gate] (``sizes``), ``kv`` its k and v columns alone (None: never used).

    Head dimensions in ``rotary_order``. ``qk_unit`` and ``qk_scale`` norm queries and keys; None where a family has no
    such norms (Llama, Qwen2), whose queries come out of ``proj`` scaled.
    """

    unit: Unit
    proj: Linear
    kv: Linear | None
    heads: int
    kv_heads: int
    head_dim: int
    qk_unit: Unit | None
    qk_scale: Tensor | None
    sizes: tuple[int, ...]
    out: Linear


@dataclass(slots=True)
class Layer:
    """One decoder layer: the token mixer and the MLP (``up`` gives [gate | up])."""

    mixer: LinearAttention | Attention
    unit: Unit
    up: Linear
    down: Linear
    act: Any


@dataclass(slots=True)
class Mtp:
    """The MTP head; ``fc`` (2H -> H) has both norms folded in, embedding half first.

    ``head``: what it projects onto. ``ids`` [N + 1]: the ids that its N outputs stand for, where there is a draft
    vocabulary, and behind them the one that marks a failed row (the vocabulary's size).
    """

    embed_unit: Unit
    hidden_unit: Unit
    fc: Linear
    layer: Layer
    unit: Unit
    norm: Tensor
    head: Linear
    ids: Tensor | None


@dataclass(slots=True)
class Confidence:
    unit: Unit
    fc1: Linear
    fc2: Linear


@dataclass(slots=True)
class Weights:
    """Everything that the engine's forward reads. ``head`` has a bias that is -inf at PAD, which is never sampled.

    ``pair_in``: the compressor's layers, SiLU between them; empty for a regular model.
    """

    embed: Tensor
    layers: list[Layer]
    unit: Unit
    norm: Tensor
    head: Linear
    vocab: int
    pad: int
    mtp: Mtp
    pair_in: list[Linear]
    confidence: Confidence | None
    rotary: nn.Module
    rotary_dim: int
    kv_heads: int
    heads: int
    head_dim: int

    @property
    def device(self) -> torch.device:
        return self.embed.device
