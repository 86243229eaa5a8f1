"""Stand-in for sgl_kernel on a CPU: plain torch for the few kernels that Qwen3.5 and Qwen3 reach, the rest inert.

SGLang 0.5.23 imports dozens of names from sgl_kernel that it calls on a GPU only. Here every such name imports and
raises when it is called. Kernels that SGLang looks up in ``torch.ops.sgl_kernel`` are put there, and only they are: it
takes ``convert_weight_packed`` there for a sign that Intel's AMX kernels are installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch

__version__ = "0.4.10"  # the release that SGLang 0.5.23 asks for

# SGLang has an answer to these where they are missing, so they may not be found.
ABSENT = ("sgl_kernel.scalar_type",)


def inert(name: str) -> Callable[..., NoReturn]:
    """A function that says which kernel was missing."""

    def call(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            f"{name} was called, which the CPU rig has no stand-in for: it covers Qwen3.5 and Qwen3 without "
            "quantization; take the feature that asks for it out, or run on a GPU with the real sgl_kernel"
        )

    call.__name__ = name.rsplit(".", 1)[-1]
    return call


def lookup(module: str) -> Callable[[str], Callable[..., NoReturn]]:
    """A module's ``__getattr__`` under which every public name is an inert function."""

    def find(name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return inert(f"{module}.{name}")

    return find


class InertModules(MetaPathFinder, Loader):
    """Finds every submodule of sgl_kernel that has no file here, and makes it of inert functions."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name.startswith("sgl_kernel.") and name not in ABSENT:
            return ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lookup(module.__name__)  # type: ignore[method-assign]


sys.meta_path.append(InertModules())  # last, so that files come first

from sgl_kernel import fused, mamba  # noqa: E402
from sgl_kernel.speculative import (  # noqa: E402
    assign_draft_cache_locs_contiguous_cpu,
    assign_extend_cache_locs_cpu,
    assign_req_to_token_pool_cpu,
    build_tree_kernel_efficient_cpu,
    fill_accept_out_cache_loc_cpu,
    fill_bonus_tokens_cpu,
    verify_tree_greedy_cpu,
)

__all__ = [
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_tree_kernel_efficient_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "verify_tree_greedy_cpu",
]

for kernel in (
    mamba.fused_gdn_gating_cpu,
    mamba.fused_rmsnorm_gated_cpu,
    mamba.fused_sigmoid_gating_delta_rule_update_cpu,
    fused.fused_qk_gemma_rmsnorm_cpu,
    fused.fused_qk_gemma_rmsnorm_with_gate_cpu,
    fused.fused_qkvzba_split_reshape_cat_contiguous_cpu,
    fused.fused_sigmoid_mul_cpu,
):
    setattr(torch.ops.sgl_kernel, kernel.__name__, kernel)

__getattr__ = lookup("sgl_kernel")
