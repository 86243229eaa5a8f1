"""Records of a load run: one a request, one a point when all of it is over, one on the client itself. Torch-free.

``records.jsonl`` gets a point in one write, its requests first, so that a point that is there is all there; requests
without their point, torn off by a kill, are dropped and measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench import record
from pipo.errors import BadRecord

Status = Literal["ok", "failed", "timeout"]
Mode = Literal["rate", "concurrency", "trace", "probe"]
Counted = Literal["engine", "ids", "usage", "chunks"]


class RequestRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="request"):
    """One request. ``due_s``, ``sent_s``, ``ended_s``: seconds after the point's start; all other times after due_s.

    ``chunk_s``, ``chunk_tokens``: when tokens came and how many at once: those of one engine step, or of one read of
    the stream. ``first_s``, ``pair_s``: the first token, the second one; -1 where none. ``queue_s``: until the engine
    began the step that gave the first token; -1 where nobody tells. ``counted``: how tokens of a chunk are known;
    ``chunks`` is a guess, one each or the total spread evenly. ``prompt_tokens``: -1 where not told. ``finish``: eos,
    stop, tokens or slots (budgets), empty where it did not end well. ``correct``: None where nothing was asked.
    """

    point: str
    variant: str
    index: int
    due_s: float
    sent_s: float
    ended_s: float
    status: Status = "ok"
    finish: str = ""
    error: str | None = None
    prompt_tokens: int = -1
    first_s: float = -1.0
    pair_s: float = -1.0
    queue_s: float = -1.0
    chunk_s: list[float] = []
    chunk_tokens: list[int] = []
    counted: Counted = "engine"
    ids: list[int] = []
    slots: int = 0
    offered: int = 0
    kept: int = 0
    task: str = ""
    item: str = ""
    sample: int = 0
    text: str = ""
    answer: str | None = None
    correct: bool | None = None

    @property
    def tokens(self) -> int:
        """Tokens that came."""
        return sum(self.chunk_tokens)


class PointRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="point"):
    """A point that is over. ``load``: requests a second, requests at once, or a trace's speed-up.

    ``wall_s``: from the start to the last end. ``own_s``: of it, in our own code between an engine's steps; ``cpu_s``:
    CPU time of the client's thread (endpoints); ``waited_s``: for which this thread was ready and had no CPU.
    ``lag_s``: event loop late by, {"p50", "p99", "max"}; None without one. ``energy``: see bench/load/energy.py.
    ``most``: requests in flight at the peak. ``notes``: what a person should know.
    """

    point: str
    variant: str
    mode: Mode
    load: float
    requests: int
    wall_s: float
    own_s: float | None = None
    cpu_s: float | None = None
    waited_s: float | None = None
    lag_s: dict[str, float] | None = None
    energy: dict[str, Any] = {}
    most: int = 0
    notes: list[str] = []


class ClientRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="client"):
    """The client against something that answers at once (bench/load/overhead.py); seconds.

    ``request_s``: a whole request, {"p50", "p99"}. ``chunk_s``: CPU time of one chunk. ``send_delay_s``: sent after it
    was due, {"p50", "p99"}.
    """

    side: Literal["engine", "endpoint"]
    requests: int
    chunks: int
    request_s: dict[str, float]
    chunk_s: float
    send_delay_s: dict[str, float]


LoadRecord = RequestRecord | PointRecord | ClientRecord
_decoder = msgspec.json.Decoder(LoadRecord)


def read(path: Path) -> list[LoadRecord]:
    """All whole records of a file; empty where there is none. Raises BadRecord for a line that is none."""
    if not path.exists():
        return []
    out: list[LoadRecord] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break  # torn by a kill
        try:
            out.append(_decoder.decode(line))
        except msgspec.DecodeError as e:
            raise BadRecord(f"{path}:{number}: no record of a load run ({e}); restore the file or rerun") from e
    return out


def append(path: Path, records: Sequence[LoadRecord]) -> None:
    """Append records in one write and fsync; a torn last line is cut off first."""
    record.append(path, records)  # type: ignore[arg-type]  # any struct encodes alike


def resume(path: Path) -> list[LoadRecord]:
    """The records of finished points; what a kill left of others is taken out of the file."""
    found = read(path)
    over = {r.point for r in found if isinstance(r, PointRecord)}
    kept = [r for r in found if not isinstance(r, RequestRecord) or r.point in over]
    if len(kept) < len(found):
        record.rewrite(path, kept)  # type: ignore[arg-type]
    return kept


def points(records: Sequence[LoadRecord]) -> list[tuple[PointRecord, list[RequestRecord]]]:
    """Each point with its requests by number, in the order in which they were measured."""
    requests: dict[str, list[RequestRecord]] = {}
    for r in records:
        if isinstance(r, RequestRecord):
            requests.setdefault(r.point, []).append(r)
    return [
        (r, sorted(requests.get(r.point, []), key=lambda q: q.index)) for r in records if isinstance(r, PointRecord)
    ]
