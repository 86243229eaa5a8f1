"""Optimisers and the learning-rate schedule.

Muon in float32: torch.optim.Muon runs its Newton-Schulz iteration in bfloat16, ten times slower on CPUs without
bfloat16 units (docs/LOG.md), and the lab trains on laptops.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


class Muon32(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz in float32 (Jordan et al. 2024), for matrices [out, in].

    The update's scale follows 0.2 sqrt(max(out, in)), so that one learning rate serves Muon and AdamW.
    """

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buf = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(buf, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


def orthogonal(g: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """The nearly orthogonal matrix of a gradient's directions: a quintic Newton-Schulz iteration, float32."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def make_optimizers(model: nn.Module, name: str, weight_decay: float) -> list[torch.optim.Optimizer]:
    """``adamw``: AdamW for all that trains. ``muon``: Muon for matrices, AdamW for embeddings, gates and vectors."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    muon = [p for n, p in named if name == "muon" and p.ndim == 2 and min(p.shape) > 8 and "embed" not in n]
    taken = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in taken]
    betas = (0.9, 0.98) if name == "muon" else (0.9, 0.95)
    adam = torch.optim.AdamW(rest, lr=1e-3, betas=betas, weight_decay=0.0 if muon else weight_decay)
    return [Muon32(muon, weight_decay=weight_decay), adam] if muon else [adam]


def learning_rate(progress: float, peak: float, warmup: float = 0.05, floor: float = 0.0) -> float:
    """Linear warm-up while ``progress`` (0 to 1) is below ``warmup``, then a cosine down to ``floor`` times ``peak``.

    Where the number of steps is known, progress at step s (from 0) is (s + 1) / (steps + 1): no step has rate 0.
    """
    if progress < warmup:
        return peak * progress / warmup
    x = min(1.0, (progress - warmup) / (1 - warmup)) if warmup < 1 else 0.0
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * x)))
