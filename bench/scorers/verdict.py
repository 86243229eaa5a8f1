"""What a scorer says. Torch-free."""

from __future__ import annotations

from typing import Literal

import msgspec

By = Literal["exact", "normalised", "number", "symbolic", "letter", "execution", "none"]


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """Right or wrong, why in words, and by which means that was found (``none``: there was nothing to compare).

    ``limit``: a limit ended the matter, so that it is wrong for lack of an answer in time. ``cpu_s``, ``wall_s``:
    what running code took; ``waited_s``: for how long it was ready and had no CPU, None where that is not known.
    """

    right: bool
    reason: str
    by: By = "none"
    limit: bool = False
    cpu_s: float = 0.0
    wall_s: float = 0.0
    waited_s: float | None = None


def shown(text: str, most: int = 60) -> str:
    """A text for a message: on one line, printable, not longer than about ``most``."""
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
    return ascii(cut).replace("\\\\", "\\").replace("\\u2026", "…")
