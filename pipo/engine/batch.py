"""Rows that one method decodes together: their caches, sampling state, and what a method carries between steps.

Shape legend: n rows, H hidden, V vocabulary, L places of a prefill (tokens, or pairs for pair methods).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose, Settings, Stream, draw, greedy
from pipo.engine import forward as fw
from pipo.engine.cache import Angles, Cache, Plan
from pipo.engine.commit import Outcome, Progress, commit
from pipo.engine.types import Event
from pipo.engine.weights import Weights

Pass = Callable[["Batch"], Iterator[list[Outcome]]]


@dataclass(frozen=True)
class Decoder:
    """A decoding method as the engine sees it: a row of the table in ``pipo.decode.table``.

    ``first`` runs once after the prefill of new rows, ``step`` at every step; both yield outcomes, one a row, as soon
    as they are known. Between steps they keep what they need in ``Batch.carry``. ``mtp``: fill the MTP cache.
    """

    first: Pass
    step: Pass
    pairs: bool
    mtp: bool


class Batch:
    """Rows 0 .. n-1 of one method. ``carry``: tensors of the method, row first. ``hidden`` [n, H]: after prefill."""

    def __init__(self, w: Weights, decoder: Decoder, rows: list[Progress], cache: Cache, hidden_nH: Tensor) -> None:
        self.w, self.decoder, self.rows, self.cache, self.hidden = w, decoder, rows, cache, hidden_nH
        self.pad, self.vocab = rows[0].limits.pad, rows[0].limits.vocab
        self.streams = [Stream(r.request.seed) for r in rows]
        self.carry: dict[str, Tensor] = {}
        self.seen: Tensor | None = None
        self._arrange()
        if self.settings.penalty is not None:
            self.seen = hidden_nH.new_zeros(len(rows), self.vocab, dtype=torch.float32)

    def _arrange(self) -> None:
        """Settings of the rows as tensors; call after rows came or went."""
        requests = [r.request for r in self.rows]
        self.settings = Settings([r.sampling for r in requests], self.vocab, self.w.device)
        taus = [{0.0: -1.0, 1.0: 2.0}.get(t, t) for t in (r.method.threshold for r in requests)]
        self.threshold = torch.tensor(taus, device=self.w.device, dtype=torch.float32)
        self.keep_rate = torch.tensor([r.method.keep_rate for r in requests], device=self.w.device, dtype=torch.float64)
        self.depth = requests[0].method.depth if requests else 0

    # -- what methods use ---------------------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [..., H]; an id that marks a failed row reads the last token's."""
        return fw.embed(self.w, ids.clamp(max=self.vocab - 1))

    def uniform(self, purpose: Purpose, offset: int | list[int] = 0) -> Tensor:
        """One uniform number a row, [n] float64, for the place ``offset`` (of each row) after the row's next one."""
        offsets = [offset] * len(self.rows) if isinstance(offset, int) else offset
        values = [s.at(purpose, b + o) for s, b, o in zip(self.streams, self.base, offsets, strict=True)]
        return torch.tensor(values, dtype=torch.float64, device=self.w.device)

    def sample(self, hidden_nH: Tensor, purpose: Purpose, offset: int = 0) -> Tensor:
        """Ids [n] drawn from the head over ``hidden`` under each row's settings, penalties on what was noted."""
        logits = fw.logits(self.w, hidden_nH)
        if self.settings.all_greedy:
            return greedy(self.settings.penalised(logits, self.seen))
        return draw(self.settings.probabilities(logits, self.seen), self.uniform(purpose, offset))

    def note(self, ids_nM: Tensor) -> None:
        """Count ids as generated, for the presence penalty; PAD may be among them, it is never drawn anyway."""
        if self.seen is not None:
            self.seen.scatter_(1, ids_nM.clamp(max=self.vocab - 1), 1.0)

    def last_place(self) -> Plan:
        """Plan of the last committed place of each row (the MTP pass that follows a prefill)."""
        return self.cache.plan([length - 1 for length in self.cache.lens], 1)

    def backbone(self, x_NH: Tensor, S: int = 1) -> tuple[Tensor, Plan]:
        """Run S new inputs a row and commit their places; hiddens [n*S, H] and the plan, for the MTP pass."""
        plan = self.cache.plan(self.cache.lens, S)
        h_NH = fw.step(self.w, self.cache, x_NH, plan)
        self.cache.advance(S)
        return h_NH, plan

    # -- what the engine uses -----------------------------------------------------------------------------------

    def run(self, method: Pass) -> list[Event]:
        """Run ``first`` or ``step`` and commit what comes out; events are stamped as each outcome is known."""
        self.base = [r.place for r in self.rows]
        events = []
        for outcomes in method(self):
            now = time.perf_counter()
            for row, outcome in zip(self.rows, outcomes, strict=True):
                if row.finish is None:
                    events.append(commit(row, outcome, now))
        return events

    def drop_finished(self) -> None:
        """Let finished rows go; the last rows take their places."""
        order = list(range(len(self.rows)))
        i = 0
        while i < len(order):
            if self.rows[order[i]].finish is None:
                i += 1
            elif i == len(order) - 1:
                order.pop()
            else:
                order[i] = order.pop()
        if len(order) < len(self.rows):
            self._keep(order)

    def _keep(self, order: list[int]) -> None:
        self.rows = [self.rows[i] for i in order]
        if not self.rows:
            return
        self.streams = [self.streams[i] for i in order]
        self.cache.keep(order)
        index = torch.tensor(order, device=self.w.device)
        self.carry = {k: t[index] for k, t in self.carry.items()}
        self.seen = None if self.seen is None else self.seen[index]
        self._arrange()

    def join(self, other: Batch) -> None:
        """Take over the rows of another batch of the same method."""
        if self.seen is not None or other.seen is not None:
            self.seen = torch.cat([b._seen_or_zeros() for b in (self, other)])
        self.carry = {k: torch.cat([t, other.carry[k]]) for k, t in self.carry.items()}
        self.cache.join(other.cache)
        self.rows += other.rows
        self.streams += other.streams
        self._arrange()

    def _seen_or_zeros(self) -> Tensor:
        """``seen``, which rows without a penalty have not kept (theirs does not matter)."""
        if self.seen is not None:
            return self.seen
        return self.w.embed.new_zeros(len(self.rows), self.vocab, dtype=torch.float32)


def prefill(w: Weights, angles: Angles, decoder: Decoder, rows: Sequence[Progress]) -> Batch:
    """A batch of new rows after one ragged backbone pass over their prompts; rows of one group share it."""
    index: dict[object, int] = {}
    prompts: list[tuple[int, ...]] = []
    owner = []
    for i, r in enumerate(rows):
        key = (r.request.group, r.request.prompt) if r.request.group is not None else i
        if key not in index:
            index[key] = len(prompts)
            prompts.append(r.request.prompt)
        owner.append(index[key])
    pad, width = rows[0].limits.pad, 2 if decoder.pairs else 1
    lens = [-(-len(p) // width) for p in prompts]
    L = max(lens)
    ids_BT = torch.tensor([[*p, *([pad] * (L * width - len(p)))] for p in prompts], device=w.device)
    embed_BTH = fw.embed(w, ids_BT)
    room = max(min(r.limits.slots, r.limits.tokens, 256) for r in rows) + rows[0].request.method.depth + 1
    cache = Cache(w, angles, lens, L + room)
    if decoder.pairs:
        assert w.compressor is not None
        h_BLH = fw.prefill(w, cache, w.compressor(embed_BTH))
    else:
        h_BLH = fw.prefill(w, cache, embed_BTH)
    if decoder.mtp and L > 1:
        fw.mtp_fill(w, cache, embed_BTH[:, width::width], h_BLH[:, :-1])
    last = torch.tensor(lens, device=w.device) - 1
    hidden = h_BLH[torch.arange(len(lens), device=w.device), last]
    if len(owner) > len(lens):
        cache, hidden = cache.repeat(owner), hidden[torch.tensor(owner, device=w.device)]
    return Batch(w, decoder, list(rows), cache, hidden)
