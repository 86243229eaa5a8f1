"""The torch engine: requests in, events out. ``types`` is torch-free; torch loads with ``TorchEngine``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipo.engine.torch_engine import TorchEngine as TorchEngine

__all__ = ["TorchEngine"]


def __getattr__(name: str) -> Any:
    if name == "TorchEngine":
        from pipo.engine.torch_engine import TorchEngine

        return TorchEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
