"""Which kernel multiplies faster, and whether the engine picks it: section ``products`` of engine_speed.

``pipo.engine.linear`` chooses between torch's ``mm`` and oneDNN over packed weights by the number of multiplications.
Here both run on the lab's matrices and on one of a larger model, several copies in turn where one would stay in the
cache; the choice's time stands beside theirs. Where nothing can be packed, all three are ``mm``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.machine import seconds_of
from pipo.engine.linear import Linear

SIZES = ((64, 96, 1), (96, 576, 1), (288, 96, 1), (1024, 7168, 12))  # inputs, outputs, copies
ROWS = (1, 2, 8, 32, 128)


def packed(x: Tensor, linear: Linear) -> Tensor:
    """The product by oneDNN, whatever the engine would choose."""
    if linear.packed is None:
        return linear(x)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, linear.packed, None, "none", [], "")
    return out


def chosen(x: Tensor, linear: Linear) -> Tensor:
    """The product as the engine does it."""
    return linear(x)


def in_turn(multiply: Callable[[Tensor, Any], Tensor], x: Tensor, matrices: Sequence[Any]) -> None:
    """One product with each matrix."""
    for matrix in matrices:
        multiply(x, matrix)


@torch.inference_mode()
def products() -> list[dict[str, Any]]:
    """Rows of matrix size and rows multiplied: microseconds a product by kernel, and bytes of weights read a second."""
    found = []
    for inputs, outputs, copies in SIZES:
        plain = [torch.randn(inputs, outputs) / inputs**0.5 for _ in range(copies)]
        linears = [Linear(w) for w in plain]
        for rows in ROWS:
            x, inner = torch.randn(rows, inputs), max(1, 3_000_000 // (rows * inputs * outputs))
            row: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "rows": rows}
            ways: list[tuple[str, Callable[[Tensor, Any], Tensor], list[Any]]] = [
                ("mm", torch.mm, plain), ("packed", packed, linears), ("chosen", chosen, linears),
            ]  # fmt: skip
            for name, multiply, matrices in ways:
                run = partial(in_turn, multiply, x, matrices)
                seconds = seconds_of(run, torch.device("cpu"), inner=inner)[0]
                row[f"{name}_us"] = round(1e6 * seconds / copies, 1)
                row[f"{name}_gb_s"] = round(4 * inputs * outputs * copies / seconds / 1e9, 1)
            found.append(row)
    return found
