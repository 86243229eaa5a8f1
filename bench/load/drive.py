"""One point on an engine: requests submitted when they are due, the engine stepped between. Torch-free.

The engine and this loop share a thread, so a request that falls due during a step waits for the step's end, as it would
in any engine that admits between steps. That wait counts, because times count from when a request was due; ``sent_s``
shows it. ``own_s`` is what this loop itself costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench.load.records import RequestRecord
from bench.load.workload import Ask
from bench.runner import Engine, clean_exit
from pipo.engine.types import Event, Method, Request, Sampling
from pipo.errors import BadInput

SLEEP_S = 0.05  # longest sleep without asking whether the job was cancelled
SPIN_S = 0.0005
JOIN_S = 0.0002  # chunks of SGLang's closer than this came in one read: no step of a server is as short


class How(NamedTuple):
    """How requests of a point come: open loop by ``Ask.due_s``, or ``concurrency`` at a time, until ``duration_s``."""

    concurrency: int | None = None
    duration_s: float | None = None
    timeout_s: float = 120.0


class Driven(NamedTuple):
    """What came of a point. ``most``: requests in flight at the peak. The rest as in PointRecord."""

    records: list[RequestRecord]
    wall_s: float
    most: int
    own_s: float | None = None
    cpu_s: float | None = None
    lag_s: dict[str, float] | None = None


class _Open:
    """A request on its way: what came so far, by engine step."""

    def __init__(self, ask: Ask, due: float, record: RequestRecord) -> None:
        self.ask, self.due, self.record = ask, due, record
        self.step = -1
        self.last = float("-inf")  # when its last event came
        self.timed_out = False

    def add(self, e: Event, step: int, began: float, queues: bool) -> None:
        """Take in an event of the engine's step of that number, which began then. A restart voids what came before."""
        r, at = self.record, round(e.time - self.due, 7)
        if e.restarted:
            r.chunk_s, r.chunk_tokens, r.ids = [], [], []
            r.first_s = r.pair_s = r.queue_s = -1.0
            r.slots = r.offered = r.kept = 0
            self.step = -1
            return
        if e.tokens:
            if not r.chunk_s:
                r.first_s = at
                r.queue_s = round(max(0.0, began - self.due), 7) if queues else -1.0
            before = len(r.ids)
            r.ids += e.tokens
            if before < 2 <= len(r.ids):
                r.pair_s = at
            if step == self.step:  # tokens of one step are one chunk, which is there when all of them are
                r.chunk_s[-1] = at
                r.chunk_tokens[-1] += len(e.tokens)
            else:
                r.chunk_s.append(at)
                r.chunk_tokens.append(len(e.tokens))
            self.step = step
        r.slots += e.slots
        r.offered += len(e.drafts)
        r.kept += sum(d.kept for d in e.drafts)


class Drive:
    """Drives one engine through one point.

    Args:
        asks: in the order in which they come. check: raises Cancelled to stop; called between steps.
        progress: hears how many requests are over.
        queues: whether an engine step's begin says when a request left the queue (not so for SGLang).
    """

    def __init__(
        self, engine: Engine, method: Method, sampling: Sampling, point: str, variant: str, *,
        check: Callable[[], None] = lambda: None, progress: Callable[[int], None] = lambda n: None,
        queues: bool = True,
    ) -> None:  # fmt: skip
        self.engine, self.method, self.sampling, self.point, self.variant = engine, method, sampling, point, variant
        self.check, self.progress, self.queues = check, progress, queues
        self.live: dict[str, _Open] = {}
        self.over: list[RequestRecord] = []
        self.most = self.steps = 0
        self.busy_s = self.slept_s = 0.0
        self.start = 0.0

    def run(self, asks: Sequence[Ask], how: How) -> Driven:
        """All requests to their ends."""
        self.start = time.perf_counter()
        with clean_exit(self.engine, self.live):
            if how.concurrency is None:
                self._open_loop(asks, how)
            else:
                self._closed_loop(asks, how, how.concurrency)
        wall = time.perf_counter() - self.start
        records = sorted(self.over, key=lambda r: r.index)
        return Driven(records, wall, self.most, own_s=max(0.0, wall - self.busy_s - self.slept_s))

    def _open_loop(self, asks: Sequence[Ask], how: How) -> None:
        waiting, n = list(asks), 0
        while n < len(waiting) or self.live:
            self.check()
            now = time.perf_counter() - self.start
            while n < len(waiting) and waiting[n].due_s <= now:
                self._submit(waiting[n], self.start + waiting[n].due_s)
                n += 1
            due = self.start + waiting[n].due_s if n < len(waiting) else None
            self._advance(due, how.timeout_s)

    def _closed_loop(self, asks: Sequence[Ask], how: How, concurrency: int) -> None:
        """A request is due when a place gets free: the end, by the engine's clock, of the one that had it."""
        n, seen, places = 0, 0, [self.start] * concurrency
        while True:
            self.check()
            places += [self.start + r.ended_s for r in self.over[seen:]]
            seen = len(self.over)
            late = how.duration_s is not None and time.perf_counter() - self.start >= how.duration_s
            while places and n < len(asks) and not late:
                self._submit(asks[n], places.pop(0))
                n += 1
            if not self.live and (n >= len(asks) or late):
                return
            self._advance(None, how.timeout_s)

    def _submit(self, ask: Ask, due: float) -> None:
        name = f"load/{self.point}/{ask.number}/{time.perf_counter_ns()}"
        request = Request(
            id=name, prompt=ask.ids, method=self.method, sampling=self.sampling, seed=ask.seed,
            max_slots=ask.max_slots, max_tokens=ask.max_tokens, ignore_eos=ask.ignore_eos,
        )  # fmt: skip
        sent = time.perf_counter()
        record = RequestRecord(
            point=self.point, variant=self.variant, index=ask.number, due_s=round(due - self.start, 7),
            sent_s=round(sent - self.start, 7), ended_s=0.0, prompt_tokens=len(ask.ids), sample=ask.sample,
            item=ask.item.id if ask.item else "",
        )  # fmt: skip
        made = _Open(ask, due, record)
        began = time.perf_counter()
        try:
            self.engine.submit(request)
        except BadInput as e:  # too long for the model or its memory: this request fails, the rest goes on
            self._end(made, time.perf_counter(), "failed", str(e))
            return
        finally:
            self.busy_s += time.perf_counter() - began
        self.live[name] = made
        self.most = max(self.most, len(self.live))

    def _advance(self, due: float | None, timeout_s: float) -> None:
        """One engine step; or, where nothing runs, sleep until the next request is due."""
        if not self.engine.busy:
            for name in list(self.live):  # nothing more will come of these: an engine should not, a loop must end
                self._end(self.live.pop(name), time.perf_counter(), "failed", "the engine lost it")
            if due is not None and (left := due - time.perf_counter()) > 0:
                began = time.perf_counter()
                time.sleep(min(left, SLEEP_S))
                self.slept_s += time.perf_counter() - began
            return
        if hasattr(self.engine, "wait_s"):  # it may wait for news, but not past the next request
            self.engine.wait_s = SLEEP_S if due is None else min(SLEEP_S, max(SPIN_S, due - time.perf_counter()))
        began = time.perf_counter()
        events = self.engine.step()
        ended = time.perf_counter()
        self.busy_s += ended - began
        self.steps += 1
        for e in events:
            if (request := self.live.get(e.request_id)) is None:
                continue
            request.add(e, self._step_of(request, e), began, self.queues)
            if e.finish is not None:
                del self.live[e.request_id]
                self._finish(request, e)
        for name, request in self.live.items():
            if not request.timed_out and ended - request.due > timeout_s:
                request.timed_out = True
                self.engine.cancel(name)

    def _step_of(self, request: _Open, e: Event) -> int:
        """Which step an event is of. SGLang's come by themselves: what came at once was read late, and is one chunk."""
        if self.queues:
            return self.steps
        before, request.last = request.last, e.time
        return request.step + (e.time - before >= JOIN_S)

    def _finish(self, request: _Open, e: Event) -> None:
        if request.timed_out and e.finish == "cancelled":
            waited = e.time - request.due
            self._end(request, e.time, "timeout", f"not over {waited:.1f} s after it was due; it was cancelled")
        elif e.finish in ("failed", "cancelled"):
            self._end(request, e.time, "failed", e.error or f"the engine ended it as {e.finish}")
        else:
            request.record.finish = str(e.finish)
            self._end(request, e.time, "ok", None)

    def _end(self, request: _Open, at: float, status: Any, error: str | None) -> None:
        r = request.record
        r.status, r.error, r.ended_s = status, error, round(at - self.start, 7)
        self.over.append(r)
        self.progress(len(self.over))
