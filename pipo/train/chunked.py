"""Losses over a large vocabulary without ever holding logits of [places x vocabulary].

The places go through the head in chunks, and each chunk's gradient is taken at once, in the forward pass: what stays
is [places x hidden] and, where the head trains, one [vocabulary x hidden]. No product is computed twice.

Shape legend: N places, H hidden size, V vocabulary, n places of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

CHUNK_ELEMENTS = 2**26  # logits that exist at a time, by default

LossOf = Callable[[torch.Tensor, slice], tuple[torch.Tensor, Any]]


def chunk_places(vocabulary: int, asked: int | None = None) -> int:
    """Places a chunk: as asked for, else as many as CHUNK_ELEMENTS logits are."""
    return asked or max(1, CHUNK_ELEMENTS // vocabulary)


def head_loss(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, loss: LossOf, chunk: int
) -> tuple[torch.Tensor, list[Any]]:
    """The sum of ``loss(logits [n, V] in float32, slice of places)`` over chunks of places, and what else it gave.

    ``loss`` returns a scalar and anything detached. The gradient goes to ``hidden_NH`` and, where it trains, to
    ``weight_VH``; it equals that of the unchunked loss up to rounding (tests/unit/test_train_chunked.py).
    """
    extras: list[Any] = []
    total = _Chunked.apply(hidden_NH, weight_VH, loss, chunk, extras, torch.is_grad_enabled())
    return total, extras


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, loss: LossOf, chunk: int, extras: list[Any],
        grad: bool,
    ) -> torch.Tensor:  # fmt: skip
        want_h, want_w = grad and hidden_NH.requires_grad, grad and weight_VH.requires_grad
        grad_NH = torch.zeros_like(hidden_NH) if want_h else None
        grad_VH = torch.zeros_like(weight_VH) if want_w else None
        total = hidden_NH.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden_NH), chunk):
            part = slice(start, min(start + chunk, len(hidden_NH)))
            logits_nV = F.linear(hidden_NH[part], weight_VH).float()
            if not (want_h or want_w):
                value, extra = loss(logits_nV, part)
            else:
                with torch.enable_grad():
                    value, extra = loss(logits_nV.requires_grad_(), part)
                    (g_nV,) = torch.autograd.grad(value, logits_nV)
                g_nV = g_nV.to(weight_VH.dtype)
                if grad_NH is not None:
                    grad_NH[part] = (g_nV @ weight_VH).to(grad_NH.dtype)
                if grad_VH is not None:
                    grad_VH.addmm_(g_nV.t(), hidden_NH[part].to(g_nV.dtype))
            total += value.detach()
            extras.append(extra)
        ctx.save_for_backward(grad_NH, grad_VH)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        grad_NH, grad_VH = ctx.saved_tensors
        scaled = [None if g is None else g * grad.to(g.dtype) for g in (grad_NH, grad_VH)]
        return (*scaled, None, None, None, None)
