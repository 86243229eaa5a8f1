"""The CPU rig's hooks; its kernels are stand-ins that only SGLang's processes see (``pipo.sglang.rig``)."""

from __future__ import annotations

from typing import Any


def gated_norm(original: Any, self: Any, x: Any, z: Any = None) -> Any:
    """RMSNorm(x) * weight * SiLU(z) without Triton."""
    from sgl_kernel.mamba import fused_rmsnorm_gated_cpu

    return fused_rmsnorm_gated_cpu(x, self.weight, z, self.eps)


def scatter_states(
    original: Any,
    mamba_caches: Any,
    state_indices_tensor: Any,
    last_correct_step_indices: Any,
    mamba_track_indices: Any,
    mamba_steps_to_track: Any,
    src_indices_raw: Any = None,
) -> None:
    """Take over, in all layers, the states after each request's last accepted place.

    Slots ``state_indices_tensor`` [R] of ``temporal`` [layers, slots, ...] get what ``intermediate_ssm`` [layers, rows,
    places, ...] has at places ``last_correct_step_indices`` [R] (-1: none), convolutions likewise; ``mamba_track_*``:
    the same for slots that the prefix cache keeps. ``src_indices_raw`` [R]: rows, where they are not 0 to R - 1.
    """
    states = [(mamba_caches.temporal, mamba_caches.intermediate_ssm)]
    states += zip(mamba_caches.conv, mamba_caches.intermediate_conv_window, strict=True)
    taken = ((state_indices_tensor, last_correct_step_indices), (mamba_track_indices, mamba_steps_to_track))
    for slots, places in taken:
        if slots is None:
            continue
        there = (places >= 0).nonzero().flatten()
        rows = there if src_indices_raw is None else src_indices_raw.long()[there]
        for kept, after in states:
            if kept.numel():
                kept[:, slots.long()[there]] = after[:, rows, places.long()[there]].to(kept.dtype)
