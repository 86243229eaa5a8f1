"""The embedded engine: continuous batching of any mix of methods over one model, on a CPU or one GPU.

A step either prefills (one pass of at most ``chunk`` places) or advances every running row by one step of its method;
while both are due they take turns, so a long prompt delays running rows by one chunk at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipo.decode.table import DECODERS
from pipo.engine.admission import Long, key_of, next_rows, places_of, prefill_chunk, prefill_short, shared
from pipo.engine.batch import Batch
from pipo.engine.cache import Arena
from pipo.engine.commit import Progress
from pipo.engine.graphs import Graphs
from pipo.engine.heap import keep_freed_memory
from pipo.engine.layout import make_weights
from pipo.engine.limits import check
from pipo.engine.plan import MemoryPlan, make_plan
from pipo.engine.rows import Rows
from pipo.engine.stops import Decode, StopFinder
from pipo.engine.types import Event, Request
from pipo.errors import BadInput

REMEMBERED = 100_000  # submit times that are kept after their requests ended


class TorchEngine:
    """Turns requests into events.

    Args:
        max_batch: rows that run at a time, over all methods. context: most backbone places of a row; without it what
            the model has and ``memory`` (bytes of cache; default ``plan.free_memory``) holds. Both are fixed until
            ``resize``.
        chunk: places of one prefill pass.
        decode: ids -> text, for stop strings.
        mixed: allow every method on a PIPO model. For timing: a PIPO backbone is not trained for single tokens.
        graphs: record steps as CUDA graphs (default: on a GPU).

    ``submitted``: submit time of each request, on perf_counter's clock. The engine holds fused copies of the weights:
    ``reload`` after the model was trained further.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_batch: int = 64,
        context: int | None = None,
        memory: int | None = None,
        chunk: int = 4096,
        decode: Decode | None = None,
        mixed: bool = False,
        graphs: bool | None = None,
    ) -> None:
        if chunk < 1:
            raise BadInput(f"chunk {chunk} must be at least 1 place")
        self.model, self.chunk, self.decode, self.mixed = model, chunk, decode, mixed
        self.submitted: dict[str, float] = {}
        self._wanted: dict[str, Any] = {"max_batch": max_batch, "context": context, "memory": memory}
        self._record = (model.device.type == "cuda") if graphs is None else graphs
        self._waiting: deque[Progress] = deque()
        self._groups: dict[str, tuple[int, ...]] = {}  # prompts of the groups that wait
        self._rows = Rows()
        self._long: Long | None = None
        self._live: dict[str, Progress] = {}
        self._cancelled: set[str] = set()
        self._prefilled = self.asleep = False
        self.weights = make_weights(model)
        keep_freed_memory()
        self._arrange(self._plan(self._wanted))

    @property
    def max_batch(self) -> int:
        return self.plan.rows

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._live)

    def _plan(self, wanted: dict[str, Any], held: int = 0) -> MemoryPlan:
        return make_plan(self.weights, self.model.config.max_position_embeddings, **wanted, held=held)

    def _arrange(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self.arena = Arena(self.weights, plan)
        self._graphs = self._new_graphs()

    def _new_graphs(self) -> Graphs | None:
        return Graphs(self.arena, record=self.model.device.type == "cuda") if self._record else None

    def _idle(self, what: str) -> None:
        if self.busy:
            raise BadInput(f"{what} while requests run; wait until the engine is not busy")

    @torch.no_grad()
    def reload(self) -> None:
        """Read the model's weights again, and wake up where the engine slept; not while requests run."""
        self._idle("weights cannot be reloaded")
        self.weights = make_weights(self.model)
        if self.asleep:
            self.asleep = False
            self._arrange(self.plan)
        else:
            self.arena.w = self.weights
            self._graphs = self._new_graphs()

    def sleep(self) -> None:
        """Give back the memory of the caches and of the fused weights until ``reload``; not while requests run."""
        self._idle("an engine cannot sleep")
        if not self.asleep:
            self.asleep = True
            del self.weights, self.arena, self._graphs

    def resize(self, *, max_batch: int | None = None, context: int | None = None) -> None:
        """Make another memory plan; not while requests run. BadInput where it does not fit (the old one stays)."""
        self._idle("the memory plan cannot change")
        if self.asleep:
            self.reload()
        wanted = {**self._wanted, "max_batch": max_batch or self.max_batch, "context": context}
        plan = self._plan(wanted, held=self.plan.bytes)
        self._wanted = wanted
        del self.arena, self._graphs  # their memory goes before the new arena's comes
        self._arrange(plan)

    def submit(self, request: Request) -> None:
        """Queue a request; BadInput where it breaks a rule or cannot ever fit the plan."""
        if self.asleep:
            raise BadInput("the engine sleeps; wake it with reload first")
        if request.id in self._live:
            raise BadInput(f"request id {request.id!r} is running already; ids of live requests must differ")
        limits = check(request, self.model, self.plan, mixed=self.mixed, can_decode=self.decode is not None)
        if request.group is not None and self._groups.get(request.group, request.prompt) != request.prompt:
            raise BadInput(f"requests of group {request.group!r} have different prompts; a group shares one prompt")
        while len(self.submitted) > REMEMBERED:
            del self.submitted[next(iter(self.submitted))]
        self.submitted[request.id] = time.perf_counter()
        stop = StopFinder(request.stop, self.decode) if request.stop and self.decode else None
        self._live[request.id] = progress = Progress(request, limits, stop)
        self._waiting.append(progress)
        if request.group is not None:
            self._groups[request.group] = request.prompt

    def cancel(self, request_id: str) -> None:
        """End a request at the next step, with finish ``cancelled``; one that has ended already is left alone."""
        if request_id in self._live:
            self._cancelled.add(request_id)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Advance by one step and say what came out."""
        events = self._cancel()
        self._prefilled = self._prefill_is_due()
        if self._prefilled:
            events += self._prefill()
        else:
            for batch in self._rows.batches.values():
                events += self._decode(batch)
        self._retire(events)
        return events

    def generate(
        self, requests: Iterable[Request], on_event: Callable[[Event], None] | None = None
    ) -> dict[str, list[Event]]:
        """Submit all requests and step until they are done; events by request id, each in order."""
        out: dict[str, list[Event]] = {}
        for request in requests:
            self.submit(request)
            out[request.id] = []
        open_ids = set(out)
        while open_ids:
            for event in self.step():
                if event.request_id in out:
                    out[event.request_id].append(event)
                if event.finish:
                    open_ids.discard(event.request_id)
                if on_event:
                    on_event(event)
        return out

    def _free(self) -> int:
        """Rows that nobody has; a long prompt in the making has the last one."""
        return self.plan.rows - self._rows.end - (self._long is not None)

    def _prefill_is_due(self) -> bool:
        if self._long is None:
            can = bool(self._waiting) and self._free() > 0
        else:
            can = not self._long.ready or bool(self._members())
        return can and not (self._prefilled and self._rows.batches)

    def _members(self) -> list[Progress]:
        """Waiting requests of the long prompt that can have a row now."""
        assert self._long is not None
        one = shared(self._long.request)
        members = [p for p in self._waiting if shared(p.request) == one]
        # one may take the prompt's own row where nobody reads it after, and nobody would be moved onto it
        own = (self.plan.rows == 1 or len(members) == 1) and self._long.row == self._rows.end
        return members[: self._free() or int(own and self._rows.is_last(key_of(self._long.request)))]

    def _prefill(self) -> list[Event]:
        if self._long is None:
            first = self._waiting[0].request
            if places_of(first) > self.chunk:
                self._long = Long(first, self.plan.rows - 1)
            else:
                return self._prefill_short()
        if not self._long.ready:
            prefill_chunk(self.weights, self.arena, self._long, self.chunk)
        return self._start_long() if self._long.ready else []

    def _prefill_short(self) -> list[Event]:
        chosen = next_rows(self._waiting, self._free(), self.chunk)
        self._take(chosen)
        row = self._rows.room(key_of(chosen[0].request), len(chosen))
        rows, hidden = prefill_short(self.weights, self.arena, chosen, row)
        return self._start(rows, row, hidden)

    def _start_long(self) -> list[Event]:
        """Give the prefilled long prompt to as many of its requests as find rows; let it go if none is left."""
        long = self._long
        assert long is not None and long.hidden is not None
        members = self._members()
        self._take(members)
        row = self._rows.room(key_of(long.request), len(members))
        for i in range(len(members)):
            if row + i != long.row:
                self.arena.copy(long.row, row + i)
        if row + len(members) > long.row:
            self._long = None  # its row is a member's now
        elif not self._more_of(long):
            self._drop_long()
        return self._start(members, row, long.hidden.expand(len(members), -1)) if members else []

    def _drop_long(self) -> None:
        """Let the long prompt go, and leave nothing in its row that may not be finite."""
        assert self._long is not None
        self.arena.clear(self._long.row)
        self._long = None

    def _more_of(self, long: Long) -> bool:
        return any(shared(p.request) == shared(long.request) for p in self._waiting)

    def _take(self, chosen: list[Progress]) -> None:
        gone = {id(p) for p in chosen}
        self._waiting = deque(p for p in self._waiting if id(p) not in gone)
        if not self._waiting:
            self._groups.clear()

    def _start(self, rows: list[Progress], row: int, hidden_nH: Tensor) -> list[Event]:
        """Draw the first tokens of prefilled rows and add them to the batch of their method."""
        key = key_of(rows[0].request)
        new = Batch(self.weights, self.arena, DECODERS[key[0]], rows, row)
        events = new.begin(hidden_nH)
        self._rows.add(key, new)
        return events

    def _decode(self, batch: Batch) -> list[Event]:
        free = self._free() if batch.end == self._rows.end else 0
        return batch.step(self._graphs, free)

    def _cancel(self) -> list[Event]:
        """Finish the requests that were cancelled since the last step."""
        events = []
        for request_id in sorted(self._cancelled):
            self._live[request_id].finish = "cancelled"
            events.append(Event(request_id=request_id, time=time.perf_counter(), finish="cancelled"))
        if self._cancelled:
            self._waiting = deque(p for p in self._waiting if p.finish is None)
            if self._long is not None and not self._more_of(self._long):
                self._drop_long()
            self._rows.close_ranks()
            self._cancelled.clear()
        return events

    def _retire(self, events: list[Event]) -> None:
        """Let requests go whose last event is among ``events``."""
        ended = [e.request_id for e in events if e.finish]
        for request_id in ended:
            self._live.pop(request_id, None)
        if ended:
            self._rows.close_ranks()
        if self._graphs is not None and any(e.finish == "failed" for e in events):
            for row in range(self._rows.end, self.plan.rows - (self._long is not None)):
                self.arena.clear(row, whole=True)  # padding computes with copies of a row that may have been this one
