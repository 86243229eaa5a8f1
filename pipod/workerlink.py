"""The daemon's end of its worker: starts the process, talks to it, ends its whole group, says how it died. Torch-free.

The worker has its own session and process group. It holds the reading end of a pipe whose writing end only the daemon
has: when the daemon dies in whatever way, that pipe closes and the worker's guard ends the group (see worker.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import zmq

from pipo.config import child_environment
from pipod import codec, place
from pipod import messages as m

log = logging.getLogger("pipod")
START_TIMEOUT_S = 60.0
APART_WAIT_S = 10.0


class WorkerLink:
    """At most one worker at a time. ``state``: none, starting, idle, busy (set by the scheduler)."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path, home: Path) -> None:
        self._home = home
        self._endpoint = f"ipc://{folder / place.BACK}"
        self.log = home / "run" / "worker.log"
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(self._endpoint)
        self.state = "none"
        self._identity = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._life = -1
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a worker; it reports with WorkerReady. Raises OSError where no process can be made."""
        assert self._process is None
        self._identity = f"worker-{secrets.token_hex(4)}".encode()
        reading, self._life = os.pipe()
        output = place.open_log(self.log)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "pipod.worker", self._endpoint, self._identity.decode(), str(reading)],
                pass_fds=(reading,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self._home,
                env=child_environment(self._home),
            )
        except OSError:
            os.close(self._life)
            raise
        finally:
            os.close(reading)
            os.close(output)
        self.state = "starting"
        self._started = time.monotonic()

    def send(self, message: m.ToWorker) -> None:
        """Send to the worker; where it is gone, ``death`` tells soon."""
        try:
            self.socket.send_multipart([self._identity, codec.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def receive(self, limit: int = 1000) -> list[m.FromWorker]:
        """What the present worker has said; words of an earlier one are dropped."""
        out: list[m.FromWorker] = []
        for _ in range(limit):
            try:
                identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if identity != self._identity:
                continue
            try:
                out.append(codec.decode(frames, codec.from_worker_decoder))
            except codec.ProtocolError as e:
                log.error("the worker said something unreadable: %s", e)
        return out

    def death(self) -> str | None:
        """How the worker ended, in words; None while it lives or where none is. Its last words may still come."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            if self.state == "starting" and time.monotonic() - self._started > START_TIMEOUT_S:
                return f"did not start in {START_TIMEOUT_S:.0f} s"
            return None
        if code == -signal.SIGKILL:
            return "was killed (signal 9); if nobody did that, the machine ran out of memory: use a smaller batch"
        if code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended by itself with exit code {code}"

    def end(self) -> None:
        """Kill the worker's whole process group and forget it.

        Servers that it started have groups of their own and end when the worker does; that is waited for.
        """
        if self._process is None:
            return
        apart = children_apart(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        wait_for(apart)
        os.close(self._life)
        self._process = None
        self.state = "none"
        self._identity = b""

    def close(self) -> None:
        self.end()
        self.socket.close(linger=0)


def children_apart(pid: int) -> list[int]:
    """Children of a process that are in another group than it."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit() and _parent(int(entry)) == pid:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(entry)) != pid:
                    found.append(int(entry))
    return found


def _parent(pid: int) -> int | None:
    """A process's parent; None where it is gone or a zombie."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(parent)


def wait_for(pids: list[int]) -> None:
    """Wait until processes are gone; those that do not go in time are killed."""
    end = time.monotonic() + APART_WAIT_S
    while left := [p for p in pids if _parent(p) is not None]:
        if time.monotonic() > end:
            log.warning("processes %s did not end with their worker and are killed", left)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)
