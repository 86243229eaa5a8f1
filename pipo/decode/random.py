"""PIPO's twin for the ablation: drafts are kept by coin flip, so the PADs are as many but say nothing."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pipo.decode.pipo import first_pair, next_pair
from pipo.decode.sampling import Purpose
from pipo.engine.frame import Decoder, Drawn, Frame


def coin(f: Frame, h_nH: Tensor, d_nH: Tensor) -> tuple[Tensor, Tensor | None]:
    """Keep with the row's ``keep_rate``, from the sample's own seed; no confidence."""
    return f.uniform(Purpose.GATE, 1) < f.keep_rate, None


def first(f: Frame, hidden_nH: Tensor) -> Iterator[Drawn]:
    """The first pair."""
    return first_pair(f, hidden_nH, coin)


def step(f: Frame) -> Drawn:
    """The next pair."""
    return next_pair(f, coin)


DECODER = Decoder(first, step, pairs=True, mtp=True)
