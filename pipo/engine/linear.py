"""One matrix of the engine's forward, multiplied by whichever kernel is fastest here for the number of rows at hand.

On a CPU torch's own ``mm`` goes to MKL, which reads the weights again for each of a few rows and does not use AVX-512
on AMD processors; oneDNN over weights packed once does (3 times as fast from 2 rows on, docs/LOG.md), but costs some
10 microseconds a call. So small products go to ``mm`` and large ones to oneDNN. On a GPU there is one kernel.

Shape legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

PACKED_FROM = 700_000  # multiplications (N * I * O) from which oneDNN is faster
ONE_ROW = 6  # a single row is MKL's best case: that many times more of them
KEEP_BOTH = 1 << 19  # matrices up to so many numbers are kept in both forms, larger ones only packed


def can_pack(like: Tensor) -> bool:
    """Whether oneDNN's packed products exist for matrices like this one. The operators are Inductor's, not public."""
    return (
        like.device.type == "cpu"
        and like.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class Linear:
    """``x @ w_t + bias``, [N, I] -> [N, O], or ``residual + x @ w_t + bias``.

    ``w_t`` [I, O] may be a view; on a CPU it is copied, elsewhere used as it is.
    """

    __slots__ = ("w_t", "bias", "packed", "size", "outputs")

    def __init__(self, w_t: Tensor, bias: Tensor | None = None) -> None:
        self.bias, self.size, self.outputs = bias, w_t.numel(), w_t.shape[1]
        self.packed: Tensor | None = None
        self.w_t: Tensor | None = w_t
        if can_pack(w_t):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(w_t.t().contiguous(), 32)
            self.w_t = w_t.contiguous() if self.size <= KEEP_BOTH else None

    def __call__(self, x_NI: Tensor, residual_NO: Tensor | None = None) -> Tensor:
        if self.packed is not None:
            rows = x_NI.shape[0]  # len() of a tensor takes a microsecond
            if self.w_t is None or rows * self.size >= PACKED_FROM * (ONE_ROW if rows == 1 else 1):
                y = torch.ops.mkldnn._linear_pointwise(x_NI, self.packed, self.bias, "none", [], "")
                return y if residual_NO is None else y.add_(residual_NO)
        assert self.w_t is not None
        if residual_NO is not None:
            if self.bias is not None:
                residual_NO = residual_NO + self.bias
            return torch.addmm(residual_NO, x_NI, self.w_t)
        return torch.mm(x_NI, self.w_t) if self.bias is None else torch.addmm(self.bias, x_NI, self.w_t)
