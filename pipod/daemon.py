"""The daemon: one thread, one loop, two sockets. It answers at once whatever the worker does. Torch-free.

A turn of the loop: take what the worker said, answer clients, let the scheduler act, commit events, answer the
clients that wait for events, sleep until something happens.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

import pipo
from pipo.errors import DaemonError, PipoError
from pipod import codec, place
from pipod import messages as m
from pipod.journal import Journal, recover
from pipod.scheduler import Scheduler
from pipod.workerlink import WorkerLink

log = logging.getLogger("pipod")
IDLE_S, BUSY_S = 1.0, 0.1
MAX_WAIT_S, MAX_WAITING = 60.0, 1000
GOODBYE_MS = 200  # the last answers leave within this, then the socket closes


class Waiting(msgspec.Struct):
    """A client that waits for events."""

    identity: bytes
    request: m.GetEvents
    deadline: float


class Daemon:
    """One per home, held by a lock. ``serve`` runs until a client or a signal ends it."""

    def __init__(self, home: Path, grace_s: float = 10.0) -> None:
        """Take the home: lock, journal, sockets, then what an earlier daemon left running goes back to the queue.

        Raises:
            DaemonError: another daemon has this home. BadInput: the home or its journal cannot be used.
        """
        self.home = home
        self._born = time.monotonic()
        run = place.prepare(home)
        lock = place.take_lock(run / place.LOCK, 0.5)
        if lock is None:
            owner = (run / place.LOCK).read_text().strip() or "unknown"
            raise DaemonError(f"a daemon already runs for {home} (pid {owner}); `pipo status` shows it")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock
        self._journal = Journal(home / "journal.db", home / "jobs")
        for id in recover(self._journal):
            log.info("job %s was running when the last daemon stopped", id)
        self._folder = folder = place.socket_folder(run)
        self.endpoint = f"ipc://{folder / place.FRONT}"
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.setsockopt(zmq.MAXMSGSIZE, m.MAX_BYTES)
        self._front.setsockopt(zmq.SNDHWM, 1000)
        self._front.bind(self.endpoint)
        self._link = WorkerLink(self._context, folder, home)
        self._scheduler = Scheduler(self._journal, self._link, grace_s)
        self._waiting: list[Waiting] = []
        self._stopping = False
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        os.set_blocking(self._wake_r, False)
        self._answers: dict[type, Callable[[Any], m.Reply]] = {
            m.Submit: lambda r: m.JobReply(job=self._scheduler.submit(r.kind, r.spec, r.join_key)),
            m.ListJobs: lambda r: m.JobsReply(jobs=self._journal.jobs(r.limit)),
            m.GetJob: lambda r: m.JobReply(job=self._journal.job(r.job)),
            m.CancelJob: lambda r: m.JobReply(job=self._scheduler.cancel(r.job)),
            m.ResumeJob: lambda r: m.JobReply(job=self._scheduler.resume(r.job)),
            m.GetStatus: lambda r: m.StatusReply(status=self._status()),
            m.Unload: lambda r: m.UnloadReply(keys=self._scheduler.unload(r.key)),
            m.Shutdown: self._shutdown,
        }

    def serve(self) -> None:
        """Run until a client says ``shutdown`` or SIGTERM or SIGINT comes; then end the worker and close."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._wake_w)
        poller = zmq.Poller()
        for source in (self._front, self._link.socket, self._wake_r):
            poller.register(source, zmq.POLLIN)
        try:
            while True:
                self._turn()
                if self._stopping:
                    break
                ready = dict(poller.poll(self._pause_ms()))
                if self._wake_r in ready:
                    os.read(self._wake_r, 64)
        finally:
            self._close()

    def _turn(self) -> None:
        for message in self._link.receive():
            self._scheduler.take(message)
        self._answer_clients()
        self._scheduler.tick()
        self._journal.flush()
        self._answer_waiting()

    def _pause_ms(self) -> int:
        """How long to sleep where nothing arrives."""
        now = time.monotonic()
        pause = BUSY_S if self._scheduler.busy else IDLE_S
        return max(0, math.ceil(1000 * min([pause, *(w.deadline - now for w in self._waiting)])))

    def _answer_clients(self, limit: int = 100) -> None:
        for _ in range(limit):
            try:
                identity, *frames = self._front.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            reply = self._answer(identity, frames)
            if reply is not None:
                self._send(identity, reply)

    def _answer(self, identity: bytes, frames: list[bytes]) -> m.Reply | None:
        """The reply to a request, an error's reply included; None where the client has to wait."""
        try:
            request = codec.decode(frames, codec.request_decoder)
        except codec.ProtocolError as e:
            log.warning("refused a message: %s", e)
            return m.ErrorReply(id=e.id, error=e.error, message=str(e))
        try:
            if isinstance(request, m.GetEvents):
                return self._events(identity, request)
            reply = self._answers[type(request)](request)
            reply.id = request.id
            return reply
        except PipoError as e:
            return m.ErrorReply(id=request.id, error=type(e).__name__, message=str(e))
        except sqlite3.Error as e:
            log.error("the journal cannot be written: %s", e)
            text = f"the journal {self.home}/journal.db cannot be written ({e}); nothing was changed; free some space"
            return m.ErrorReply(id=request.id, error="DaemonError", message=text)

    def _events(self, identity: bytes, request: m.GetEvents) -> m.Reply | None:
        state = self._journal.job(request.job).state
        waits = request.wait_s > 0 and self._journal.last_seq(request.job) <= request.after and state not in m.ENDED
        if waits and len(self._waiting) < MAX_WAITING:
            wait = min(request.wait_s, MAX_WAIT_S)
            self._waiting.append(Waiting(identity, request, time.monotonic() + wait))
            return None
        self._journal.flush()
        limit = max(1, min(request.limit, 10_000))
        events = self._journal.events(request.job, request.after, limit)
        last = events[-1].seq if events else request.after
        ended = state in m.ENDED and last >= self._journal.last_seq(request.job)
        return m.EventsReply(id=request.id, events=events, state=state, ended=ended)

    def _answer_waiting(self) -> None:
        """Answer those for whom something new was committed, and those who waited long enough."""
        now = time.monotonic()
        still = []
        for waiting in self._waiting:
            request = waiting.request
            if self._journal.last_seq(request.job) > request.after or now >= waiting.deadline:
                request.wait_s = 0.0
                reply = self._events(waiting.identity, request)
                assert reply is not None
                self._send(waiting.identity, reply)
            else:
                still.append(waiting)
        self._waiting = still

    def _send(self, identity: bytes, reply: m.Reply) -> None:
        """Send without ever waiting; a client that is gone is none of our trouble."""
        try:
            self._front.send_multipart([identity, codec.encode(reply)], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            log.warning("a reply could not be sent: %s", e)

    def _status(self) -> m.Status:
        current = self._scheduler.current
        return m.Status(
            pid=os.getpid(),
            version=pipo.__version__,
            protocol=m.PROTOCOL,
            uptime_s=time.monotonic() - self._born,
            endpoint=self.endpoint,
            home=str(self.home),
            worker_pid=self._link.pid,
            worker_state=self._link.state,
            residents=self._scheduler.residents,
            counts=self._journal.counts(),
            current=None if current is None else self._journal.job(current),
            progress=self._scheduler.progress,
        )

    def _shutdown(self, _: m.Shutdown) -> m.Reply:
        self._stopping = True
        return m.ShutdownReply(left=[*self._journal.in_state(m.RUNNING), *self._journal.in_state(m.QUEUED)])

    def _on_signal(self, number: int, _: object) -> None:
        log.info("signal %s", number)
        self._stopping = True

    def _close(self) -> None:
        """End the worker, put its job back, tell those who wait, close. The lock goes last."""
        signal.set_wakeup_fd(-1)
        self._scheduler.stop()
        for waiting in self._waiting:
            job = waiting.request.job
            text = f"the daemon was stopped; `pipo jobs wait {job}` starts it again and goes on from finished items"
            self._send(waiting.identity, m.ErrorReply(id=waiting.request.id, error="DaemonError", message=text))
        self._front.close(linger=GOODBYE_MS)
        self._link.close()
        self._context.term()
        for name in (place.FRONT, place.BACK):
            (self._folder / name).unlink(missing_ok=True)
        self._journal.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
        log.info("stopped")
        os.close(self._lock)
