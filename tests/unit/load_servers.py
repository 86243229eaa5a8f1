"""Loopback endpoints that behave, misbehave or hang: real sockets for the tests of load runs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Writer = asyncio.StreamWriter
Answer = Callable[[Writer, dict[str, Any]], Awaitable[None]]
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
MODELS = json.dumps({"data": [{"id": "tiny"}, {"id": "org/other:7b"}]}).encode()


def event(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    """One chunk of a completion."""
    choice = {"index": 0, "text": text, "finish_reason": finish}
    choice |= {k: more.pop(k) for k in ("token_ids", "delta") if k in more}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Endpoint:
    """A server on loopback whose completions are given by ``answer(writer, body)``; a context manager, gives its url.

    ``bodies``: what it was asked. ``models``: how it answers GET /v1/models.
    """

    def __init__(self, answer: Answer, models: bytes = MODELS, status: bytes = b"200 OK") -> None:
        self.answer, self.models, self.status = answer, models, status
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Endpoint:
        self._thread.start()
        assert self._ready.wait(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

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

    async def _one(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if head.startswith(b"GET"):
                kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(self.models)
                writer.write(b"HTTP/1.1 " + self.status + b"\r\n" + kind + self.models)
            else:
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = json.loads(await reader.readexactly(int(fields[b"content-length"])))
                self.bodies.append(body)
                await self.answer(writer, body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def says(*parts: bytes, pause_s: float = 0.0) -> Answer:
    """An endpoint that writes these bytes, with a pause between them, and closes."""

    async def answer(writer: Writer, body: dict[str, Any]) -> None:
        for i, part in enumerate(parts):
            if i and pause_s:
                await asyncio.sleep(pause_s)
            writer.write(part)
            await writer.drain()

    return answer
