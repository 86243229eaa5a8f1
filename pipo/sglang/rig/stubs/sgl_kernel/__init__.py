"""Stand-in for sgl_kernel on a CPU: plain torch for the kernels that Qwen3.5 and Qwen3 reach in SGLang 0.5.23.

The published wheel holds CUDA code. What SGLang imports from it under its CPU engine is here: kernels of our own, and
one function that raises. Everything else is left out, so that SGLang's own fallbacks work. Kernels that it looks up in
``torch.ops.sgl_kernel`` are put there; ``convert_weight_packed`` may never be among them: SGLang takes it for a sign
that Intel's AMX kernels are installed.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from . import attention, fused, mamba
from .attention import build_draft_decode_metadata_cpu
from .speculative import (
    assign_draft_cache_locs_contiguous_cpu,
    assign_extend_cache_locs_cpu,
    assign_req_to_token_pool_cpu,
    build_tree_kernel_efficient_cpu,
    copy_all_layer_kv_cache_cpu,
    fill_accept_out_cache_loc_cpu,
    fill_bonus_tokens_cpu,
    verify_tree_greedy_cpu,
)

__version__ = "0.4.10"  # the release that SGLang 0.5.23 asks for
__all__ = [
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_draft_decode_metadata_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "rotate_input_ids_cpu",
    "verify_tree_greedy_cpu",
]


def rotate_input_ids_cpu(*_: Any, **__: Any) -> NoReturn:
    """Imported by SGLang with its other drafting kernels; drafts of several MTP layers need it."""
    raise NotImplementedError(
        "sgl_kernel.rotate_input_ids_cpu was called, which the CPU rig has no stand-in for: "
        "do without enable_multi_layer_eagle, or use a GPU"
    )


for _kernel in (
    attention.decode_attention_cpu,
    attention.extend_attention_cpu,
    mamba.fused_gdn_gating_cpu,
    mamba.fused_rmsnorm_gated_cpu,
    mamba.fused_sigmoid_gating_delta_rule_update_cpu,
    fused.fused_qk_gemma_rmsnorm_cpu,
    fused.fused_qk_gemma_rmsnorm_with_gate_cpu,
    fused.fused_qkvzba_split_reshape_cat_contiguous_cpu,
    fused.fused_sigmoid_mul_cpu,
):
    setattr(torch.ops.sgl_kernel, _kernel.__name__, _kernel)
