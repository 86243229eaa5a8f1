"""What the client itself costs: it against an endpoint, and an engine, that answer at once. Torch-free.

The endpoint is a server of our own on loopback, in a thread of this process: it shares the interpreter with the client,
so that times of whole requests are an upper bound. Time a chunk is CPU time of the client's thread alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.load.drive import Drive, How
from bench.load.http_drive import HttpDrive
from bench.load.records import ClientRecord, PointRecord, RequestRecord
from bench.load.workload import Ask
from pipo.engine.types import Event, Method, Request, Sampling

CHUNKS = 64
REQUESTS = 100
RATE = 100.0
LONG, PACE_S = 5, 0.001  # answers whose chunks come one by one, so that each is a read of its own
LIMIT = 0.05  # overhead above this share of a median is worth a warning
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = b'data: {"choices":[{"index":0,"text":"a b","token_ids":[5,6],"finish_reason":null}]}\n\n'
_LAST = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class NullServer:
    """A loopback endpoint that answers every request with ``chunks`` chunks, ``pace_s`` apart (0: at once).

    A context manager, gives its url.
    """

    def __init__(self, chunks: int, pace_s: float = 0.0) -> None:
        self._chunks, self._pace = chunks, pace_s
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="null-endpoint")

    def __enter__(self) -> str:
        self._thread.start()
        self._ready.wait(10.0)
        return f"http://127.0.0.1:{self._port}/v1/completions"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    def _serve(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._one, "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._tidy())
        self._loop.close()

    async def _tidy(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:  # one connection, many requests
                head = await reader.readuntil(b"\r\n\r\n")
                fields = (line.lower().partition(b":") for line in head.split(b"\r\n"))
                await reader.readexactly(next(int(v) for name, _, v in fields if name == b"content-length"))
                await self._answer(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        if self._pace:
            for _ in range(self._chunks):
                writer.write(_frame(_CHUNK))
                await asyncio.sleep(self._pace)
            writer.write(_frame(_LAST) + _frame(b""))
        else:
            writer.write(_frame(_CHUNK * self._chunks + _LAST) + _frame(b""))
        await writer.drain()


def _frame(data: bytes) -> bytes:
    """A chunk of HTTP's chunked coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class NullEngine:
    """An engine that answers at once: ``chunks`` steps of two tokens each, for all its requests together."""

    max_batch = 1 << 20
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=1 << 20))

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.submitted: dict[str, float] = {}
        self._left: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def resize(self, *, max_batch: int) -> None:
        pass

    def submit(self, request: Request) -> None:
        self.submitted[request.id] = time.perf_counter()
        self._left[request.id] = self.chunks

    def cancel(self, request_id: str) -> None:
        self._left.pop(request_id, None)

    def step(self) -> list[Event]:
        out, now = [], time.perf_counter()
        for name, left in list(self._left.items()):
            end: Any = "eos" if left == 1 else None
            out.append(Event(request_id=name, time=now, tokens=(5, 6), places=(5, 6), slots=1, finish=end))
            self._left[name] = left - 1
            if left == 1:
                del self._left[name]
        return out


def of_endpoint(check: Callable[[], None] = lambda: None) -> ClientRecord:
    """The endpoint client's own costs."""
    ask = Ask(0, 0.0, 0, ids=tuple(range(64)), max_tokens=2)

    def drive(chunks: int, asks: list[Ask], concurrency: int | None, pace_s: float = 0.0) -> Any:
        with NullServer(chunks, pace_s) as url:
            client = HttpDrive(url, {}, lambda a: {"prompt": list(a.ids)}, "null", "null", check=check)
            return client.run(asks, How(concurrency=concurrency, timeout_s=30.0))

    many = [ask._replace(number=i) for i in range(REQUESTS)]
    alone = drive(1, many, 1)
    long = drive(CHUNKS, many[:LONG], 1, PACE_S)
    paced = drive(1, [a._replace(due_s=a.number / RATE) for a in many], None)
    chunk = max(0.0, long.cpu_s / LONG - alone.cpu_s / REQUESTS) / CHUNKS
    return _record("endpoint", alone.records, paced.records, chunk)


def of_engine(check: Callable[[], None] = lambda: None) -> ClientRecord:
    """The costs of the loop that drives an engine in this process."""
    ask = Ask(0, 0.0, 0, ids=tuple(range(64)), max_tokens=2)

    def drive(chunks: int, asks: list[Ask], concurrency: int | None) -> Any:
        made = Drive(NullEngine(chunks), Method(), Sampling(), "null", "null", check=check)
        return made.run(asks, How(concurrency=concurrency, timeout_s=30.0))

    many = [ask._replace(number=i) for i in range(REQUESTS)]
    alone, long = drive(1, many, 1), drive(CHUNKS, many, 1)
    paced = drive(1, [a._replace(due_s=a.number / RATE) for a in many], None)
    return _record("engine", alone.records, paced.records, long.own_s / (REQUESTS * CHUNKS))


def _record(
    side: Any, alone: list[RequestRecord], paced: list[RequestRecord], chunk: float
) -> ClientRecord:  # fmt: skip
    return ClientRecord(
        side=side, requests=len(alone), chunks=CHUNKS, request_s=_spread([r.ended_s - r.due_s for r in alone]),
        chunk_s=chunk, send_delay_s=_spread([r.sent_s - r.due_s for r in paced]),
    )  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": float(np.quantile(values, 0.5)), "p99": float(np.quantile(values, 0.99))}


def warnings(client: ClientRecord, point: PointRecord, medians: dict[str, float | None]) -> list[str]:
    """Sentences on what of a point's medians (``ttft``, ``gap``, seconds) may be the client's own.

    On an engine the loop's own time delays steps: its share of the wall time counts. On an endpoint a request's and a
    chunk's own cost count, and the event loop's lag.
    """
    out = []
    ttft, gap = medians.get("ttft"), medians.get("gap")
    if point.own_s is not None and point.own_s > LIMIT * point.wall_s:
        out.append(f"the client's own code took {100 * point.own_s / point.wall_s:.0f}% of the time")
    if point.waited_s is not None and point.waited_s > LIMIT * point.wall_s:
        share = 100 * point.waited_s / point.wall_s
        out.append(
            f"for {share:.0f}% of the time this process was ready and had no CPU: others on the machine disturbed it"
        )
    if client.side == "endpoint" or point.own_s is None:
        if ttft and client.request_s["p50"] > LIMIT * ttft:
            share = 100 * client.request_s["p50"] / ttft
            out.append(f"a request that is answered at once takes the client {share:.0f}% of the median first token")
        if gap and client.chunk_s > LIMIT * gap:
            out.append(f"a chunk costs the client {100 * client.chunk_s / gap:.0f}% of the median gap")
        lag = (point.lag_s or {}).get("p99", 0.0)
        if ttft and lag > LIMIT * ttft:
            out.append(
                f"the client's event loop was late by {1000 * lag:.1f} ms (p99), over 5% of the median first token"
            )
    return out
