"""Which items of a task are taken: the first so many, a slice, a shard. The same item is the same in all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from pipo.errors import BadInput

T = TypeVar("T")


def parse_slice(text: str | None) -> slice:
    """``10:20`` as the items from number 10 on, 20 not among them, counted from 0; None is all.

    Raises:
        BadInput: another form, or one that takes nothing.
    """
    if text is None:
        return slice(None)
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None or text == ":":
        raise BadInput(f"slice {text!r} must read A:B, e.g. 10:20 for ten items, :20 or 10: for the rest")
    first, last = (int(part) if part else None for part in match.groups())
    if last is not None and last <= (first or 0):
        raise BadInput(f"slice {text!r} takes nothing; its second number is the first item left out")
    return slice(first, last)


def take(items: Sequence[T], limit: int | None, part: str | None, name: str) -> list[T]:
    """The items of a slice, and of these the first ``limit``. Raises BadInput where the slice lies behind the end."""
    taken = list(items[parse_slice(part)])
    if not taken:
        raise BadInput(f"slice {part} of {name} takes nothing, it has {len(items)} items; count from 0")
    return taken[:limit]
