"""SGLang behind our engine interface: requests go over loopback HTTP, events come back from the streams.

A thread of its own runs the connections (``streams``); all state belongs to the caller's thread. What differs from the
torch engine: seeds have no effect (SGLang draws from one generator for the whole batch), penalties lie in [-2, 2] and
count in log-probabilities, and times are those at which chunks arrive here.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from pipo.engine.types import Event, Method, Request
from pipo.errors import BadInput, JobFailed
from pipo.sglang import launch
from pipo.sglang.facts import Facts, read_facts
from pipo.sglang.launch import ServerSettings
from pipo.sglang.server import Server
from pipo.sglang.streams import Streams
from pipo.sglang.wire import Assembler, Decode, Live, News, Room, check, depth_of

STEP_WAIT_S = 0.5
DEATH_WAIT_S = 15.0  # SGLang diagnoses a crash for a while before its processes end
STOP_S = 1.0
SEEDS = "engine sglang does not honour seeds: samples differ from run to run"


class SglangEngine:
    """Turns requests of one model and method into events.

    At most one of these has a server in a process: starting one ends the other's, since each takes a device's memory
    for itself. The server starts with the first request. Where it dies, it is started again once, and requests that had
    not finished begin anew (``Event.restarted``); the second death raises JobFailed.

    Args:
        method: what all requests decode by; a threshold may differ from request to request, a depth may not.
        decode: ids -> text, for stop strings.
    """

    _running: SglangEngine | None = None

    def __init__(
        self, folder: Path, method: Method, settings: ServerSettings, decode: Decode | None = None, name: str = ""
    ) -> None:  # fmt: skip
        self.model: Facts = read_facts(folder)
        self.method, self.decode, self.name = method, decode, name or str(folder)
        launch.check_method(self.model, method)
        self.settings = settings
        self.submitted: dict[str, float] = {}
        self.deaths = 0
        self._server: Server | None = None
        self._room = Room(0, 0)
        self._live: dict[str, Live] = {}
        self._ready: deque[Event] = deque()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._count = 0
        self._streams: Streams | None = None
        self.attach()

    def attach(
        self, report: Callable[[str], None] = lambda text: None, check: Callable[[], None] = lambda: None
    ) -> None:  # fmt: skip
        """A new job begins: who hears of starts, what may break them off (by raising), and no deaths yet."""
        self._report, self._check, self.deaths = report, check, 0

    @property
    def max_batch(self) -> int:
        return self.settings.max_running or launch.MAX_RUNNING

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running, or its end has not been told."""
        return bool(self._live or self._ready)

    @property
    def loaded(self) -> bool:
        """Whether its server runs and takes memory."""
        return self._server is not None

    def resize(self, *, max_batch: int) -> None:
        """Allow another number of running requests; a server that runs is started anew. Not while requests run."""
        self.configure(msgspec.structs.replace(self.settings, max_running=max_batch))

    def configure(self, settings: ServerSettings) -> None:
        """Take other settings; a server with the old ones ends. Not while requests run."""
        if settings == self.settings:
            return
        self._idle("settings cannot change")
        self.close()
        self.settings = settings

    def submit(self, request: Request) -> None:
        """Queue a request, starting the server where none runs; BadInput where it breaks a rule or cannot ever fit."""
        if request.id in self._live:
            raise BadInput(f"request id {request.id!r} is running already; ids of live requests must differ")
        if _kind(request.method) != _kind(self.method):
            raise BadInput(f"this engine decodes by {_kind(self.method)}, not by {_kind(request.method)}; load another")
        if self._server is None:
            self._start()
        slots = check(request, self.model, self._room, self.decode is not None)
        self._send(request, slots)

    def cancel(self, request_id: str) -> None:
        """End a request at the next step, with finish ``cancelled``; one that has ended already is left alone."""
        live = self._live.pop(request_id, None)
        if live is None:
            return
        self._ready = deque(e for e in self._ready if e.request_id != request_id)
        self._ready.append(Event(request_id=request_id, time=time.perf_counter(), finish="cancelled"))
        if self._streams is not None:
            self._streams.abort(live)

    def step(self) -> list[Event]:
        """What came out since the last step, at most an event a request; waits for the first, but not for long."""
        deadline = time.monotonic() + STEP_WAIT_S
        while not self._ready and self._live and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._take(self._news.get(timeout=left))
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._news.get_nowait())
        return self._first_of_each()

    def generate(
        self, requests: Iterable[Request], on_event: Callable[[Event], None] | None = None
    ) -> dict[str, list[Event]]:
        """Submit all requests and step until they are done; events by request id, each in order."""
        out: dict[str, list[Event]] = {}
        for request in requests:
            self.submit(request)
            out[request.id] = []
        left = set(out)
        while left:
            for event in self.step():
                if event.request_id not in out:
                    continue
                if event.restarted:
                    out[event.request_id].clear()
                else:
                    out[event.request_id].append(event)
                if event.finish:
                    left.discard(event.request_id)
                if on_event:
                    on_event(event)
        return out

    def reload(self, folder: Path) -> None:
        """Load other weights of the same shape into the running server and forget its prefixes. Raises JobFailed."""
        self._idle("weights cannot be reloaded")
        self.model = read_facts(folder)
        if self._server is None:
            return
        try:
            said = self._server.ask("/update_weights_from_disk", {"model_path": str(folder), "flush_cache": True})
        except (OSError, ValueError) as e:
            raise JobFailed(f"SGLang did not take the weights of {folder}: {e}") from e
        if not said.get("success"):
            raise JobFailed(f"SGLang did not take the weights of {folder}: {said.get('message')}")

    def close(self) -> None:
        """End the server and the thread; requests that run are dropped. The engine starts again when it is used."""
        self._live.clear()
        self._ready.clear()
        streams, self._streams = self._streams, None
        if streams is not None:
            streams.close()
        server, self._server = self._server, None
        if SglangEngine._running is self:
            SglangEngine._running = None
        if server is not None:
            server.stop(STOP_S)

    # The server --------------------------------------------------------------------------------------------------

    def _idle(self, what: str) -> None:
        if self.busy:
            raise BadInput(f"{what} while requests run; wait until the engine is not busy")

    def _start(self) -> None:
        other = SglangEngine._running
        if other is not None and other is not self:
            other.close()
        plan = launch.plan(self.model.folder, self.method, self.settings, name=self.name)
        server = Server(plan)
        server.start(lambda stage: self._report(f"SGLang for {self.name}, {self.method.name}: {stage}"), self._check)
        self._server, SglangEngine._running = server, self
        context = self.settings.context or self.model.config.max_position_embeddings
        try:
            info = server.ask("/server_info", timeout_s=60.0)
            self._room = Room(context - _reserved(self.method), int(info["max_total_num_tokens"]))
        except (OSError, ValueError, KeyError, TypeError) as e:
            self.close()
            raise JobFailed(f"SGLang started, but does not say how much room it has ({e}); see {server.log}") from e
        self._streams = Streams(server.url, server.headers(), self.model.config.pad_token_id, self._news)

    def _died(self, lost: str) -> None:
        """A connection broke. Start the server again and submit what had not finished, the first time."""
        server = self._server
        assert server is not None
        if server.alive and not server.wait(DEATH_WAIT_S):
            raise JobFailed(f"the connection to SGLang broke ({lost}), though it runs; its log is {server.log}")
        reason = server.reason()
        self.deaths += 1
        waiting = [(live.request, live.slots) for live in self._live.values()]
        told = [e for e in self._ready if e.request_id not in self._live]  # ends that were not heard of yet
        self.close()
        self._ready.extend(told)
        if self.deaths > 1:
            raise JobFailed(
                f"SGLang ended while it generated, for the second time: {reason}; finished items are kept, its log is "
                f"{server.log}"
            )
        self._report(f"SGLang ended while it generated ({reason}); it is started again, once")
        self._start()
        for request, slots in waiting:
            self._send(request, slots)
            now = self.submitted[request.id]
            self._ready.append(Event(request_id=request.id, time=now, restarted=True))

    # Requests ----------------------------------------------------------------------------------------------------

    def _send(self, request: Request, slots: int) -> None:
        assert self._streams is not None
        self._count += 1
        assembler = Assembler(request, self.model, self.decode)
        live = Live(request, slots, f"{self._count:012d}", assembler)
        self._live[request.id] = live
        while len(self.submitted) > 100_000:
            del self.submitted[next(iter(self.submitted))]
        self.submitted[request.id] = time.perf_counter()
        self._streams.open(live)

    def _take(self, news: News) -> None:
        if self._live.get(news.live.request.id) is not news.live:
            return  # cancelled, or begun anew
        if news.chunk is None:
            self._died(news.lost)
            return
        events = news.live.assembler.events(news.chunk, news.time)
        self._ready.extend(events)
        if events and events[-1].finish:
            del self._live[news.live.request.id]

    def _first_of_each(self) -> list[Event]:
        now: dict[str, Event] = {}
        later: deque[Event] = deque()
        for event in self._ready:
            if event.request_id in now:
                later.append(event)
            else:
                now[event.request_id] = event
        self._ready = later
        return list(now.values())


def _kind(method: Method) -> str:
    """What of a method is fixed when a server starts."""
    return f"{method.name} of depth {method.depth}" if method.name == "eagle" else method.name


def _reserved(method: Method) -> int:
    """Places of a request's context that SGLang keeps for drafts."""
    depth = depth_of(method)
    return depth + 1 if depth else 0
