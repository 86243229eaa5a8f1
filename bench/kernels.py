"""The products and the attention of a step alone: what is left of a step when the engine around its kernels is free.

A roofline (bench/roofline.py) takes the peak rates of large products. A few rows never reach them, on any kernel that
is at hand. So these are the very products of a step, of the same matrices and as many rows, and the attention over as
many places, run one after the other with nothing between them. A step over this time says what norms, gates, the delta
rule, sampling and Python cost; this time over the floor says what the kernels cost.

Shape legend: n rows of a batch, S new tokens a row.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from pipo.engine import TorchEngine
from pipo.engine.attention import attend
from pipo.engine.linear import Linear
from pipo.engine.types import Method
from pipo.engine.weights import Attention, Layer

Call = Callable[[], Any]


def step_calls(engine: TorchEngine, method: Method, n: int, places: int) -> list[Call]:
    """The products and attention calls of one step of ``n`` rows after ``places`` places, in the order of the step."""
    w, k = engine.weights, method.depth
    S = {"mtp": 2, "eagle": k + 1}.get(method.name, 1)
    calls: list[Call] = []
    if method.pairs:
        calls += [_product(linear, n) for linear in w.pair_in]
    for i, layer in enumerate(w.layers):
        before = sum(isinstance(other.mixer, Attention) for other in w.layers[:i])
        calls += _layer(engine, layer, before, n, S, places)
    calls.append(_product(w.head, n * S if method.name == "eagle" else n))
    drafts = {"regular": [], "eagle": [S] + [1] * (k - 1)}.get(method.name, [S])
    for tokens in drafts:
        calls += [_product(w.mtp.fc, n * tokens), *_layer(engine, w.mtp.layer, -1, n, tokens, places)]
        calls.append(_product(w.mtp.head, n))
    if method.name == "pipo" and w.confidence is not None:
        calls += [_product(w.confidence.fc1, n), _product(w.confidence.fc2, n)]
    return calls


def _product(linear: Linear, rows: int) -> Call:
    x = torch.randn(rows, linear.size // linear.outputs, device=_device(linear)).to(_dtype(linear))
    return lambda: linear(x)


def _matrix(linear: Linear) -> torch.Tensor:
    found = linear.w_t if linear.w_t is not None else linear.packed
    assert found is not None
    return found


def _device(linear: Linear) -> torch.device:
    return _matrix(linear).device


def _dtype(linear: Linear) -> torch.dtype:
    return _matrix(linear).dtype


def _layer(engine: TorchEngine, layer: Layer, number: int, n: int, S: int, places: int) -> list[Call]:
    """A layer's products, and its attention where it has one (``number``: which of the arena's caches)."""
    m, rows = layer.mixer, n * S
    calls = [_product(m.proj, rows)]
    if isinstance(m, Attention):
        w = engine.weights
        pos = torch.full((n,), places, device=w.device)
        plan = engine.arena.place(0, pos, S, places + S, ragged=False)
        q = torch.randn(rows, m.heads, m.head_dim, device=w.device).to(w.embed)
        calls.append(lambda: attend(q, number, plan, m.kv_heads))
    return [*calls, _product(m.out, rows), _product(layer.up, rows), _product(layer.down, rows)]


@torch.inference_mode()
def kernel_seconds(engine: TorchEngine, method: Method, n: int, places: int, repeats: int = 9) -> float:
    """Median seconds of a step's kernels alone; the engine must have ``n`` rows of more than ``places`` places."""
    calls = step_calls(engine, method, n, places)
    times = []
    for _ in range(repeats + 2):
        if engine.weights.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for call in calls:
            call()
        if engine.weights.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])
