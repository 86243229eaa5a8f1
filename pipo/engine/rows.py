"""Which arena rows belong to whom: batches stand side by side from row 0 on, in the order in which they were made.

Shape legend: none; rows are counted, tensors move inside ``Batch`` and ``Arena``.
"""

from __future__ import annotations

from pipo.engine.batch import Batch

Key = tuple[str, int]


class Rows:
    """The running batches by method (and depth), side by side."""

    def __init__(self) -> None:
        self.batches: dict[Key, Batch] = {}

    @property
    def end(self) -> int:
        """The first row that no batch has."""
        return sum(b.n for b in self.batches.values())

    def is_last(self, key: Key) -> bool:
        """Whether new rows of this key stand behind all others, so that nobody moves for them."""
        return key not in self.batches or key == next(reversed(self.batches))

    def room(self, key: Key, count: int) -> int:
        """Free so many rows right behind the batch of this key (or behind all); the first of them."""
        if key not in self.batches:
            return self.end
        keys = list(self.batches)
        for later in reversed(keys[keys.index(key) + 1 :]):
            self.batches[later].shift(count)
        return self.batches[key].end

    def add(self, key: Key, new: Batch) -> None:
        """Add rows that stand where ``room`` said."""
        if key in self.batches:
            self.batches[key].join(new)
        else:
            self.batches[key] = new

    def close_ranks(self) -> None:
        """Drop finished rows and move the batches together again."""
        at = 0
        for key, batch in list(self.batches.items()):
            batch.drop_finished()
            if not batch.rows:
                del self.batches[key]
                continue
            if batch.first > at:
                batch.shift(at - batch.first)
            at = batch.end
