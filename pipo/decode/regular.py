"""Regular decoding: one token a step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pipo.decode.sampling import Purpose
from pipo.engine import forward as fw
from pipo.engine.commit import Outcome
from pipo.engine.frame import Decoder, Drawn, Frame, Read


def token(f: Frame, h_nH: Tensor) -> Drawn:
    """Draw the next token of each row from the backbone's hiddens and carry it to the next step."""
    logits = fw.logits(f.w, h_nH)
    ids = f.sample(logits, Purpose.TOKEN)
    f.note(ids)
    return Drawn({"token": ids}, ids[:, None], tell, scored=[(logits, ids)])


def tell(read: Read) -> list[Outcome]:
    """One token a row."""
    return [Outcome((t,), logprobs=read.logprob(i, 0, 1)) for i, (t,) in enumerate(read.ids)]


def first(f: Frame, hidden_nH: Tensor) -> Iterator[Drawn]:
    """The first token, right from the prefill."""
    yield token(f, hidden_nH)


def step(f: Frame) -> Drawn:
    """One backbone pass, one token."""
    h_nH, _ = f.backbone(f.embed(f.carry["token"]))
    return token(f, h_nH)


DECODER = Decoder(first, step, pairs=False, mtp=False)
