"""The CPU rig's one hook; its kernels are stand-ins that only SGLang's processes see (``pipo.sglang.rig``)."""

from __future__ import annotations

from typing import Any


def gated_norm(original: Any, self: Any, x: Any, z: Any = None) -> Any:
    """RMSNorm(x) * weight * SiLU(z) without Triton."""
    from sgl_kernel.mamba import fused_rmsnorm_gated_cpu

    return fused_rmsnorm_gated_cpu(x, self.weight, z, self.eps)
