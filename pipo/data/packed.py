"""Many rows in little memory: all ids in one int32 array, rows cut out of it when they are asked for. Torch-free.

The paper's set has 2.4 billion tokens: 10 GB in here, ten times that as lists of Python integers. The arrays may lie in
a file (pipo.data.cache) as well as in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, overload

import numpy as np


class Row(NamedTuple):
    """One training sequence: unsupervised prompt ids and supervised response ids (EOS included).

    ``source``: ``file.jsonl:12``, for messages; empty for rows that were made on the spot.
    """

    prompt: list[int]
    response: list[int]
    source: str = ""


@dataclass(frozen=True)
class Packed:
    """Arrays of n rows: ``ids`` int32 [tokens], ``starts`` [n + 1], ``borders`` [n] (first place of each response),
    ``lines`` [n] (line numbers), the last three int64."""

    ids: Any
    starts: Any
    borders: Any
    lines: Any

    def arrays(self) -> dict[str, Any]:
        """The arrays by name."""
        return {"ids": self.ids, "starts": self.starts, "borders": self.borders, "lines": self.lines}

    def is_whole(self) -> bool:
        """Whether the arrays fit each other."""
        n = len(self.lines)
        if n == 0 or len(self.starts) != n + 1 or len(self.borders) != n:
            return False
        inside = (self.starts[:-1] < self.borders).all() and (self.borders < self.starts[1:]).all()
        return bool(self.starts[0] == 0 and self.starts[-1] == len(self.ids) and inside)


class Packer:
    """Takes rows one by one and gives them back packed."""

    def __init__(self) -> None:
        self.ids = array("i")
        self.starts, self.borders, self.lines = array("q", [0]), array("q"), array("q")

    def add(self, prompt: list[int], response: list[int], line: int) -> None:
        self.ids.extend(prompt)
        self.borders.append(len(self.ids))
        self.ids.extend(response)
        self.starts.append(len(self.ids))
        self.lines.append(line)

    def done(self) -> Packed:
        wide = (np.frombuffer(a, np.int64) if len(a) else np.zeros(0, np.int64) for a in
                (self.starts, self.borders, self.lines))  # fmt: skip
        ids = np.frombuffer(self.ids, np.int32) if len(self.ids) else np.zeros(0, np.int32)
        return Packed(ids, *wide)


class PackedRows(Sequence[Row]):
    """Rows over packed arrays; ``chosen``: which of them, in order (None: all). Rows are made anew at each access."""

    def __init__(self, packed: Packed, name: str, chosen: Any = None) -> None:
        self.packed, self.name = packed, name
        self.chosen = np.arange(len(packed.lines)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self._row(i) for i in self.chosen[index]]
        return self._row(self.chosen[index])

    def _row(self, i: int) -> Row:
        p = self.packed
        start, border, end = p.starts[i], p.borders[i], p.starts[i + 1]
        return Row(p.ids[start:border].tolist(), p.ids[border:end].tolist(), f"{self.name}:{p.lines[i]}")

    def lengths(self) -> list[int]:
        """Tokens of each row, prompt and response together, without making the rows."""
        counts: list[int] = (self.packed.starts[1:] - self.packed.starts[:-1])[self.chosen].tolist()
        return counts

    def prompt_keys(self) -> list[int]:
        """A number for each row's prompt, the same for the same ids, in every process."""
        p = self.packed
        spans = zip(p.starts[:-1][self.chosen], p.borders[self.chosen], strict=True)
        return [int.from_bytes(blake2b(p.ids[a:b].tobytes(), digest_size=8).digest(), "big") for a, b in spans]

    def pick(self, places: Sequence[int]) -> PackedRows:
        """The rows at these places of this sequence, over the same arrays."""
        return PackedRows(self.packed, self.name, self.chosen[np.asarray(places, np.int64)])

    def response_lengths(self) -> list[int]:
        """Tokens of each response."""
        counts: list[int] = (self.packed.starts[1:] - self.packed.borders)[self.chosen].tolist()
        return counts

    def last_ids(self) -> Any:
        """The last id of each row."""
        return self.packed.ids[self.packed.starts[1:] - 1][self.chosen]
