"""Stand-in for torchvision: its published builds bring a CUDA torch, and SGLang imports it for images only.

Every name is a class that refuses to be made, so that annotations and ``isinstance`` work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

__version__ = "0.0.0"


def lookup(module: str) -> Callable[[str], type]:
    """A module's ``__getattr__`` under which every public name is a class that cannot be made."""

    def find(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")

        def refuse(*_: object, **__: object) -> NoReturn:
            raise NotImplementedError(
                f"{module}.{name} was called, which the CPU rig has no stand-in for: send text, or use a GPU"
            )

        return type(name, (), {"__new__": refuse, "__module__": module})

    return find


__getattr__ = lookup(__name__)

import torchvision.io  # noqa: E402 - modules that exist are found before the lookup
import torchvision.transforms  # noqa: E402, F401
