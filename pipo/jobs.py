"""What a job sees of whoever runs it: the daemon's worker, or this very process. Torch-free.

A job is a function ``run(spec, ctx)``; ``spec`` is a dict of plain values, ``ctx`` a JobContext. It appends its
records under ``ctx.folder`` as items finish, so that the same call on the same folder goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class JobContext(Protocol):
    """Services for a running job. ``folder``: where its records and results live; survives restarts."""

    job_id: str
    folder: Path

    def emit(self, kind: str, **data: Any) -> None:
        """Send an event to whoever follows the job: ``progress`` (done, total, note), ``log`` (text), ``metric`` ..."""

    def check(self) -> None:
        """Raise ``pipo.errors.Cancelled`` if the job was asked to stop. Call it between items and steps."""

    def resident(self, key: str, load: Callable[[], T]) -> T:
        """The object that ``load`` made for ``key`` earlier, or makes now; it stays for later jobs."""


class LocalContext:
    """Runs a job in this process: events go to ``on_event``, residents live as long as this object."""

    def __init__(self, folder: Path, on_event: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self.job_id = "local"
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._on_event = on_event
        self._residents: dict[str, Any] = {}
        self.cancelled = False

    def emit(self, kind: str, **data: Any) -> None:
        if self._on_event:
            self._on_event(kind, data)

    def check(self) -> None:
        from pipo.errors import Cancelled

        if self.cancelled:
            raise Cancelled("cancelled on request; finished items are kept")

    def resident(self, key: str, load: Callable[[], T]) -> T:
        if key not in self._residents:
            self._residents[key] = load()
        value: T = self._residents[key]
        return value
