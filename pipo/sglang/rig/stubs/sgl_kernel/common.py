"""What the stand-ins share: refusals that name the kernel, and sequences sorted by length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def alike(lens: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Sequences by length [n], so that padding at most doubles them: rows, and the length of the longest of them."""
    groups = defaultdict(list)
    for row, length in enumerate(lens.tolist()):
        groups[(length - 1).bit_length()].append(row)
    for rows in groups.values():
        index = torch.tensor(rows)
        yield index, int(lens[index].max())


def only(where: str, **given: Any) -> None:
    """Refuse arguments that would change the result and that none of our models uses."""
    for name, value in given.items():
        if value is not None:
            raise NotImplementedError(f"{where} was called with {name}, which the CPU rig's stand-in does not know")


def chain(where: str, topk: int) -> None:
    """Refuse draft trees."""
    if topk != 1:
        raise NotImplementedError(
            f"{where} was called for topk {topk}; the CPU rig drafts chains: set speculative_eagle_topk to 1"
        )
