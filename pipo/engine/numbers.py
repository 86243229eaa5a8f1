"""Uniform numbers for many rows at once: the same numbers as ``pipo.decode.sampling.Stream``, cached a block a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipo.decode.sampling import Purpose, uniforms

PLACES = 64  # places a row's block covers


class Numbers:
    """One seed a row; rows come and go as those of a batch do."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        self.start = np.full(len(self.seeds), -PLACES, dtype=np.int64)
        self.block = np.empty((len(self.seeds), PLACES, len(Purpose)))

    def at(self, place_n: np.ndarray, count: int) -> np.ndarray:
        """Numbers [n, count, purposes] of the ``count`` places of each row from ``place`` [n] on; count <= PLACES."""
        for i in np.flatnonzero((place_n < self.start) | (place_n + count > self.start + PLACES)):
            self.start[i] = place_n[i]
            numbers = uniforms(self.seeds[i], int(place_n[i]) * len(Purpose), PLACES * len(Purpose))
            self.block[i] = np.reshape(numbers, (PLACES, len(Purpose)))
        places = (place_n - self.start)[:, None] + np.arange(count)
        out: np.ndarray = self.block[np.arange(len(self.seeds))[:, None], places]
        return out

    def keep(self, order: Sequence[int]) -> None:
        """Rows in a new order; those not named are gone."""
        self.seeds = [self.seeds[i] for i in order]
        self.start, self.block = self.start[list(order)], self.block[list(order)]

    def join(self, other: Numbers) -> None:
        """Append the rows of another one."""
        self.seeds += other.seeds
        self.start = np.concatenate([self.start, other.start])
        self.block = np.concatenate([self.block, other.block])
