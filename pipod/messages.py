"""The words on the wire: msgspec structs in msgpack, as PROTOCOL.md defines them. Torch-free, no pickle.

Clients and the daemon speak ``Request`` and ``Reply``; the daemon and its worker ``ToWorker`` and ``FromWorker``.
codec.py turns them into bytes and back.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

PROTOCOL = 1
MAX_BYTES = 8 << 20
MAX_EVENT_BYTES = 256 << 10
QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
Natural = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]


def _tag(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


class Message(msgspec.Struct, kw_only=True, tag_field="type", tag=_tag):
    """Base of all messages. ``v``: protocol version; ``id``: chosen by who asks, repeated in the reply."""

    v: int = PROTOCOL
    id: int = 0


# What both sides talk about
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


# Client to daemon
class Submit(Message):
    kind: str
    spec: dict[str, Any]
    join_key: str | None = None


class ListJobs(Message):
    limit: Natural = 200


class GetJob(Message):
    job: Natural


class GetEvents(Message):
    """Events after ``after``; where there are none yet, the answer waits up to ``wait_s`` for one."""

    job: Natural
    after: Natural = 0
    wait_s: Seconds = 0.0
    limit: Natural = 500


class CancelJob(Message):
    job: Natural


class ResumeJob(Message):
    job: Natural


class GetStatus(Message):
    pass


class Unload(Message):
    """Drop the resident named ``key`` (None: all) once the worker is free."""

    key: str | None = None


class Shutdown(Message):
    """Accepted in any protocol version, so that a newer client can end an older daemon."""


Request = Submit | ListJobs | GetJob | GetEvents | CancelJob | ResumeJob | GetStatus | Unload | Shutdown


# Daemon to client
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


# Daemon to worker and back
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
