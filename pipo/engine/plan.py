"""The memory plan: how many rows and places an engine's caches hold, fixed when it starts and never exceeded.

A row holds one request: keys and values of ``places`` backbone positions in every full-attention layer and in the MTP
layer, and the recurrent states. Nothing is allocated for a request later; one that needs more places than a row has is
refused, one that finds no row waits.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import torch

from pipo.engine.weights import LinearAttention, Weights
from pipo.errors import BadInput

SLACK = 32  # places behind a row's context that drafts may scribble on before they are rejected
CPU_SHARE, CPU_MOST = 4, 8 << 30  # by default a quarter of the free memory, 8 GiB at most
GPU_SHARE = 0.8
ODD = 64  # least context worth a plan


class MemoryPlan(msgspec.Struct, frozen=True):
    """``rows`` requests at a time of ``context`` places each; bytes of one place, of one row's states, and of all."""

    rows: int
    context: int
    place_bytes: int
    state_bytes: int
    bytes: int

    @property
    def places(self) -> int:
        """Places allocated a row."""
        return self.context + SLACK


def free_memory(device: torch.device, held: int = 0) -> int:
    """Bytes that caches may take by default. ``held``: those of an arena that makes room for the new one."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((torch.cuda.mem_get_info(device)[0] + unused + held) * GPU_SHARE)
    return min(available() // CPU_SHARE, CPU_MOST)


def available(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that programs can still have, caches of the system's that it would give up included.

    Where the system does not say so (macOS), half of all it has.
    """
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def place_bytes(w: Weights) -> int:
    """Bytes of keys and values that one place takes, over all full-attention layers and the MTP layer."""
    layers = 1 + sum(not isinstance(layer.mixer, LinearAttention) for layer in w.layers)
    return layers * 2 * w.kv_heads * w.head_dim * w.embed.element_size()


def state_bytes(w: Weights) -> int:
    """Bytes of one row's recurrent states (float32) and convolution tails."""
    total = 0
    for layer in w.layers:
        m = layer.mixer
        if isinstance(m, LinearAttention):
            taps, channels = m.conv_KC.shape
            total += m.value_heads * m.key_dim * m.value_dim * 4 + (taps - 1) * channels * w.embed.element_size()
    return total


def make_plan(
    w: Weights, positions: int, max_batch: int, context: int | None, memory: int | None, held: int = 0
) -> MemoryPlan:
    """Rows and places for a model of ``positions``; without ``context`` what ``memory`` (default: free_memory) holds.

    Raises:
        BadInput: rows or context below 1, context beyond the model's positions, or more than the memory holds.
    """
    if max_batch < 1:
        raise BadInput(f"max_batch {max_batch} must be at least 1")
    if context is not None and not 1 <= context <= positions:
        raise BadInput(f"context {context} must lie in [1, {positions}], the positions that the model has")
    limit = free_memory(w.device, held) if memory is None else memory
    place, state = place_bytes(w), state_bytes(w)
    most = (limit // max_batch - state) // place - SLACK
    least = min(ODD, positions) if context is None else context
    if most < least:
        need = max_batch * (state + (least + SLACK) * place)
        raise BadInput(
            f"{max_batch} rows of {least} places need {need:,} bytes of cache, the plan allows {limit:,}; "
            "lower max_batch or context, or raise memory"
        )
    context = min(positions, most) if context is None else context
    return MemoryPlan(max_batch, context, place, state, max_batch * (state + (context + SLACK) * place))
