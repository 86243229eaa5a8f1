"""What stays loaded in the worker between jobs: engines and their models, by key. Torch-free by itself.

A key that is a model folder, or one with ``#`` and more behind it, is bound to the files there: when they change, the
resident is loaded anew. What goes is closed, where it has a ``close``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipod.messages import ResidentInfo

T = TypeVar("T")
_WATCHED = ("config.json", "tokenizer.json", "*.safetensors")


class Residents:
    """A plain store without a budget: nothing is dropped unless asked for or outdated."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, tuple[Any, ...], int | None]] = {}

    def get(self, key: str, load: Callable[[], T]) -> T:
        """The object kept for ``key``, or what ``load`` makes now."""
        mark = _mark(key)
        if key in self._kept:
            value, old, _ = self._kept[key]
            if old == mark:
                kept: T = value
                return kept
            del value
            self.drop([key])
        made = load()
        self._kept[key] = (made, mark, size_of(made))
        return made

    def peek(self, key: str) -> Any:
        """The object kept for ``key``, or None."""
        return self._kept[key][0] if key in self._kept else None

    def drop(self, keys: list[str]) -> None:
        for key in keys:
            value, *_ = self._kept.pop(key, (None,))
            close = getattr(value, "close", None)
            if callable(close):
                close()
            del value, close
        gc.collect()

    def describe(self) -> list[ResidentInfo]:
        """What takes memory; an engine whose server has ended for another's (``loaded``) does not."""
        return [ResidentInfo(k, size) for k, (v, _, size) in self._kept.items() if getattr(v, "loaded", True)]


def _mark(key: str) -> tuple[Any, ...]:
    """Names, sizes and times of the model files in the folder that the key names; empty for any other key."""
    folder = Path(folder_of(key))
    if not folder.is_absolute() or not folder.is_dir():
        return ()
    files = sorted(f for pattern in _WATCHED for f in folder.glob(pattern))
    return tuple((f.name, s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()])


def folder_of(key: str) -> str:
    """The part of a key that names a model: all of it, or what comes before the last ``#``."""
    before, mark, _ = key.rpartition("#")
    return before if mark and not Path(key).is_dir() else key


def size_of(value: Any) -> int | None:
    """Bytes of the weights, where the object or its ``model`` has parameters; None where unknown."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    parameters = getattr(getattr(value, "model", value), "parameters", None)
    if not callable(parameters):
        return None
    return sum(p.numel() * p.element_size() for p in parameters())
