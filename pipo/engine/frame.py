"""What a decoding method sees of its rows for one step, and what it gives back: tensors only, nothing per row.

A method's ``step`` runs without a look at the host, so a GPU can record it as a graph; what it drew comes back in one
transfer and ``Drawn.tell`` turns it into outcomes.

Shape legend: n rows, S new tokens a row, H hidden, V vocabulary, W places that a step may draw for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose, Settings, draw, greedy
from pipo.engine import forward as fw
from pipo.engine.cache import Arena, Plan
from pipo.engine.commit import Outcome
from pipo.engine.types import Logprob
from pipo.engine.weights import Weights


class Read(NamedTuple):
    """What came back to the host: ids a row, confidences, and log-probabilities of each scored place a row."""

    ids: list[list[int]]
    confidence: list[float] | None
    logprobs: list[list[Logprob]] | None  # [row][scored place]

    def logprob(self, row: int, start: int, end: int) -> tuple[Logprob, ...]:
        """Log-probabilities of a row's scored places start .. end-1; nothing where none were asked for."""
        return tuple(self.logprobs[row][start:end]) if self.logprobs is not None else ()


@dataclass(slots=True)
class Drawn:
    """What one pass drew. ``carry``: kept for the next step, row first. ``ids`` [n, m], ``confidence`` [n]: read back.

    ``scored``: logits [n, V] (or over the draft vocabulary) and the ids [n] taken from them, for log-probabilities.
    """

    carry: dict[str, Tensor]
    ids: Tensor
    tell: Callable[[Read], list[Outcome]]
    confidence: Tensor | None = None
    scored: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class Decoder:
    """A decoding method as the engine sees it: a row of the table in ``pipo.decode.table``.

    ``first`` runs once after the prefill of new rows, on their last hiddens [n, H]; it yields what it drew as soon as
    it is known. ``step`` runs at every step. ``mtp``: fill the MTP cache at prefill.
    """

    first: Callable[[Frame, Tensor], Iterator[Drawn]]
    step: Callable[[Frame], Drawn]
    pairs: bool
    mtp: bool


@dataclass(slots=True)
class Frame:
    """Rows first .. first+n-1 of the arena before a step.

    ``pos`` [n]: committed places. ``length``: the most of them, ``ragged``: whether they differ. ``u`` [n, W, 4]:
    uniform numbers of the next W generated places by purpose. ``counts`` [n, V]: how often each id was generated, where
    any row has a penalty on that.
    """

    w: Weights
    arena: Arena
    first: int
    length: int
    ragged: bool
    pos: Tensor
    u: Tensor
    carry: dict[str, Tensor]
    settings: Settings
    threshold: Tensor
    keep_rate: Tensor
    counts: Tensor | None
    depth: int
    pad: int

    @property
    def vocab(self) -> int:
        return self.w.vocab

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [..., H]."""
        return fw.embed(self.w, ids)

    def uniform(self, purpose: Purpose, offset: int = 0) -> Tensor:
        """One uniform number a row, [n] float64, for the place ``offset`` after the row's next one."""
        return self.u[:, offset, purpose]

    def plan(self, pos_n: Tensor, S: int, length: int) -> Plan:
        """Plan S tokens a row from ``pos`` on; no row looks beyond ``length`` places."""
        return self.arena.place(self.first, pos_n, S, length, self.ragged)

    def backbone(self, x_NH: Tensor, S: int = 1) -> tuple[Tensor, Plan]:
        """Run S new inputs a row and keep all of them; hiddens [n*S, H] and the plan, for the MTP pass."""
        plan = self.arena.place(self.first, self.pos, S, self.length + S, self.ragged, keep=True)
        h_NH = fw.step(self.w, self.arena, x_NH, plan)
        if S > 1:
            self.arena.accept(self.first, torch.full_like(self.pos, S))
        return h_NH, plan

    def last_place(self) -> Plan:
        """Plan of the last committed place of each row (the MTP pass that follows a prefill)."""
        return self.plan(self.pos - 1, 1, self.length)

    def sample(self, logits_nV: Tensor, purpose: Purpose, offset: int = 0) -> Tensor:
        """Ids [n] drawn under each row's settings, penalties on what was noted; V for a row that is not finite."""
        if self.settings.all_greedy:
            return greedy(self.settings.penalised(logits_nV, self.counts))
        return draw(self.settings.probabilities(logits_nV, self.counts), self.uniform(purpose, offset))

    def draft(self, d_nH: Tensor, offset: int) -> tuple[Tensor, Tensor, Tensor]:
        """A draft a row from draft hiddens: ids [n], the logits they came from, and their indices in those."""
        logits, ids = fw.draft_logits(self.w, d_nH), self.w.mtp.ids
        if ids is None:
            drawn = self.sample(logits, Purpose.DRAFT, offset)
            return drawn, logits, drawn
        everything = self.counts
        self.counts = None if everything is None else everything[:, ids[:-1]]
        index = self.sample(logits, Purpose.DRAFT, offset)
        self.counts = everything
        return ids[index], logits, index

    def note(self, ids_n: Tensor) -> None:
        """Count ids as generated, for the penalties; PAD may be among them, it is never drawn anyway."""
        if self.counts is not None:
            one = torch.ones(len(ids_n), 1, device=ids_n.device)
            self.counts.scatter_add_(1, ids_n.clamp(max=self.vocab - 1)[:, None], one)
