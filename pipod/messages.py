"""The words on the wire: msgspec structs in msgpack, as PROTOCOL.md defines them. Torch-free, no pickle.

Clients and the daemon speak ``Request`` and ``Reply``; the daemon and its worker ``ToWorker`` and ``FromWorker``.
Unknown fields are tolerated. Another protocol version, garbage, or an oversized message is a ProtocolError.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, TypeVar

import msgspec

PROTOCOL = 1
MAX_BYTES = 8 << 20
MAX_EVENT_BYTES = 256 << 10
QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)


class ProtocolError(Exception):
    """A message that cannot be taken: ``error`` is ``BadMessage`` or ``WrongVersion``; ``id`` of the request, or 0."""

    def __init__(self, error: str, message: str, id: int = 0) -> None:
        super().__init__(message)
        self.error = error
        self.id = id


def _tag(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


class Envelope(msgspec.Struct):
    """What every version of the protocol has in each message; read before anything else."""

    type: str
    v: int
    id: int = 0


class Message(msgspec.Struct, kw_only=True, tag_field="type", tag=_tag):
    """Base of all messages. ``v``: protocol version; ``id``: chosen by who asks, repeated in the reply."""

    v: int = PROTOCOL
    id: int = 0


# What both sides talk about ------------------------------------------------------------------------------------------


class ErrorInfo(msgspec.Struct):
    """Why a job did not end well. ``type``: name of a class in ``pipo.errors.ERRORS_BY_NAME``."""

    type: str
    message: str


class JobInfo(msgspec.Struct, kw_only=True):
    """A job. Times in seconds since the epoch. Lists leave ``result`` out. ``joined``: an earlier job was taken."""

    id: int
    kind: str
    spec: dict[str, Any]
    state: str
    created: float
    folder: str
    started: float | None = None
    finished: float | None = None
    error: ErrorInfo | None = None
    result: dict[str, Any] | None = None
    join_key: str | None = None
    joined: bool = False
    last_seq: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class JobEvent(msgspec.Struct):
    """One event of a job. ``seq`` counts from 1 without holes, over restarts too; ``time``: seconds since the epoch."""

    seq: int
    time: float
    kind: str
    data: dict[str, Any]


class ResidentInfo(msgspec.Struct):
    """An object that stays loaded in the worker; ``bytes`` is None where unknown."""

    key: str
    bytes: int | None = None


class Status(msgspec.Struct, kw_only=True):
    """The daemon as it is now. ``worker_state``: none, starting, idle, busy. ``counts``: jobs by state."""

    pid: int
    version: str
    protocol: int
    uptime_s: float
    endpoint: str
    home: str
    worker_pid: int | None
    worker_state: str
    residents: list[ResidentInfo]
    counts: dict[str, int]
    current: JobInfo | None = None
    progress: dict[str, Any] | None = None


# Client to daemon ----------------------------------------------------------------------------------------------------


class Submit(Message):
    kind: str
    spec: dict[str, Any]
    join_key: str | None = None


class ListJobs(Message):
    limit: int = 200


class GetJob(Message):
    job: int


class GetEvents(Message):
    """Events after ``after``; where there are none yet, the answer waits up to ``wait_s`` for one."""

    job: int
    after: int = 0
    wait_s: float = 0.0
    limit: int = 500


class CancelJob(Message):
    job: int


class ResumeJob(Message):
    job: int


class GetStatus(Message):
    pass


class Unload(Message):
    """Drop the resident named ``key`` (None: all) once the worker is free."""

    key: str | None = None


class Shutdown(Message):
    """Accepted in any protocol version, so that a newer client can end an older daemon."""


Request = Submit | ListJobs | GetJob | GetEvents | CancelJob | ResumeJob | GetStatus | Unload | Shutdown


# Daemon to client ----------------------------------------------------------------------------------------------------


class JobReply(Message):
    job: JobInfo


class JobsReply(Message):
    jobs: list[JobInfo]


class EventsReply(Message):
    """``ended``: the job has ended and nothing comes after these events."""

    events: list[JobEvent]
    state: str
    ended: bool


class StatusReply(Message):
    status: Status


class UnloadReply(Message):
    keys: list[str]


class ShutdownReply(Message):
    """``left``: ids of unfinished jobs, which go on when a daemon runs again."""

    left: list[int]


class ErrorReply(Message):
    """``error``: a class name of ``pipo.errors``, or BadMessage, or WrongVersion. Its fields never change."""

    error: str
    message: str


Reply = JobReply | JobsReply | EventsReply | StatusReply | UnloadReply | ShutdownReply | ErrorReply


# Daemon to worker and back -------------------------------------------------------------------------------------------


class RunJob(Message):
    job: int
    kind: str
    spec: dict[str, Any]
    folder: str


class StopJob(Message):
    job: int


class DropResidents(Message):
    keys: list[str]


ToWorker = RunJob | StopJob | DropResidents


class WorkerReady(Message):
    pid: int


class WorkerEvent(Message):
    job: int
    time: float
    kind: str
    data: dict[str, Any]


class WorkerDone(Message):
    """A job ended in the worker: with a ``result``, or with an ``error`` (type Cancelled: it was stopped)."""

    job: int
    result: dict[str, Any] | None = None
    error: ErrorInfo | None = None


class WorkerResidents(Message):
    residents: list[ResidentInfo]


FromWorker = WorkerReady | WorkerEvent | WorkerDone | WorkerResidents

# Coding --------------------------------------------------------------------------------------------------------------

T = TypeVar("T")


def _plain(value: Any) -> Any:
    """Paths become strings, array scalars (anything with ``item()``) plain numbers."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot go on the wire; use plain values")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_envelope: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)
_plain_dict: msgspec.msgpack.Decoder[dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any])
request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
to_worker_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
# What msgspec raises on bytes that are no such message: wrong types or syntax, broken UTF-8, absurd nesting.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)


def encode(value: Any) -> bytes:
    """To msgpack. Raises TypeError for values that are not plain."""
    return _encoder.encode(value)


def decode_dict(data: bytes) -> dict[str, Any]:
    return _plain_dict.decode(data)


def decode(frames: list[bytes], decoder: msgspec.msgpack.Decoder[T]) -> T:
    """Read one message from the frames after the sender's name.

    Raises:
        ProtocolError: WrongVersion, or BadMessage for anything else that is no message of this protocol.
    """
    if len(frames) != 1:
        raise ProtocolError("BadMessage", f"a message is one frame, this one has {len(frames)}")
    data = frames[0]
    if len(data) > MAX_BYTES:
        raise ProtocolError("BadMessage", f"a message has at most {MAX_BYTES} bytes, this one {len(data)}")
    try:
        head = _envelope.decode(data)
    except _UNREADABLE as e:
        raise ProtocolError("BadMessage", f"not a message of this protocol ({e})") from e
    if head.v != PROTOCOL and head.type != "shutdown":
        text = f"this message is of protocol {head.v}, pipod here speaks {PROTOCOL}; use the same version on both sides"
        raise ProtocolError("WrongVersion", text, head.id)
    try:
        return decoder.decode(data)
    except _UNREADABLE as e:
        raise ProtocolError("BadMessage", f"not a known message of protocol {PROTOCOL} ({e})", head.id) from e
