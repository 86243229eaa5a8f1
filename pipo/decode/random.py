"""PIPO's twin for the ablation: drafts are kept by coin flip, so the PADs are as many but say nothing."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pipo.decode.pipo import first_pair, next_pair
from pipo.decode.sampling import Purpose
from pipo.engine.batch import Batch, Decoder
from pipo.engine.commit import Outcome


def coin(batch: Batch, h_nH: Tensor, d_nH: Tensor) -> tuple[Tensor, Tensor | None]:
    """Keep with the row's ``keep_rate``, from the sample's own seed; no confidence."""
    return batch.uniform(Purpose.GATE, 1) < batch.keep_rate, None


def first(batch: Batch) -> Iterator[list[Outcome]]:
    """The first pair."""
    return first_pair(batch, coin)


def step(batch: Batch) -> Iterator[list[Outcome]]:
    """The next pair."""
    return next_pair(batch, coin)


DECODER = Decoder(first, step, pairs=True, mtp=True)
