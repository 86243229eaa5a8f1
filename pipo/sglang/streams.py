"""The connections of an engine to its server: a thread with an event loop, one stream a request, news into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from typing import Any

import msgspec

from pipo.sglang.wire import Chunk, Live, News, payload

LINE_BYTES = 1 << 23  # a line has the log-probabilities of all tokens that came since the last one
CLOSE_S = 10.0
_decode = msgspec.json.Decoder(Chunk).decode


class Streams:
    """Opens and aborts streams; called from one thread, which reads ``news``. ``pad``: the model's PAD."""

    def __init__(self, url: str, headers: dict[str, str], pad: int, news: queue.SimpleQueue[News]) -> None:
        self._url, self._headers, self._pad, self._news = url, headers, pad, news
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._session: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="sglang-streams")
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result(CLOSE_S)

    def open(self, live: Live) -> None:
        """Send a request and follow it."""
        self._loop.call_soon_threadsafe(self._begin, live)

    def abort(self, live: Live) -> None:
        """Have the server end a request; nothing more is told of it that matters."""
        asyncio.run_coroutine_threadsafe(self._abort(live), self._loop)

    def close(self) -> None:
        """End all streams and the thread."""
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    # In the thread -----------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        import aiohttp  # comes with sglang; whoever has none gets no further than the checks

        self._session = aiohttp.ClientSession(
            self._url, headers=self._headers, connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None), read_bufsize=LINE_BYTES,
        )  # fmt: skip

    async def _disconnect(self) -> None:
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def _begin(self, live: Live) -> None:
        self._tasks[live.rid] = task = self._loop.create_task(self._stream(live))
        task.add_done_callback(lambda _: self._tasks.pop(live.rid, None))

    async def _stream(self, live: Live) -> None:
        import aiohttp

        lost = "the stream ended early"
        body = payload(live.request, live.rid, live.slots, self._pad)
        try:
            async with self._session.post("/generate", json=body) as answer:
                if answer.status != 200:
                    error = {"message": f"SGLang answered {answer.status}: {(await answer.text())[:500]}"}
                    self._news.put(News(live, time.perf_counter(), Chunk(error=error)))
                    return
                async for line in answer.content:
                    now = time.perf_counter()
                    if line.startswith(b"data: [DONE]"):
                        return
                    if line.startswith(b"data: "):
                        self._news.put(News(live, now, _decode(line[6:])))
        except (aiohttp.ClientError, OSError, ValueError) as e:
            lost = f"{type(e).__name__}: {e}"
        self._news.put(News(live, time.perf_counter(), lost=lost))

    async def _abort(self, live: Live) -> None:
        import aiohttp

        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with self._session.post("/abort_request", json={"rid": live.rid}):
                pass
        task = self._tasks.get(live.rid)
        if task is not None:
            task.cancel()
