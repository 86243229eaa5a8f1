"""Stand-in for torchvision: its published builds bring a CUDA torch, and SGLang imports it for images only.

Every name is a class that refuses to be made, so that ``isinstance`` and annotations work.
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

        def refuse(self: object, *_: object, **__: object) -> NoReturn:
            raise NotImplementedError(f"{module}.{name} was called: the CPU rig has no torchvision and takes no images")

        return type(name, (), {"__init__": refuse, "__module__": module})

    return find


__getattr__ = lookup("torchvision")
