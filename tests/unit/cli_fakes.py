"""A client without a daemon behind it, for tests of the command line: what was submitted, and events as told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipo.errors import BadInput, DaemonError
from pipod.messages import ErrorInfo, JobEvent, JobInfo, ResidentInfo, Status

T0 = 1_700_000_000.0


def job(id: int = 1, kind: str = "compare", state: str = "done", **rest: Any) -> JobInfo:
    ended = T0 + 8.4 if state in ("done", "failed", "cancelled") else None
    usual = {"spec": {}, "folder": f"/jobs/{id}", "created": T0, "started": T0 + 1, "finished": ended}
    return JobInfo(id=id, state=state, kind=kind, **(usual | rest))


class FakeClient:
    """Holds jobs; a submitted job plays ``events`` and then is ``outcome``."""

    def __init__(self, *jobs: JobInfo) -> None:
        self.started = False
        self.running = True
        self.held = {info.id: info for info in jobs}
        self.submitted: list[tuple[str, dict[str, Any], str | None]] = []
        self.played: list[JobEvent | BaseException] = []
        self.outcome: dict[str, Any] = {"state": "done", "result": {}}
        self.joins: int | None = None
        self.cancelled: list[int] = []
        self.unloaded: str | None = None

    def connect(self, start: bool = True, home: object = None) -> FakeClient:
        if not self.running:
            if not start:
                raise DaemonError("no daemon runs for /home; `pipo up` starts one")
            self.running = self.started = True
        return self

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def play(self, *events: tuple[str, dict[str, Any]] | BaseException) -> None:
        for event in events:
            seq = len(self.played) + 1
            self.played.append(event if isinstance(event, BaseException) else JobEvent(seq, T0 + seq, *event))

    def submit(self, kind: str, spec: dict[str, Any], join_key: str | None = None) -> JobInfo:
        self.submitted.append((kind, spec, join_key))
        if self.joins is not None:
            self.held[self.joins].joined = True
            return self.held[self.joins]
        info = job(max(self.held, default=0) + 1, kind, "queued", spec=spec)
        self.held[info.id] = info
        return info

    def events(self, job_id: int, after: int = 0, follow: bool = True) -> Iterator[JobEvent]:
        for event in self.played:
            if isinstance(event, BaseException):
                raise event
            yield event
        if follow:
            info = self.held[job_id]
            changes = {"finished": T0 + 8.4} | self.outcome
            for name, value in changes.items():
                setattr(info, name, value)

    def job(self, id: int) -> JobInfo:
        if id not in self.held:
            raise BadInput(f"there is no job {id}")
        return self.held[id]

    def jobs(self, limit: int = 200) -> list[JobInfo]:
        return list(self.held.values())[-limit:]

    def cancel(self, id: int) -> JobInfo:
        self.cancelled.append(id)
        info = self.job(id)
        if info.state not in ("done", "failed"):
            info.state = "cancelled"
        return info

    def resume(self, id: int) -> JobInfo:
        info = self.job(id)
        info.state = "queued"
        return info

    def shutdown(self) -> list[int]:
        self.running = False
        return [i for i, info in self.held.items() if info.state in ("queued", "running")]

    def unload(self, key: str | None = None) -> list[str]:
        self.unloaded = key
        return [key or "/models/pipo-opd#sglang:pipo"]

    def status(self) -> Status:
        return Status(
            pid=11, version="0.1.0", protocol=1, uptime_s=75.0, endpoint="ipc://x", home="/home", worker_pid=12,
            worker_state="busy", residents=[ResidentInfo(key="/models/pipo-opd", bytes=4_500_000)],
            counts={"done": 2, "running": 1}, current=job(3, "compare", "running"),
            progress={"done": 40, "total": 120, "note": "lab-chain"},
        )  # fmt: skip


def fail(type: str, message: str) -> dict[str, Any]:
    return {"state": "failed", "error": ErrorInfo(type, message)}
