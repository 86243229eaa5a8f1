"""The worker process: runs one job after another and keeps residents. ``python -m pipod.worker ENDPOINT NAME FD``.

The main thread runs jobs; a second thread owns the socket, so that a cancel arrives while a job computes. Only here do
torch and the rooms above get imported, when a job needs them. This file also holds the one job boundary: what a job
raises becomes a message, its traceback goes to the job's own log.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import zmq

from pipo.config import paths
from pipo.errors import Cancelled, JobFailed, PipoError
from pipod import codec, place
from pipod import messages as m
from pipod.kinds import KINDS
from pipod.residents import Residents

T = TypeVar("T")
LOCK_WAIT_S = 20.0
PR_SET_PDEATHSIG = 1
OUTBOX = 4096  # messages that may wait for the socket; a job that emits faster waits


def guard(life: int) -> None:
    """Make sure that nothing of this process group outlives the daemon, in whatever way that ends.

    ``life``: reading end of a pipe that the daemon holds open. A forked guard waits for its end, then kills the whole
    group, itself included; being a member it also keeps the group's number from being given to others.
    """
    if os.fork() == 0:
        while os.read(life, 1):
            pass
        os.killpg(0, signal.SIGKILL)
    os.close(life)


class Channel(threading.Thread):
    """Owns the socket. ``inbox``: what the main thread is to do; ``stopped``: ids of jobs that were asked to stop."""

    def __init__(self, endpoint: str, name: str) -> None:
        super().__init__(daemon=True, name="channel")
        self.inbox: queue.SimpleQueue[m.RunJob | m.DropResidents] = queue.SimpleQueue()
        self.stopped: set[int] = set()
        self._outbox: queue.Queue[bytes] = queue.Queue(OUTBOX)
        self._bell = os.eventfd(0)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.IDENTITY, name.encode())
        self._socket.connect(endpoint)
        self._parent = os.getppid()

    def send(self, message: m.FromWorker) -> None:
        """Queue a message from any thread. Raises TypeError for values that cannot go on the wire."""
        self._outbox.put(codec.encode(message))
        os.eventfd_write(self._bell, 1)

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(500))
            if os.getppid() != self._parent:
                os.killpg(0, signal.SIGKILL)
            if self._bell in ready:
                os.eventfd_read(self._bell)
                self._send_waiting()
            if self._socket in ready:
                self._take(codec.decode(self._socket.recv_multipart(), codec.to_worker_decoder))

    def _send_waiting(self) -> None:
        while True:
            try:
                self._socket.send(self._outbox.get_nowait())
            except queue.Empty:
                return

    def _take(self, message: m.ToWorker) -> None:
        if isinstance(message, m.StopJob):
            self.stopped.add(message.job)
            return
        if isinstance(message, m.RunJob):
            self.stopped.discard(message.job)  # a stop that came too late for an earlier run of this job
        self.inbox.put(message)


class WorkerContext:
    """The JobContext of a job in this process (see pipo.jobs)."""

    def __init__(self, job: m.RunJob, channel: Channel, residents: Residents) -> None:
        self.job_id = str(job.job)
        self.folder = Path(job.folder)
        self._number = job.job
        self._channel = channel
        self._residents = residents
        self._used: set[str] = set()

    def emit(self, kind: str, **data: Any) -> None:
        """Send an event. Raises ValueError where it is larger than an event may be."""
        event = m.WorkerEvent(job=self._number, time=time.time(), kind=kind, data=data)
        size = len(codec.encode(event))
        if size > m.MAX_EVENT_BYTES:
            raise ValueError(f"an event has at most {m.MAX_EVENT_BYTES} bytes, this {kind} has {size}; write a file")
        self._channel.send(event)

    def check(self) -> None:
        if self._number in self._channel.stopped:
            raise Cancelled("cancelled on request; finished items are kept")

    def resident(self, key: str, load: Callable[[], T]) -> T:
        self._used.add(key)
        value = self._residents.get(key, load)
        self._channel.send(m.WorkerResidents(residents=self._residents.describe()))
        return value

    def drop_doubtful(self, crashed: bool) -> None:
        """After a job that did not end well: drop the residents that it used and left in the middle of work.

        That is what still says ``busy``, and after a crash all of them.
        """
        doubtful = [k for k in self._used if crashed or getattr(self._residents.peek(k), "busy", False)]
        self._residents.drop(doubtful)
        self._channel.send(m.WorkerResidents(residents=self._residents.describe()))


def find(kind: str) -> Callable[[dict[str, Any], WorkerContext], dict[str, Any]]:
    """The function of a kind of job; its module is imported here. Raises JobFailed where it is not installed."""
    module, name = KINDS[kind].split(":")
    try:
        function: Callable[[dict[str, Any], WorkerContext], dict[str, Any]] = getattr(
            importlib.import_module(module), name
        )
    except (ModuleNotFoundError, AttributeError) as e:
        raise JobFailed(f"this installation cannot run {kind} jobs ({e}); install pipo again, all of it") from e
    return function


def run_job(job: m.RunJob, channel: Channel, residents: Residents) -> m.WorkerDone:
    """Run one job; whatever it raises becomes the answer. The one place that catches everything."""
    context = WorkerContext(job, channel, residents)
    context.emit("started", worker=os.getpid())
    try:
        result = find(job.kind)(job.spec, context)
        data = codec.encode(result)
        if len(data) > m.MAX_BYTES // 2:
            raise JobFailed(f"the job's result takes {len(data)} bytes; it is kept in {job.folder} only")
        return m.WorkerDone(job=job.job, result=codec.decode_dict(data))
    except PipoError as e:
        if not isinstance(e, Cancelled):
            log_trace(context.folder)
        context.drop_doubtful(crashed=False)
        return m.WorkerDone(job=job.job, error=m.ErrorInfo(type(e).__name__, str(e)))
    except (Exception, SystemExit) as e:
        log_trace(context.folder)
        context.drop_doubtful(crashed=True)
        said = str(e).encode(errors="replace").decode().strip() or "no message"
        text = f"{type(e).__name__}: {said[:2000]}; the traceback is in {context.folder / 'job.log'}"
        return m.WorkerDone(job=job.job, error=m.ErrorInfo("JobFailed", text))


def log_trace(folder: Path) -> None:
    """Append the present traceback to the job's log; where even that cannot be written, to the worker's."""
    text = f"{time.strftime('%F %T')}\n{traceback.format_exc()}\n"
    try:
        with open(folder / "job.log", "a") as f:
            f.write(text)
    except OSError:
        print(text, file=sys.stderr, flush=True)


def main(endpoint: str, name: str, life: int) -> None:
    """Serve until killed: the daemon, or the guard, ends this process."""
    faulthandler.enable()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # until the guard stands, and beside it
    lock = paths().run / place.WORKER_LOCK
    # One writer per home: wait until the group of an earlier daemon's worker is gone.
    if place.take_lock(lock, LOCK_WAIT_S) is None:
        sys.exit(f"another worker still runs for this home and holds {lock}")
    guard(life)
    channel = Channel(endpoint, name)
    residents = Residents()
    channel.start()
    channel.send(m.WorkerReady(pid=os.getpid()))
    while True:
        message = channel.inbox.get()
        if isinstance(message, m.RunJob):
            channel.send(run_job(message, channel, residents))
            channel.send(m.WorkerResidents(residents=residents.describe()))
            gc.collect()
        else:
            residents.drop(message.keys)
            channel.send(m.WorkerResidents(residents=residents.describe()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
