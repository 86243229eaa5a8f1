"""Steps recorded once as CUDA graphs and replayed: without them launching kernels from Python sets the pace on a GPU.

A recorded step reads and writes tensors at fixed addresses, so a frame is copied into static tensors first. To keep the
graphs few, rows are padded to a power of two (with copies of the first row, whose results nobody reads, in rows of the
arena that are free) and the longest row is rounded up. ``record`` False does all of this but the recording: the twin
that runs anywhere and that tests hold equal to plain steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipo.decode.sampling import COLUMNS
from pipo.engine.attention import flash
from pipo.engine.cache import Arena
from pipo.engine.frame import Drawn, Frame

Step = Callable[[Frame], Drawn]
SHORTEST, PARTS = 256, 4  # lengths are rounded up to a quarter of the power of two below them


def padded_rows(n: int, free: int) -> int:
    """The next power of two, where so many rows are free behind the batch; else n."""
    wide = 1 << (n - 1).bit_length()
    return wide if wide - n <= free else n


def padded_length(length: int, most: int) -> int:
    """Rounded up so that there are few different ones, at most ``most``."""
    unit = max(SHORTEST, (1 << (length.bit_length() - 1)) // PARTS)
    return min(most, -(-length // unit) * unit)


def tensors(f: Frame) -> dict[str, Tensor]:
    """All tensors of a frame that change from step to step, by name."""
    found = {"pos": f.pos, "u": f.u, "threshold": f.threshold, "keep_rate": f.keep_rate, "counts": f.counts}
    found |= {f"carry.{k}": t for k, t in f.carry.items()}
    found |= {f"settings.{c}": getattr(f.settings, c) for c in COLUMNS}
    return {k: t for k, t in found.items() if t is not None}


def indexed(f: Frame, rows: Tensor | None, length: int) -> Frame:
    """A frame whose tensors are copies, of these rows (all: None), and which looks at ``length`` places."""
    take = (lambda t: t.clone()) if rows is None else (lambda t: t[rows])
    settings = f.settings.copied(take)
    return replace(
        f, length=length, ragged=True, pos=take(f.pos), u=take(f.u), threshold=take(f.threshold),
        keep_rate=take(f.keep_rate), counts=None if f.counts is None else take(f.counts),
        carry={k: take(t) for k, t in f.carry.items()}, settings=settings,
    )  # fmt: skip


@dataclass
class Recorded:
    """A recorded step: its static input, and the output that each replay overwrites (``graph`` None: run anew)."""

    frame: Frame
    drawn: Drawn | None = None
    graph: Any = None


class Graphs:
    """All recorded steps of an engine; they die with its weights and arena."""

    def __init__(self, arena: Arena, record: bool) -> None:
        self.arena, self.record = arena, record
        like = arena.w.embed
        self.any_length = flash(like.device, like.dtype) is not None  # it reads each row to its end and no further
        self.pool = torch.cuda.graph_pool_handle() if record else None
        self.kept: dict[tuple, Recorded] = {}

    def step(self, method: Step, f: Frame, free: int) -> Drawn:
        """Run a method's step over a frame as a replay. ``free``: unused arena rows right behind the frame's."""
        n = len(f.pos)
        rows = padded_rows(n, free)
        index = torch.arange(rows, device=f.pos.device)
        most = self.arena.plan.context
        length = most if self.any_length else padded_length(f.length, most)
        wide = indexed(f, index.masked_fill_(index >= n, 0), length)
        given = tensors(wide)
        key = (
            method, f.first, wide.length, f.depth, f.settings.k_max, f.settings.all_greedy,
            *((k, tuple(t.shape)) for k, t in given.items()),
        )  # fmt: skip
        if key not in self.kept:
            self.kept[key] = self._make(method, wide)
        recorded = self.kept[key]
        for name, static in tensors(recorded.frame).items():
            static.copy_(given[name])
        if recorded.graph is None:
            recorded.drawn = method(recorded.frame)
        else:
            recorded.graph.replay()
        drawn = recorded.drawn
        assert drawn is not None
        if f.counts is not None and recorded.frame.counts is not None:
            f.counts.copy_(recorded.frame.counts[:n])
        return Drawn(
            {k: t[:n].clone() for k, t in drawn.carry.items()}, drawn.ids[:n], drawn.tell,
            None if drawn.confidence is None else drawn.confidence[:n], [(a[:n], b[:n]) for a, b in drawn.scored],
        )  # fmt: skip

    def _make(self, method: Step, wide: Frame) -> Recorded:
        recorded = Recorded(indexed(wide, None, wide.length))
        if not self.record:
            return recorded
        rows = slice(wide.first, wide.first + len(wide.pos))
        before = [(s.conv[rows].clone(), s.rec[rows].clone()) for s in self.arena.states]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm-up runs write the rows' states; keys and values they write again later
            for _ in range(2):
                method(recorded.frame)
                for s, (conv, rec) in zip(self.arena.states, before, strict=True):
                    s.conv[rows], s.rec[rows] = conv, rec
                for name, t in tensors(wide).items():
                    tensors(recorded.frame)[name].copy_(t)
        torch.cuda.current_stream().wait_stream(side)
        recorded.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded.graph, pool=self.pool):  # what a replay leaves is read before the next one
            recorded.drawn = method(recorded.frame)
        return recorded
