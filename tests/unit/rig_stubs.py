"""What the tests of the CPU rig share: a stub's kernels in our process, under a name that nobody looks for."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from pipo.sglang.rig import STUBS


def stub(name: str) -> ModuleType:
    """A file of the stub sgl_kernel under a name of its own, so that nobody takes it for the package."""
    spec = importlib.util.spec_from_file_location(f"rig_{name}", STUBS / "sgl_kernel" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
