"""A streamed answer of an OpenAI endpoint, byte by byte into tokens by time: no I/O, every byte distrusted. Torch-free.

What came at one time is one chunk. How many tokens a chunk has is told by its ``token_ids``
(vLLM, SGLang: ``return_token_ids``), else by a usage that grows with the stream (``continuous_usage_stats``), else it
is a guess: the usage at the end spread evenly over the chunks, or one token each.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bench.load.records import RequestRecord
from pipo.errors import PipoError

MOST_BYTES = 1 << 20  # of one event
MOST_TOKENS = 1 << 24
ENDS = {"stop": "eos", "length": "tokens", "eos": "eos", "stop_sequence": "stop"}


class BadStream(PipoError):
    """An answer that is none; the message says why, and becomes the request's reason."""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Lines:
    """Bytes of a stream to the data of whole server-sent events."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._seen = 0  # bytes of the buffer that hold no line end
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Data of the events that ended. Raises BadStream where one is longer than ``MOST_BYTES``."""
        self._buffer += data
        out: list[bytes] = []
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._seen))) >= 0:
            line = bytes(self._buffer[start:end]).removesuffix(b"\r")
            start = end + 1
            self._seen = 0
            self._line(line, out)
        del self._buffer[:start]
        self._seen = len(self._buffer)
        if self._size + len(self._buffer) > MOST_BYTES:
            raise BadStream(f"an event of the stream is longer than {MOST_BYTES >> 20} MiB")
        return out

    def _line(self, line: bytes, out: list[bytes]) -> None:
        if not line:
            if self._data:
                out.append(b"\n".join(self._data))
            self._data, self._size = [], 0
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
            if self._size > MOST_BYTES:
                raise BadStream(f"an event of the stream is longer than {MOST_BYTES >> 20} MiB")

    def rest(self) -> list[bytes]:
        """At the stream's end: the data of an event without its empty line."""
        out: list[bytes] = []
        self._line(bytes(self._buffer).removesuffix(b"\r"), out)
        self._line(b"", out)
        return out


class Answer:
    """Puts one request's answer together. ``due``: by the clock of the times given to ``feed``."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.done = False
        self.finish = ""
        self.text: list[str] = []
        self.ids: list[int] = []
        self.total: int | None = None
        self.prompt = -1
        self._lines = Lines()
        self._at: list[float] = []
        self._told: list[int | None] = []  # tokens of each chunk by its ids
        self._usage: list[int | None] = []  # tokens so far by the usage in each chunk

    @property
    def started(self) -> bool:
        """Whether any token came."""
        return bool(self._at)

    def feed(self, data: bytes, now: float) -> None:
        """Take in what came at a time. Raises BadStream where it is no answer."""
        for event in self._lines.feed(data):
            self._event(event, now - self.due)

    def end(self, now: float) -> None:
        """The stream closed. Raises BadStream where it had not come to its end, or brought nothing."""
        for event in self._lines.rest():
            self._event(event, now - self.due)
        if not self.finish and self.done:
            raise BadStream(
                f"the stream came to its [DONE] without a finish_reason, after {len(self._at)} chunks of text"
            )
        if not self.finish:
            raise BadStream(f"the stream closed before its end, after {len(self._at)} chunks of text")
        if self.finish not in ENDS:
            raise BadStream(f"the endpoint ended it by {self.finish!r}")
        if not self.started:
            raise BadStream("the answer is empty: no token came")

    def _event(self, data: bytes, at: float) -> None:
        if data.strip() == b"[DONE]":
            self.done = True
            return
        if self.done:
            raise BadStream("the stream goes on after its [DONE]")
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise BadStream(f"a chunk is no completion ({e}): {_shown(data)}") from e
        if chunk.error is not None:
            raise BadStream(f"the endpoint said: {_shown(str(chunk.error).encode())}")
        usage = None
        if chunk.usage is not None:
            usage = chunk.usage.completion_tokens
            if usage is not None and not 0 <= usage <= MOST_TOKENS:
                raise BadStream(f"the endpoint tells {usage} tokens, which cannot be")
            self.total = usage if usage is not None else self.total
            self.prompt = self.prompt if chunk.usage.prompt_tokens is None else chunk.usage.prompt_tokens
        for choice in chunk.choices[:1]:
            self._choice(choice, usage, at)

    def _choice(self, choice: _Choice, usage: int | None, at: float) -> None:
        delta = choice.delta
        text = choice.text or ""
        if delta is not None:
            text = (delta.reasoning_content or delta.reasoning or "") + (delta.content or "")
        self.finish = choice.finish_reason or self.finish
        if not text and not choice.token_ids:
            return
        self.text.append(text)
        self.ids += choice.token_ids or []
        told = None if choice.token_ids is None else len(choice.token_ids)
        if self._at and self._at[-1] == at:  # came with the one before: one chunk
            before = self._told[-1]
            self._told[-1] = None if told is None or before is None else before + told
            self._usage[-1] = usage
            return
        self._at.append(at)
        self._told.append(told)
        self._usage.append(usage)

    def fill(self, r: RequestRecord) -> None:
        """Write times, tokens and text of what came into a record."""
        counts = self._counts(r)
        kept = [(at, n) for at, n in zip(self._at, counts) if n]
        r.chunk_s, r.chunk_tokens = [round(at, 7) for at, _ in kept], [n for _, n in kept]
        r.text, r.finish, r.prompt_tokens = "".join(self.text), ENDS.get(self.finish, ""), self.prompt
        r.ids = self.ids if r.counted == "ids" else []
        r.first_s = r.chunk_s[0] if kept else -1.0
        out = 0
        for at, n in kept:
            out += n
            if out >= 2:
                r.pair_s = round(at, 7)
                break

    def _counts(self, r: RequestRecord) -> list[int]:
        told = [t for t in self._told if t is not None]
        if told and len(told) == len(self._told) and (self.total is None or sum(told) == self.total):
            r.counted = "ids"
            return told
        so_far = [u for u in self._usage if u is not None]
        if so_far and len(so_far) == len(self._usage) and so_far == sorted(so_far) and len(set(so_far)) > 1:
            r.counted = "usage"
            return [b - a for a, b in zip([0, *so_far], so_far)]
        r.counted = "chunks"
        n = len(self._at)
        total = n if self.total is None else self.total
        return [(i + 1) * total // n - i * total // n for i in range(n)]


def _shown(data: bytes) -> str:
    text = data[:200].decode(errors="replace")
    return ascii(text)[1:-1] + ("…" if len(data) > 200 else "")
