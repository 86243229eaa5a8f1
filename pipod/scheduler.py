"""Which job runs when, and what becomes of it: the queue, the one running job, the worker's life. Torch-free.

Decisions only; the bytes are moved by journal.py, workerlink.py and daemon.py.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from pipo.errors import BadInput
from pipod import messages as m
from pipod import place
from pipod.journal import Journal
from pipod.kinds import KINDS
from pipod.residents import folder_of
from pipod.workerlink import WorkerLink

log = logging.getLogger("pipod")
CANCELLED_TEXT = "cancelled on request; finished items are kept"
LAST_WORDS_MS = 50


class Scheduler:
    """Runs the queue one job at a time. ``grace_s``: how long a cancelled job may take to stop by itself."""

    def __init__(self, journal: Journal, link: WorkerLink, grace_s: float) -> None:
        self._journal = journal
        self._link = link
        self._grace_s = grace_s
        self._queue = journal.in_state(m.QUEUED)
        self.current: int | None = None
        self.progress: dict[str, Any] | None = None
        self.residents: list[m.ResidentInfo] = []
        self._kill_at: float | None = None

    # What clients ask for ----------------------------------------------------------------------------------------

    def submit(self, kind: str, spec: dict[str, Any], join_key: str | None) -> m.JobInfo:
        if kind not in KINDS:
            raise BadInput(f"unknown kind of job {kind!r}; known: {', '.join(KINDS)}")
        if join_key is not None:
            same = self._journal.unfinished(kind, join_key)
            if same is not None:
                return self._journal.job(same, joined=True)
        info = self._journal.submit(kind, spec, join_key)
        self._queue.append(info.id)
        return info

    def cancel(self, id: int) -> m.JobInfo:
        info = self._journal.job(id)
        if info.state == m.QUEUED:
            self._queue.remove(id)
            self._end(id, m.CANCELLED, m.ErrorInfo("Cancelled", CANCELLED_TEXT))
        elif info.state == m.RUNNING and self._kill_at is None:
            self._journal.ask_stop(id)
            self._kill_at = time.monotonic() + self._grace_s
            self._link.send(m.StopJob(job=id))
        return self._journal.job(id)

    def resume(self, id: int) -> m.JobInfo:
        info = self._journal.job(id)
        if info.state == m.DONE:
            raise BadInput(f"job {id} is done; give its command again to run it anew")
        if info.state not in m.ENDED:
            return self._journal.job(id, joined=True)
        self._journal.requeue(id, "resumed; goes on from finished items")
        self._queue.append(id)
        return self._journal.job(id)

    def unload(self, key: str | None) -> list[str]:
        known = [r.key for r in self.residents]
        named = {k: (k, folder_of(k)) for k in known}
        keys = known if key is None else [k for k in known if any(n == key or n.endswith("/" + key) for n in named[k])]
        if key is not None and not keys:
            raise BadInput(f"{key!r} is not loaded; loaded: {', '.join(known) or 'nothing'}")
        if keys:
            self._link.send(m.DropResidents(keys=keys))
        return keys

    # What the worker says ----------------------------------------------------------------------------------------

    def take(self, message: m.FromWorker) -> None:
        """One message of the worker."""
        if isinstance(message, m.WorkerReady):
            self._link.state = "idle"
        elif isinstance(message, m.WorkerResidents):
            self.residents = message.residents
        elif message.job != self.current:
            log.warning("the worker spoke of job %s, not the current one", message.job)
        elif isinstance(message, m.WorkerEvent):
            self._journal.add_event(message.job, message.kind, message.data, message.time)
            if message.kind == "progress":
                self.progress = message.data
        else:
            self._link.state = "idle"
            self._take_end(message)

    def _take_end(self, message: m.WorkerDone) -> None:
        if message.error is None:
            self._end(message.job, m.DONE, result=message.result)
        elif message.error.type == "Cancelled":
            self._end(message.job, m.CANCELLED, message.error)
        else:
            self._end(message.job, m.FAILED, message.error)

    # The passing of time -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Notice a dead worker, end one that does not stop, start what waits."""
        if self._kill_at is not None and time.monotonic() > self._kill_at and self.current is not None:
            text = f"did not stop in {self._grace_s:g} s, so its worker was ended"
            self._journal.add_event(self.current, "log", {"text": text})
            self._worker_gone()
            self._end(self.current, m.CANCELLED, m.ErrorInfo("Cancelled", CANCELLED_TEXT))
        cause = self._link.death()
        if cause is not None:
            self._bury(cause)
        self._dispatch()

    @property
    def busy(self) -> bool:
        """Whether time matters now: a worker runs a job or starts, or jobs wait."""
        return self.current is not None or bool(self._queue)

    def stop(self) -> list[int]:
        """End the worker; the running job goes back to the queue. Returns the unfinished jobs' ids."""
        self._link.end()
        if self.current is not None:
            if self._kill_at is not None:
                self._end(self.current, m.CANCELLED, m.ErrorInfo("Cancelled", CANCELLED_TEXT))
            else:
                self._journal.requeue(self.current, "daemon stopped; goes on from finished items at its next start")
        return self._journal.in_state(m.QUEUED)

    def _dispatch(self) -> None:
        if not self._queue or self.current is not None:
            return
        if self._link.state == "none":
            try:
                self._link.start()
            except OSError as e:
                self._end(self._queue.pop(0), m.FAILED, m.ErrorInfo("JobFailed", f"no worker can be started: {e}"))
        elif self._link.state == "idle":
            self.current = id = self._queue.pop(0)
            self._link.state = "busy"
            self._journal.set_running(id)
            info = self._journal.job(id)
            self._link.send(m.RunJob(job=id, kind=info.kind, spec=info.spec, folder=info.folder))

    def _bury(self, cause: str) -> None:
        """The worker died: take its last words, then whatever job it had has failed."""
        self._link.socket.poll(LAST_WORDS_MS)
        for message in self._link.receive():
            self.take(message)
        starting = self._link.state == "starting"
        self._worker_gone()
        log.warning("the worker %s", cause)
        if self.current is not None and self._kill_at is not None:
            self._end(self.current, m.CANCELLED, m.ErrorInfo("Cancelled", CANCELLED_TEXT))
        elif self.current is not None:
            text = f"the worker {cause}; finished items are kept; `pipo jobs resume {self.current}` goes on"
            self._end(self.current, m.FAILED, m.ErrorInfo("JobFailed", text))
        elif starting and self._queue:
            text = f"the worker {cause} before it took the job; {self._link.log}:\n{place.tail(self._link.log, 5)}"
            self._end(self._queue.pop(0), m.FAILED, m.ErrorInfo("JobFailed", text))

    def _worker_gone(self) -> None:
        self._link.end()
        self.residents = []

    def _end(self, id: int, state: str, error: m.ErrorInfo | None = None, result: dict[str, Any] | None = None) -> None:
        self._journal.finish(id, state, error, result)
        log.info("job %s %s", id, state)
        if id == self.current:
            self.current, self.progress, self._kill_at = None, None, None
