"""One point on an OpenAI endpoint: requests sent when they are due, answers read as they stream. Torch-free.

One event loop in the job's thread; while it runs, how late it wakes is measured (``lag_s``). Whatever an endpoint does
ends in a record: answered, failed with a reason, or timed out.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np

from bench.load.drive import Driven, How
from bench.load.records import RequestRecord
from bench.load.sse import Answer, BadStream
from bench.load.workload import Ask

CHECK_S = 0.25
LAG_S = 0.01
SHOWN = 300  # characters of an answer in a reason
Body = Callable[[Ask], dict[str, Any]]


class HttpDrive:
    """Drives one endpoint through one point.

    Args:
        url: of the completions. headers: with the key, which no message repeats. body: a request's, from an Ask.
        check: raises Cancelled to stop. progress: hears how many requests are over.
    """

    def __init__(
        self, url: str, headers: dict[str, str], body: Body, point: str, variant: str, *,
        check: Callable[[], None] = lambda: None, progress: Callable[[int], None] = lambda n: None,
    ) -> None:  # fmt: skip
        self.url, self.headers, self.body, self.point, self.variant = url, headers, body, point, variant
        self.check, self.progress = check, progress
        self.over: list[RequestRecord] = []
        self.lags: list[float] = []
        self.live = self.most = 0
        self.start = 0.0

    def run(self, asks: Sequence[Ask], how: How) -> Driven:
        """All requests to their ends."""
        cpu = time.thread_time()
        asyncio.run(self._run(asks, how))
        cpu = time.thread_time() - cpu
        wall = max((r.ended_s for r in self.over), default=0.0)
        records = sorted(self.over, key=lambda r: r.index)
        lag = {name: float(np.quantile(self.lags, q)) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
        return Driven(records, wall, self.most, cpu_s=cpu, lag_s=lag)

    async def _run(self, asks: Sequence[Ask], how: How) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:
            work = self._open_loop if how.concurrency is None else self._closed_loop
            guards = [asyncio.create_task(self._guard()), asyncio.create_task(self._watch_lag())]
            main = asyncio.create_task(work(client, asks, how))
            try:
                await asyncio.wait({main, guards[0]}, return_when=asyncio.FIRST_COMPLETED)
                for task in (guards[0], main):
                    if task.done():
                        task.result()
            finally:
                await _end([main, *guards])

    async def _guard(self) -> None:
        while True:
            self.check()
            await asyncio.sleep(CHECK_S)

    async def _watch_lag(self) -> None:
        self.lags.append(0.0)
        while True:
            wanted = time.perf_counter() + LAG_S
            await asyncio.sleep(LAG_S)
            self.lags.append(max(0.0, time.perf_counter() - wanted))

    async def _open_loop(self, client: httpx.AsyncClient, asks: Sequence[Ask], how: How) -> None:
        self.start = time.perf_counter()
        tasks: list[asyncio.Task[float]] = []
        try:
            for ask in asks:
                due = self.start + ask.due_s
                if (left := due - time.perf_counter()) > 0:
                    await asyncio.sleep(left)
                tasks.append(asyncio.create_task(self._one(client, ask, due, how.timeout_s)))
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)

    async def _closed_loop(self, client: httpx.AsyncClient, asks: Sequence[Ask], how: How) -> None:
        self.start = time.perf_counter()
        waiting = iter(asks)

        async def place() -> None:
            free = self.start
            for ask in waiting:
                if how.duration_s is not None and time.perf_counter() - self.start >= how.duration_s:
                    return
                free = await self._one(client, ask, free, how.timeout_s)

        tasks = [asyncio.create_task(place()) for _ in range(how.concurrency or 1)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)

    async def _one(self, client: httpx.AsyncClient, ask: Ask, due: float, timeout_s: float) -> float:
        """One request to its end; returns when that was."""
        content = msgspec.json.encode(self.body(ask))
        sent = time.perf_counter()
        r = RequestRecord(
            point=self.point, variant=self.variant, index=ask.number, due_s=round(due - self.start, 7),
            sent_s=round(sent - self.start, 7), ended_s=0.0, counted="chunks", sample=ask.sample,
            item=ask.item.id if ask.item else "",
        )  # fmt: skip
        answer = Answer(due)
        self.live += 1
        self.most = max(self.most, self.live)
        try:
            async with asyncio.timeout(max(0.001, timeout_s - (sent - due))):
                await self._stream(client, content, answer)
        except TimeoutError:
            waited = time.perf_counter() - due
            r.status, r.error = "timeout", f"not over {waited:.1f} s after it was due; it was dropped"
        except (BadStream, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ssl.SSLError) as e:
            r.status, r.error = "failed", reason(e, answer)
        finally:
            self.live -= 1
        ended = time.perf_counter()
        answer.fill(r)
        if r.status != "ok":
            r.finish = ""
        r.ended_s = round(ended - self.start, 7)
        self.over.append(r)
        self.progress(len(self.over))
        return ended

    async def _stream(self, client: httpx.AsyncClient, content: bytes, answer: Answer) -> None:
        async with client.stream("POST", self.url, content=content, headers=self.headers) as response:
            kind = response.headers.get("content-type", "none named")
            if response.status_code != 200 or not kind.startswith("text/event-stream"):
                said = await _begin(response)
                what = f"HTTP {response.status_code}" if response.status_code != 200 else f"no stream but {kind}"
                raise BadStream(f"{what}: {said}")
            clock = _Clock()
            async for data in response.aiter_bytes():
                answer.feed(data, clock.read())
                if answer.done:
                    break
            answer.end(time.perf_counter())


class _Clock:
    """The time of a read from the socket: what is handled without the event loop turning came in one read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now: float | None = None

    def read(self) -> float:
        """When the read that is being handled returned, by perf_counter."""
        if self._now is None:
            self._now = time.perf_counter()
            self._loop.call_soon(self._turned)
        return self._now

    def _turned(self) -> None:
        self._now = None


async def _begin(response: httpx.Response) -> str:
    """How an answer begins that is no stream, on one line."""
    found = b""
    async for data in response.aiter_bytes():
        found += data
        if len(found) >= SHOWN:
            break
    text = " ".join(found[:SHOWN].decode(errors="replace").split())
    return ascii(text)[1:-1] or "nothing"


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait for it; what those tasks raised is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def reason(e: BaseException, answer: Answer) -> str:
    """Why a request failed, in words."""
    if isinstance(e, BadStream):
        return str(e)
    where = "in the middle of the answer" if answer.started else "before anything came"
    words: dict[type, str] = {
        httpx.ConnectError: "no connection",
        httpx.RemoteProtocolError: f"the connection broke {where}",
        httpx.ReadError: f"the connection broke {where}",
    }
    what = words.get(type(e), type(e).__name__)
    return f"{what} ({e})" if str(e) else what
