"""Rows that one method decodes together: a range of the arena, their sampling state, what the method carries.

Shape legend: n rows, H hidden, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipo.decode.sampling import Settings, chosen_logprobs, logprob_rows
from pipo.engine.cache import Arena
from pipo.engine.commit import Progress, commit
from pipo.engine.frame import Decoder, Drawn, Frame, Read
from pipo.engine.graphs import Graphs
from pipo.engine.numbers import Numbers
from pipo.engine.types import Event
from pipo.engine.weights import Weights


class Batch:
    """Rows ``first`` .. ``first + n - 1`` of the arena, of one method. ``carry``: the method's tensors, row first."""

    def __init__(self, w: Weights, arena: Arena, decoder: Decoder, rows: list[Progress], first: int) -> None:
        self.w, self.arena, self.decoder, self.rows, self.first = w, arena, decoder, rows, first
        self.numbers = Numbers([r.request.seed for r in rows])
        self.carry: dict[str, Tensor] = {}
        self.counts: Tensor | None = None
        self._arrange()
        if self.settings.counts:
            self.counts = self._no_counts()

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def end(self) -> int:
        """The row after the last one."""
        return self.first + len(self.rows)

    def _no_counts(self) -> Tensor:
        return torch.zeros(self.n, self.w.vocab, device=self.w.device)

    def _arrange(self) -> None:
        """Settings of the rows as tensors; call after rows came or went."""
        requests = [r.request for r in self.rows]
        self.settings = Settings([r.sampling for r in requests], self.w.vocab, self.w.device)
        taus = [{0.0: -1.0, 1.0: 2.0}.get(t, t) for t in (r.method.threshold for r in requests)]
        self.threshold = torch.tensor(taus, device=self.w.device, dtype=torch.float32)
        self.keep_rate = torch.tensor([r.method.keep_rate for r in requests], device=self.w.device, dtype=torch.float64)
        method = requests[0].method
        self.depth = method.depth if method.name == "eagle" else 1
        asked = [r.logprobs for r in requests if r.logprobs is not None]
        self.top = max(asked) if asked else None

    def frame(self) -> Frame:
        """What the method sees of the rows now."""
        lens, device = self.arena.lens[self.first : self.end], self.w.device
        numbers = self.numbers.at(np.array([r.place for r in self.rows]), self.depth + 1)
        longest = int(lens.max())
        return Frame(
            w=self.w, arena=self.arena, first=self.first, length=longest, ragged=bool(lens.min() < longest),
            pos=torch.from_numpy(lens.copy()).to(device), u=torch.from_numpy(numbers).to(device), carry=self.carry,
            settings=self.settings, threshold=self.threshold, keep_rate=self.keep_rate, counts=self.counts,
            depth=self.depth, pad=self.rows[0].limits.pad,
        )  # fmt: skip

    def begin(self, hidden_nH: Tensor) -> list[Event]:
        """The first tokens of rows that were just prefilled, from their last hiddens."""
        events = []
        for drawn in self.decoder.first(self.frame(), hidden_nH):
            self.carry = drawn.carry
            events += self._commit(drawn)
        return events

    def step(self, graphs: Graphs | None = None, free: int = 0) -> list[Event]:
        """One step of the method for all rows. ``free``: unused arena rows right behind them."""
        frame = self.frame()
        drawn = self.decoder.step(frame) if graphs is None else graphs.step(self.decoder.step, frame, free)
        self.carry = drawn.carry
        before = [r.slots for r in self.rows]
        events = self._commit(drawn)
        # a row that ended within the step has fewer slots than places written; it leaves now anyway
        self.arena.lens[self.first : self.end] += [r.slots - b for r, b in zip(self.rows, before, strict=True)]
        return events

    def _commit(self, drawn: Drawn) -> list[Event]:
        read = self._read(drawn)
        now = time.perf_counter()
        sound = max(map(max, read.ids)) < self.w.vocab
        rows = zip(self.rows, drawn.tell(read), strict=True)
        return [commit(row, outcome, now, sound) for row, outcome in rows if row.finish is None]

    def _read(self, drawn: Drawn) -> Read:
        """Bring what was drawn to the host."""
        confidence = None if drawn.confidence is None else drawn.confidence.tolist()
        logprobs = None
        if self.top is not None:
            places = [self._scores(logits, ids) for logits, ids in drawn.scored]
            logprobs = [list(row) for row in zip(*places, strict=True)]
        return Read(drawn.ids.tolist(), confidence, logprobs)

    def _scores(self, logits: Tensor, ids: Tensor) -> list:
        assert self.top is not None
        own, top_ids, top = chosen_logprobs(logits, ids, self.top)
        if logits.shape[1] < self.w.vocab:  # the draft head's columns stand for ids of the draft vocabulary
            assert self.w.mtp.ids is not None
            top_ids = self.w.mtp.ids[top_ids]
        return logprob_rows(own, top_ids, top)

    # -- rows that come, go and move ----------------------------------------------------------------------------

    def drop_finished(self) -> int:
        """Let finished rows go; the last rows take their places. How many went."""
        order = list(range(self.n))
        i = 0
        while i < len(order):
            row = order[i]
            if self.rows[row].finish is None:
                i += 1
                continue
            if self.rows[row].finish == "failed":
                self.arena.clear(self.first + row)
            last = order.pop()
            if last != row:
                order[i] = last
        gone = self.n - len(order)
        if gone:
            for i, row in enumerate(order):
                if i != row:
                    self.arena.copy(self.first + row, self.first + i)
            self._reorder(order)
        return gone

    def _reorder(self, order: Sequence[int]) -> None:
        self.rows = [self.rows[i] for i in order]
        if not self.rows:
            return
        self.numbers.keep(order)
        index = torch.tensor(order, device=self.w.device)
        self.carry = {k: t[index] for k, t in self.carry.items()}
        self.counts = None if self.counts is None else self.counts[index]
        self._arrange()

    def shift(self, by: int) -> None:
        """Move the range up (or down, ``by`` < 0) over as many free rows, by moving rows from one end to the other."""
        moved = min(abs(by), self.n)
        order = list(range(self.n))
        if by > 0:
            sources, target = range(self.first, self.first + moved), self.first + max(self.n, by)
            order = order[moved:] + order[:moved]
        else:
            sources, target = range(self.end - moved, self.end), self.first + by
            order = order[self.n - moved :] + order[: self.n - moved]
        for i, source in enumerate(sources):
            self.arena.copy(source, target + i)
        self.first += by
        if moved < self.n:
            self._reorder(order)

    def join(self, other: Batch) -> None:
        """Take over the rows of another batch of the same method, whose range follows this one's."""
        assert other.first == self.end
        if self.counts is not None or other.counts is not None:
            both = [b._no_counts() if b.counts is None else b.counts for b in (self, other)]
            self.counts = torch.cat(both)
        self.carry = {k: torch.cat([t, other.carry[k]]) for k, t in self.carry.items()}
        self.rows += other.rows
        self.numbers.join(other.numbers)
        self._arrange()
