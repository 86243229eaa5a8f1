"""The embedded engine: continuous batching of any mix of methods over one model, on a CPU or one GPU.

A step either prefills requests that wait and fit, or advances every running row by one step of its method.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch

from pipo.decode.table import DECODERS
from pipo.engine.batch import Batch, prefill
from pipo.engine.cache import Angles
from pipo.engine.commit import Limits, Progress
from pipo.engine.types import Event, Request
from pipo.engine.weights import make_weights
from pipo.errors import BadInput

NO_LIMIT = 1 << 62
REMEMBERED = 100_000  # submit times that are kept after their requests ended


class TorchEngine:
    """Turns requests into events.

    ``max_batch``: rows that run at a time, over all methods. ``prefill_places``: padded backbone places of one
    prefill pass (a longer prompt runs alone). ``submitted``: submit time of each request, on perf_counter's clock.
    The engine holds fused copies of the weights: ``reload`` after the model was trained further.
    """

    def __init__(self, model: Any, *, max_batch: int = 64, prefill_places: int = 8192) -> None:
        if max_batch < 1:
            raise BadInput(f"max_batch {max_batch} must be at least 1")
        self.model, self.max_batch, self.prefill_places = model, max_batch, prefill_places
        self.submitted: dict[str, float] = {}
        self._waiting: deque[Progress] = deque()
        self._groups: dict[str, tuple[int, ...]] = {}  # prompts of the groups that wait
        self._batches: dict[tuple[str, int], Batch] = {}
        self._live: dict[str, Progress] = {}
        self._cancelled: set[str] = set()
        self.reload()

    def reload(self) -> None:
        """Read the model's weights again; not while requests run."""
        if self.busy:
            raise BadInput("weights cannot be reloaded while requests run; wait until the engine is not busy")
        self.weights = make_weights(self.model)
        self.angles = Angles(self.weights)

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._live)

    def submit(self, request: Request) -> None:
        """Queue a request; BadInput where it breaks a rule."""
        limits = self._limits(request)
        while len(self.submitted) > REMEMBERED:
            del self.submitted[next(iter(self.submitted))]
        self.submitted[request.id] = time.perf_counter()
        self._live[request.id] = progress = Progress(request, limits)
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
        if chosen := self._schedule():
            events += self._start(chosen)
        else:
            for batch in self._batches.values():
                events += batch.run(batch.decoder.step)
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

    def _cancel(self) -> list[Event]:
        """Finish the requests that were cancelled since the last step."""
        events = []
        for request_id in sorted(self._cancelled):
            self._live[request_id].finish = "cancelled"
            events.append(Event(request_id=request_id, time=time.perf_counter(), finish="cancelled"))
        if self._cancelled:
            self._waiting = deque(p for p in self._waiting if p.finish is None)
            for batch in self._batches.values():
                batch.drop_finished()
            self._batches = {key: b for key, b in self._batches.items() if b.rows}
            self._cancelled.clear()
        return events

    def _schedule(self) -> list[Progress]:
        """Waiting requests to prefill now: the first in the queue and others of its method that fit beside it."""
        free = self.max_batch - sum(len(b.rows) for b in self._batches.values())
        if not self._waiting or free < 1:
            return []
        key, longest = _key(self._waiting[0].request), 0
        chosen: list[Progress] = []
        prompts: set[object] = set()
        for p in self._waiting:
            r = p.request
            if _key(r) != key:
                continue
            one = (r.group, r.prompt) if r.group else r.id
            wide = max(longest, _places(r))
            if chosen and wide * len(prompts | {one}) > self.prefill_places:
                break
            longest = wide
            prompts.add(one)
            chosen.append(p)
            if len(chosen) == free:
                break
        gone = {id(p) for p in chosen}
        self._waiting = deque(p for p in self._waiting if id(p) not in gone)
        if not self._waiting:
            self._groups.clear()
        return chosen

    def _start(self, rows: list[Progress]) -> list[Event]:
        """Prefill new rows, draw their first tokens and add them to the batch of their method."""
        key = _key(rows[0].request)
        batch = prefill(self.weights, self.angles, DECODERS[key[0]], rows)
        events = batch.run(batch.decoder.first)
        batch.drop_finished()
        if not batch.rows:
            return events
        if key in self._batches:
            self._batches[key].join(batch)
        else:
            self._batches[key] = batch
        return events

    def _retire(self, events: list[Event]) -> None:
        """Let requests go whose last event is among ``events``."""
        ended = [e.request_id for e in events if e.finish]
        for request_id in ended:
            del self._live[request_id]
        if ended:
            for batch in self._batches.values():
                batch.drop_finished()
            self._batches = {key: b for key, b in self._batches.items() if b.rows}

    def _limits(self, r: Request) -> Limits:
        """Check a request against the model and say where it ends."""
        config, model = self.model.config, self.model
        vocab, pad = config.vocab_size, config.pad_token_id
        if r.id in self._live:
            raise BadInput(f"request id {r.id!r} is running already; ids of live requests must differ")
        if r.method.pairs and not model.is_pipo:
            raise BadInput(f"method {r.method.name!r} needs a PIPO model; this is a regular one (regular, mtp, eagle)")
        if not r.method.pairs and model.is_pipo:
            raise BadInput(f"method {r.method.name!r} needs a regular model; this is a PIPO one (pipo, random)")
        if not r.prompt:
            raise BadInput("the prompt is empty; give at least one token, the begin-of-sequence token for instance")
        if bad := [t for t in r.prompt if not 0 <= t < vocab]:
            raise BadInput(f"prompt token {bad[0]} is outside the vocabulary of {vocab}; use this model's tokenizer")
        if pad in r.prompt:
            raise BadInput(f"the prompt has PAD ({pad}) at place {r.prompt.index(pad)}; leave PADs to the engine")
        for name, value in (("max_slots", r.max_slots), ("max_tokens", r.max_tokens)):
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} must be at least 1")
        if r.max_slots is None and r.max_tokens is None:
            raise BadInput(f"request {r.id!r} has no budget; set max_slots or max_tokens")
        if r.group is not None and self._groups.get(r.group, r.prompt) != r.prompt:
            raise BadInput(f"requests of group {r.group!r} have different prompts; a group shares one prompt")
        room = config.max_position_embeddings - _places(r)
        if room < 1:
            unit = "pairs" if r.method.pairs else "tokens"
            raise BadInput(
                f"the prompt has {_places(r)} {unit}, the model {config.max_position_embeddings} positions; shorten it"
            )
        eos = config.eos_token_id
        ids = frozenset(() if r.ignore_eos or eos is None else eos if isinstance(eos, (list, tuple)) else (eos,))
        return Limits(min(r.max_slots or NO_LIMIT, room), r.max_tokens or NO_LIMIT, ids, pad, vocab)


def _key(r: Request) -> tuple[str, int]:
    """Rows with the same key run in one batch."""
    return r.method.name, r.method.depth if r.method.name == "eagle" else 0


def _places(r: Request) -> int:
    """Backbone places of a prompt."""
    return -(-len(r.prompt) // 2) if r.method.pairs else len(r.prompt)
