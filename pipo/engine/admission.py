"""From waiting requests to prefilled rows: who is next, prompts chunk by chunk, one prefill for samples of one prompt.

Short prompts go together, right-padded, into the rows that they will keep. A prompt longer than a chunk runs alone,
one chunk a step, in the arena's last row, out of the way of the batches, and moves when it is done; it stays there as
long as samples of its group wait for rows.

Shape legend: n rows, L places (tokens, or pairs for pair methods), H hidden.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipo.decode.table import DECODERS
from pipo.engine import forward as fw
from pipo.engine.cache import Arena
from pipo.engine.commit import Progress
from pipo.engine.frame import Decoder
from pipo.engine.rows import Key
from pipo.engine.types import Request
from pipo.engine.weights import Weights


def key_of(r: Request) -> Key:
    """Rows with the same key run in one batch."""
    return r.method.name, r.method.depth if r.method.name == "eagle" else 0


def places_of(r: Request) -> int:
    """Backbone places of a prompt."""
    return -(-len(r.prompt) // 2) if r.method.pairs else len(r.prompt)


def shared(r: Request) -> object:
    """What requests that share a prefill have in common."""
    return (key_of(r), r.group, r.prompt) if r.group is not None else r.id


@dataclass
class Long:
    """A prompt that is prefilled chunk by chunk. ``hidden`` [1, H]: after its last place, once it is ``done``."""

    request: Request
    row: int
    done: int = 0
    hidden: Tensor | None = field(default=None, repr=False)

    @property
    def ready(self) -> bool:
        return self.hidden is not None


def next_rows(waiting: deque[Progress], free: int, chunk: int) -> list[Progress]:
    """The first in the queue and others of its method whose prompts fit into one pass of ``chunk`` places with it."""
    key, longest = key_of(waiting[0].request), 0
    chosen: list[Progress] = []
    prompts: set[object] = set()
    for p in waiting:
        r = p.request
        if key_of(r) != key or places_of(r) > chunk:
            continue
        wide = max(longest, places_of(r))
        if chosen and wide * len(prompts | {shared(r)}) > chunk:
            break
        longest = wide
        prompts.add(shared(r))
        chosen.append(p)
        if len(chosen) == free:
            break
    return chosen


def prefill_short(w: Weights, arena: Arena, rows: list[Progress], first: int) -> tuple[list[Progress], Tensor]:
    """Prefill rows from arena row ``first`` on in one pass; their order there, and last hiddens [n, H]."""
    owners: dict[object, Progress] = {}
    for p in rows:
        owners.setdefault(shared(p.request), p)
    own = list(owners.values())
    copies = [p for p in rows if p is not owners[shared(p.request)]]
    place = {shared(p.request): i for i, p in enumerate(own)}
    method = own[0].request.method
    hidden = _pass(w, arena, DECODERS[method.name], [p.request for p in own], first, 0, None)
    for i, p in enumerate(own):
        arena.lens[first + i] = places_of(p.request)
    source = list(range(len(own)))
    for p in copies:
        arena.copy(first + place[shared(p.request)], first + len(source))
        source.append(place[shared(p.request)])
    return own + copies, hidden[torch.tensor(source, device=w.device)]


def prefill_chunk(w: Weights, arena: Arena, long: Long, chunk: int) -> None:
    """Run the next chunk of a long prompt."""
    r, L = long.request, places_of(long.request)
    end = min(L, long.done + chunk)
    hidden = _pass(w, arena, DECODERS[r.method.name], [r], long.row, long.done, end)
    long.done = end
    arena.lens[long.row] = end
    if end == L:
        long.hidden = hidden


def _pass(
    w: Weights,
    arena: Arena,
    decoder: Decoder,
    requests: list[Request],
    first: int,
    start: int,
    end: int | None,
) -> Tensor:
    """Backbone and MTP cache over places start .. end-1 (None: all) of prompts; each row's last hidden [n, H]."""
    width = 2 if decoder.pairs else 1
    lens = [places_of(r) for r in requests] if end is None else [end - start]
    T = max(lens)
    ids = [list(r.prompt[start * width : (start + T + 1) * width]) for r in requests]
    ids_nX = torch.tensor([x + [w.pad] * ((T + 1) * width - len(x)) for x in ids], device=w.device)
    chunk = fw.make_chunk(arena, first, start, lens)
    now_nX = ids_nX[:, : T * width]
    h_nTH = fw.prefill(w, arena, fw.fold(w, now_nX) if decoder.pairs else fw.embed(w, now_nX), chunk)
    if decoder.mtp:
        fw.mtp_fill(w, arena, fw.embed(w, ids_nX[:, width::width]), h_nTH, chunk)
    return h_nTH[torch.arange(len(lens), device=w.device), chunk.lens_n - 1]
