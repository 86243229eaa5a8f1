"""The client's side of pipod: submit, follow, cancel; starts the daemon where none runs. Torch-free, quick to import.

A Client belongs to one thread. Every call has a time-out; a daemon that goes away is noticed at once.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import zmq
from zmq.utils.monitor import recv_monitor_message

from pipo.config import child_environment, paths
from pipo.errors import ERRORS_BY_NAME, BadInput, DaemonError, PipoError
from pipod import codec, place
from pipod import messages as m
from pipod.messages import JobEvent, JobInfo, Status

__all__ = ["Client", "JobEvent", "JobInfo", "Status", "connect", "job_error"]

R = TypeVar("R", bound=m.Message)
TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0
POLL_S = 5.0
ATTEMPTS = 3


class _Gone(Exception):
    """The connection broke: the daemon stopped, or was killed."""


def connect(start: bool = True, home: Path | None = None) -> Client:
    """Connect to the daemon of ``home`` (default: ``paths().home``); ``start``: start one where none runs.

    Raises:
        DaemonError: none runs (and none could be started), or it does not answer, or speaks another protocol.
        BadInput: the home folder cannot be used.
    """
    home = (home or paths().home).absolute()
    for _ in range(ATTEMPTS):
        path, started = place.find_socket(home), False
        if path is None:
            if not start:
                raise DaemonError(f"no daemon runs for {home}; `pipo up` starts one")
            path, started = _start(home), True
        client = Client(home, path, started)
        try:
            client.greet()
            return client
        except _Gone:  # it was just dying; look again
            client.close()
        except PipoError:
            client.close()
            raise
    raise DaemonError(f"the daemon of {home} stops again and again; see {home}/run/daemon.log")


def _start(home: Path) -> Path:
    """Start a detached daemon, wait until it answers, return its socket."""
    command = [sys.executable, "-m", "pipod", "--home", str(home), "--detach"]
    log = home / "run" / "daemon.log"
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            env=child_environment(home),
        )
    except subprocess.TimeoutExpired as e:
        raise DaemonError(f"the daemon did not start in {START_TIMEOUT_S:.0f} s; see {log}\n{place.tail(log)}") from e
    deadline = time.monotonic() + 2.0  # where two clients start one at the same time, one of them finds the other's
    while (path := place.find_socket(home)) is None:
        if ended.returncode == 0 and time.monotonic() > deadline:
            raise DaemonError(f"the daemon started and stopped again; see {log}\n{place.tail(log)}")
        if ended.returncode != 0 and (ended.returncode != place.EXIT_BUSY or time.monotonic() > deadline):
            text = ended.stderr.strip() or f"exit code {ended.returncode}, nothing said"
            if ended.returncode == BadInput.exit_code:
                raise BadInput(text)
            raise DaemonError(f"the daemon did not start: {text}\nsee {log}\n{place.tail(log)}".rstrip())
        time.sleep(0.02)
    return path


def job_error(job: JobInfo) -> PipoError | None:
    """What a failed or cancelled job ended with, as an exception to raise; None for any other job."""
    if job.error is None:
        return None
    return ERRORS_BY_NAME.get(job.error.type, ERRORS_BY_NAME["JobFailed"])(job.error.message)


class Client:
    """A connection to a running daemon; made by ``connect``. ``started``: that call started the daemon."""

    def __init__(self, home: Path, path: Path, started: bool = False) -> None:
        self.home = home
        self.started = started
        self._ids = itertools.count(1)
        self._context = zmq.Context()
        self._open(path)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; jobs run on."""
        self._shut()
        self._context.destroy(linger=0)

    def submit(self, kind: str, spec: dict[str, Any], join_key: str | None = None) -> JobInfo:
        """Queue a job; an unfinished job of this kind with the same ``join_key`` is taken instead (``joined``).

        Once this returns the job is on disk and survives any kill. Paths in ``spec`` must be absolute: the job runs
        in another working folder. Raises BadInput for an unknown kind or a spec that is not of plain values.
        """
        try:
            message = m.Submit(kind=kind, spec=spec, join_key=join_key)
            size = len(codec.encode(message))
        except (TypeError, ValueError, OverflowError, RecursionError) as e:
            raise BadInput(f"the settings of this {kind} job cannot be sent: {e}") from e
        if size > m.MAX_BYTES:
            raise BadInput(f"the settings of this {kind} job take {size} bytes; at most {m.MAX_BYTES} can be sent")
        try:
            return self._ask(message, m.JobReply).job
        except _Gone:
            raise DaemonError(
                "the daemon stopped before it took the job; give the same command again (`pipo jobs` shows what it has)"
            ) from None

    def jobs(self, limit: int = 200) -> list[JobInfo]:
        """The newest jobs, oldest of them first, without their results."""
        return self._control(m.ListJobs(limit=limit), m.JobsReply).jobs

    def job(self, id: int | str) -> JobInfo:
        """One job. Raises BadInput where there is none of this id."""
        return self._control(m.GetJob(job=_number(id)), m.JobReply).job

    def events(self, job_id: int | str, after: int = 0, follow: bool = True) -> Iterator[JobEvent]:
        """The job's events with ``seq`` greater than ``after``; with ``follow`` until the job has ended.

        Raises:
            DaemonError: the daemon stopped meanwhile; the message says how to go on.
        """
        job = _number(job_id)
        while True:
            try:
                request = m.GetEvents(job=job, after=after, wait_s=POLL_S if follow else 0.0)
                reply = self._ask(request, m.EventsReply, TIMEOUT_S + POLL_S)
            except _Gone:
                raise DaemonError(
                    f"the daemon stopped while job {job} ran; finished items are kept; "
                    f"`pipo jobs wait {job}` or the same command again goes on"
                ) from None
            yield from reply.events
            if reply.events:
                after = reply.events[-1].seq
            if reply.ended or (not follow and not reply.events):
                return

    def wait(self, job_id: int | str) -> JobInfo:
        """Wait until the job has ended and return it; how it ended is in its ``state``, ``result`` and ``error``."""
        for _ in self.events(job_id, after=self.job(job_id).last_seq):
            pass
        return self.job(job_id)

    def cancel(self, id: int | str) -> JobInfo:
        """Ask a job to stop; finished items are kept. A job that has ended already is returned as it is."""
        return self._control(m.CancelJob(job=_number(id)), m.JobReply).job

    def resume(self, id: int | str) -> JobInfo:
        """Queue a failed or cancelled job again, in its folder: it goes on from its finished items."""
        return self._control(m.ResumeJob(job=_number(id)), m.JobReply).job

    def greet(self) -> None:
        """See that the daemon answers and speaks this protocol. Raises _Gone where it stopped meanwhile."""
        self._ask(m.GetStatus(), m.StatusReply)

    def status(self) -> Status:
        return self._control(m.GetStatus(), m.StatusReply).status

    def unload(self, key: str | None = None) -> list[str]:
        """Drop a resident (None: all), once the worker is free; returns their keys. BadInput for an unknown key."""
        return self._control(m.Unload(key=key), m.UnloadReply).keys

    def shutdown(self) -> list[int]:
        """Stop the daemon and its worker; returns the ids of unfinished jobs, which go on at the next start."""
        try:
            left = self._ask(m.Shutdown(), m.ShutdownReply).left
        except _Gone:
            left = []
        deadline = time.monotonic() + TIMEOUT_S
        while not place.lock_free(self.home / "run" / place.LOCK):
            if time.monotonic() > deadline:
                raise DaemonError(f"the daemon still runs after {TIMEOUT_S:.0f} s; see {self.home}/run/daemon.log")
            time.sleep(0.02)
        return left

    # The wire ----------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.SNDTIMEO, int(TIMEOUT_S * 1000))
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)
        self._socket.connect(f"ipc://{path}")
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._gone = False

    def _shut(self) -> None:
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)

    def _control(self, message: m.Message, want: type[R]) -> R:
        try:
            return self._ask(message, want)
        except _Gone:
            raise DaemonError("the daemon stopped before it answered; `pipo up` starts it, queued jobs go on") from None

    def _ask(self, message: m.Message, want: type[R], timeout_s: float = TIMEOUT_S) -> R:
        """Send a request and wait for the reply to it; replies to earlier, abandoned requests are dropped."""
        if self._gone or self._monitor.poll(0):
            self._reopen()
        message.id = next(self._ids)
        self._socket.send(codec.encode(message))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(self._poller.poll(math.ceil(left * 1000)))
            if self._socket in ready:
                reply = self._read()
                if reply is not None and reply.id == message.id:
                    return _checked(reply, want)
            elif self._monitor in ready:
                recv_monitor_message(self._monitor)
                self._gone = True
                raise _Gone
        log = self.home / "run" / "daemon.log"
        raise DaemonError(
            f"the daemon did not answer in {timeout_s:.0f} s; its log is {log}; try again, or `pipo down` and `pipo up`"
        )

    def _read(self) -> m.Reply | None:
        try:
            return codec.decode(self._socket.recv_multipart(), codec.reply_decoder)
        except codec.ProtocolError as e:
            if e.error == "WrongVersion":
                raise DaemonError(f"{e}; `pipo down` ends the daemon that runs") from e
            raise DaemonError(f"the daemon's answer cannot be read: {e}; `pipo down`, then try again") from e

    def _reopen(self) -> None:
        path = place.find_socket(self.home)
        if path is None:
            raise DaemonError(f"no daemon runs for {self.home} any more; `pipo up` starts one, queued jobs go on")
        self._shut()
        self._open(path)


def _number(id: int | str) -> int:
    text = str(id)
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadInput(f"{text[:40]!r} is not a job's number; `pipo jobs` lists them")
    return int(text)


def _checked(reply: m.Message, want: type[R]) -> R:
    if isinstance(reply, m.ErrorReply):
        if reply.error == "WrongVersion":
            raise DaemonError(f"{reply.message}; `pipo down`, then the same command again")
        raise ERRORS_BY_NAME.get(reply.error, DaemonError)(reply.message)
    if not isinstance(reply, want):
        raise DaemonError(f"the daemon answered {type(reply).__name__}, not {want.__name__}; `pipo down`, then retry")
    return reply
