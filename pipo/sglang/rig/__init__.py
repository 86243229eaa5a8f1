"""The CPU rig: what SGLang's processes need where there is no GPU, as an environment for them. Loads no torch.

``stubs`` holds stand-ins for modules whose published builds need CUDA (``sgl_kernel``, ``torchvision``). They may not
enter our own process: transformers would take the stub torchvision for the real one. So they lie outside of every
package and are put on the path of child processes only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

STUBS = Path(__file__).resolve().parent / "stubs"


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``base`` for SGLang's processes: stubs first on the path, and SGLang's switch for its CPU engine.

    States of convolutions are kept in float32, as the weights are there; SGLang's default of bfloat16 is for a GPU.
    Drafts are drawn by torch, not by a Triton kernel.
    """
    path = [str(STUBS), *(p for p in base.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(STUBS))]
    own = {"SGLANG_USE_CPU_ENGINE": "1", "SGLANG_MAMBA_CONV_DTYPE": "float32", "SGLANG_OPT_USE_GUMBEL_SAMPLE": "0"}
    return {**base, "PYTHONPATH": os.pathsep.join(path), **own}
