"""What the tests of the CPU rig share: a stub's kernels in our process, under a name that nobody looks for."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from pipo.sglang.rig import STUBS


def stub(name: str) -> ModuleType:
    """A file of the stub sgl_kernel, without its ``__init__``, which puts kernels into ``torch.ops``."""
    package = sys.modules.setdefault("rig_kernels", ModuleType("rig_kernels"))
    package.__path__ = [str(STUBS / "sgl_kernel")]
    return importlib.import_module(f"rig_kernels.{name}")
