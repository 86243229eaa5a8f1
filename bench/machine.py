"""What a machine can do: bandwidth, rates of matrix products and of attention, and the time of one small torch call.

Measured in a few seconds, on the device and in the type that the model runs in, with the threads that torch computes
with now. They are rates of good kernels on easy shapes, so a floor made of them (bench/roofline.py) is a floor: no step
of a model beats it by much, and what lies above it is room or overhead. ``MACHINES`` holds ideal machines by name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipo.errors import BadInput

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
READ_BYTES = 512 << 20  # well beyond any last-level cache
LONG_CALL_S = 0.05  # sizes grow until one call takes this long: then launches and warm caches weigh little
MOST_NUMBERS = 1 << 28  # of one operand
REPEATS = 7


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of one device: ``bandwidth`` bytes/s, the two rates operations/s, ``call_s`` seconds of a small torch call.

    ``attention_rate``: causal attention over a long sequence, operations counted for the causal half only.
    ``memory``: bytes that the device has. ``threads``: that torch computes with; 0 for an ideal machine.
    """

    name: str
    bandwidth: float
    matmul_rate: float
    attention_rate: float
    call_s: float = 0.0
    memory: float = 0.0
    dtype: str = "bfloat16"
    threads: int = 0

    def __post_init__(self) -> None:
        for field in ("bandwidth", "matmul_rate", "attention_rate"):
            if not getattr(self, field) > 0:
                raise BadInput(f"{field} {getattr(self, field)} of machine {self.name!r} must be above 0")
        if self.call_s < 0 or self.memory < 0:
            raise BadInput(f"call_s {self.call_s} and memory {self.memory} of machine {self.name!r} must be >= 0")

    def best(self, other: Machine) -> Machine:
        """The better of two measurements of one machine, rate by rate: neighbours only ever take away."""
        return msgspec.structs.replace(
            self,
            bandwidth=max(self.bandwidth, other.bandwidth),
            matmul_rate=max(self.matmul_rate, other.matmul_rate),
            attention_rate=max(self.attention_rate, other.attention_rate),
            call_s=min(self.call_s, other.call_s),
        )


MACHINES = {
    m.name: m
    for m in (
        # One GPU of 80 GB at 3.0 TB/s and 700 TFLOP/s, attention as fast as matrix products, calls for nothing.
        Machine(name="h100-ideal", bandwidth=3.0e12, matmul_rate=700e12, attention_rate=700e12, memory=80e9),
    )
}


def named(name: str) -> Machine:
    """An ideal machine by name. Raises BadInput naming the known ones."""
    if name not in MACHINES:
        raise BadInput(f"unknown machine {name!r}; machines are measure (this one), {', '.join(MACHINES)}")
    return MACHINES[name]


def dtype_of(name: str) -> torch.dtype:
    """A torch type by name. Raises BadInput."""
    if name not in DTYPES:
        raise BadInput(f"unknown dtype {name!r}; dtypes are {', '.join(DTYPES)}")
    return DTYPES[name]


@torch.inference_mode()
def measure(device: str, dtype: torch.dtype, *, read_bytes: int = READ_BYTES, long_s: float = LONG_CALL_S) -> Machine:
    """Measure this machine: rates by the best kernel's best repeat, ``call_s`` as a median; first calls are left out.

    A floor is made of what the machine can do, and whatever else runs on it only slows it down; measured under load
    for the whole time, the rates are too low all the same.

    Args:
        read_bytes: size of the tensor that is read for the bandwidth.
        long_s: sizes of products and attention grow until one call takes so many seconds.
    """
    where = torch.device(device)
    cuda = where.type == "cuda"
    return Machine(
        name=torch.cuda.get_device_name(where) if cuda else device,
        bandwidth=bandwidth(where, read_bytes),
        matmul_rate=matmul_rate(where, dtype, long_s),
        attention_rate=attention_rate(where, dtype, long_s),
        call_s=call_seconds(where, dtype),
        memory=device_memory(where),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )


def device_memory(device: torch.device) -> float:
    """Bytes of the GPU's memory, or of the computer's."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def seconds_of(fn: Callable[[], Any], device: torch.device, repeats: int = REPEATS, inner: int = 1) -> list[float]:
    """Times of a call (mean of ``inner`` in a row) in ascending order, the device's work included.

    One call goes before them and does not count.
    """
    times = []
    for _ in range(repeats + 1):
        settle(device)
        start = time.perf_counter()
        for _ in range(inner):
            fn()
        settle(device)
        times.append((time.perf_counter() - start) / inner)
    return sorted(times[1:])


def settle(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidth(device: torch.device, size: int = READ_BYTES) -> float:
    """Bytes a second of reading ``size`` bytes, by the better of two reductions."""
    x = torch.ones(size // 4, dtype=torch.float32, device=device)
    once = seconds_of(x.sum, device, 1)[0]
    inner = max(1, round(LONG_CALL_S / once))  # on a GPU waiting for its end would count as reading
    best = min(seconds_of(fn, device, inner=inner)[0] for fn in (x.sum, lambda: torch.dot(x, x)))
    return x.numel() * 4 / best


def matmul_rate(device: torch.device, dtype: torch.dtype, long_s: float = LONG_CALL_S) -> float:
    """Operations a second of the best large matrix product: torch's own, and on a CPU oneDNN's over packed weights."""
    rates, n = [], 256
    while True:
        x = torch.randn(n, n, device=device, dtype=dtype)
        seconds = [seconds_of(fn, device, 3)[0] for fn in _products(x)]
        rates.append(2 * n**3 / min(seconds))
        if min(seconds) >= long_s or 4 * n * n > MOST_NUMBERS:
            return max(rates)
        n *= 2


def _products(x: Tensor) -> list[Callable[[], Tensor]]:
    """Ways to multiply a square matrix by itself."""
    ways: list[Callable[[], Tensor]] = [lambda: torch.mm(x, x)]
    ops = torch.ops.mkldnn
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available() and hasattr(ops, "_reorder_linear_weight"):
        try:
            packed = ops._reorder_linear_weight(x, len(x))
            ops._linear_pointwise(x, packed, None, "none", [], "")
        except RuntimeError:  # a type that this processor's oneDNN does not multiply
            return ways
        ways.append(lambda: ops._linear_pointwise(x, packed, None, "none", [], ""))
    return ways


def attention_rate(device: torch.device, dtype: torch.dtype, long_s: float = LONG_CALL_S) -> float:
    """Operations a second of causal attention (8 heads of 128); only the causal half is counted as work."""
    heads, width, n, best = 8, 128, 512, 0.0
    while True:
        q, k, v = torch.randn(3, 1, heads, n, width, device=device, dtype=dtype)
        seconds = seconds_of(partial(F.scaled_dot_product_attention, q, k, v, is_causal=True), device, 3)[0]
        best = max(best, 2 * heads * width * n * n / seconds)
        if seconds >= long_s or 2 * heads * width * n > MOST_NUMBERS:
            return best
        n *= 2


def call_seconds(device: torch.device, dtype: torch.dtype, rounds: int = 100) -> float:
    """Seconds of one small torch call: median over chains of what a step consists of, on tensors of a lab's size."""
    n, width = 8, 128
    x, w, s = (torch.randn(*size, device=device, dtype=dtype) * 0.01 for size in ((n, width), (width, width), (width,)))

    def chain() -> Tensor:
        y = x
        for _ in range(4):
            p = torch.mm(y, w)
            a, b = p.narrow(1, 0, width // 2), p.narrow(1, width // 2, width // 2)
            y = torch.cat([F.silu(a) * b, torch.softmax(b, 1)], 1)
            y = (y * s).add_(x)
        return y

    calls = count_calls(chain)

    def many() -> None:
        for _ in range(rounds):
            chain()

    return seconds_of(many, device)[REPEATS // 2] / (rounds * calls)


class _Counter(TorchDispatchMode):
    """Counts the operators that torch dispatches while it is active, views among them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def count_calls(fn: Callable[[], Any]) -> int:
    """How many torch operators one run of ``fn`` dispatches, views included; ``fn`` runs once."""
    with _Counter() as counter:
        fn()
    return counter.calls
