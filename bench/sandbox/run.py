"""Running one program in the sandbox and watching it from outside.

CPU seconds decide, summed over the whole tree; the wall clock is a backstop, and a run that it ends on a busy machine
is made once more. What a program prints is data: bytes, cut at the limit.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

import msgspec

from bench.sandbox import tree
from bench.sandbox.limits import Ended, Limits, Outcome
from bench.sandbox.view import Files, Way, launch_command, make_plan
from pipo.errors import JobFailed

LOOK_EVERY_S = 0.02
BUSY = 0.2  # share of the wall clock spent waiting for a CPU from which a machine counts as busy
END_WITHIN_S = 10.0


def run(
    argv: Sequence[str],
    *,
    files: Files,
    stdin: bytes = b"",
    limits: Limits,
    way: Way,
    compiler: bool = False,
) -> Outcome:
    """Run a program on its files, which lie in its working folder.

    ``compiler``: show it all of /usr, read-only. ``way``: how it is shut in, as ``bench.sandbox.probe.find_way`` says;
    ``none`` has limits only. A run that the wall clock ends on a busy machine is made again, once.

    Raises:
        JobFailed: the sandbox could not be made, twice; processes that do not end when killed.
    """
    first = _run_once(argv, files, stdin, limits, way, compiler)
    if first.ended == "unmade":  # no fault of the program's, so no verdict on it
        first = _run_once(argv, files, stdin, limits, way, compiler)
        if first.ended == "unmade":
            raise JobFailed(f"the sandbox could not be made ({first.detail}); `pipo eval check-scorers` tries it again")
    busy = first.waited_s is None or first.waited_s > BUSY * first.wall_s
    if first.ended != "wall" or not busy:
        return first
    again = _run_once(argv, files, stdin, limits, way, compiler)
    return msgspec.structs.replace(again, tries=2)


def _run_once(argv: Sequence[str], files: Files, stdin: bytes, limits: Limits, way: Way, compiler: bool) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="pipo-box-") as root, tempfile.TemporaryFile() as plan:
        made = make_plan(argv, files, limits, root, way, compiler)
        plan.write(json.dumps(made).encode())
        plan.seek(0)
        report, writing = os.pipe()
        command = launch_command(made, plan.fileno(), writing, shutil.which("bwrap") if way == "bwrap" else None)
        launcher = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            pass_fds=(plan.fileno(), writing), start_new_session=True, env={}, bufsize=0,
        )  # fmt: skip
        os.close(writing)
        with open(report, "rb", buffering=0) as told:
            return Watch(launcher, told, stdin, limits, way).outcome()


class Watch:
    """One run seen from outside: feeds, reads, looks at the clocks, and ends it at a limit."""

    def __init__(
        self, launcher: subprocess.Popen[bytes], told: IO[bytes], stdin: bytes, limits: Limits, way: Way
    ) -> None:
        assert launcher.stdin and launcher.stdout and launcher.stderr
        self.launcher, self.limits, self.way = launcher, limits, way
        self.start = time.monotonic()
        self.stdin = memoryview(stdin)
        self.out: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray(), "told": bytearray()}
        self.use = tree.Use()
        self.stopped: Ended | None = None
        self.select = selectors.DefaultSelector()
        for name, pipe in (("stdout", launcher.stdout), ("stderr", launcher.stderr), ("told", told)):
            os.set_blocking(pipe.fileno(), False)
            self.select.register(pipe, selectors.EVENT_READ, name)
        os.set_blocking(launcher.stdin.fileno(), False)
        self.select.register(launcher.stdin, selectors.EVENT_WRITE, "stdin")

    def outcome(self) -> Outcome:
        """Watch until all is over. Raises JobFailed where processes cannot be ended."""
        deadline = self.start + self.limits.backstop_s
        look = self.start
        try:
            while self._reading():
                for key, _ in self.select.select(LOOK_EVERY_S):
                    self._write(key.fileobj) if key.data == "stdin" else self._read(key.fileobj, key.data)
                now = time.monotonic()
                if now >= look:
                    look = now + LOOK_EVERY_S
                    self._look(now > deadline)
                if now > deadline + END_WITHIN_S:
                    raise JobFailed(f"processes below {self.launcher.pid} do not end; look at them with ps")
        finally:
            self._stop()
            self.launcher.wait()
            self.select.close()
            for pipe in (self.launcher.stdin, self.launcher.stdout, self.launcher.stderr):
                assert pipe
                pipe.close()
        return self._result(time.monotonic() - self.start)

    def _reading(self) -> bool:
        return any(key.data != "stdin" for key in self.select.get_map().values())

    def _write(self, pipe: Any) -> None:
        try:
            if self.stdin:
                self.stdin = self.stdin[os.write(pipe.fileno(), self.stdin[:65536]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.stdin = memoryview(b"")
        if not self.stdin:
            self.select.unregister(pipe)
            pipe.close()

    def _read(self, pipe: Any, name: str) -> None:
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            self.select.unregister(pipe)
            return
        room = self.limits.output - len(self.out[name])
        self.out[name] += data[:room]
        if len(data) > room:
            self._end("output")

    def _look(self, late: bool) -> None:
        found = tree.below(self.launcher.pid)
        now = tree.use(found)
        self.use.cpu_s = max(self.use.cpu_s, now.cpu_s)
        if now.waited_s is None or self.use.waited_s is None:
            self.use.waited_s = None
        else:
            self.use.waited_s = max(self.use.waited_s, now.waited_s)
        if now.cpu_s > self.limits.cpu_s:
            self._end("cpu")
        elif len(found) > self.limits.processes + 2:  # walls count better and refuse; this is for where there are none
            self._end("processes")
        elif now.memory > self.limits.memory:
            self._end("memory")
        elif late:
            self._end("wall")
        elif self.stopped:
            self._stop()

    def _end(self, why: Ended) -> None:
        self.stopped = self.stopped or why
        self._stop()

    def _stop(self) -> None:
        """Kill the first process inside, and with it all; without walls, whatever descends from the launcher."""
        found = tree.below(self.launcher.pid)
        tree.kill(found if self.way == "none" else found[:1], but=self.launcher.pid)
        if not found and self.stopped:
            self.launcher.kill()

    def _result(self, wall_s: float) -> Outcome:
        told: dict[str, Any] = {}
        for line in self.out["told"].splitlines():
            told |= json.loads(line)
        cpu_s = max(told.get("cpu_s", 0.0), self.use.cpu_s)
        ended: Ended = "unmade" if "failed" in told else "failed"
        if self.stopped:
            ended = self.stopped
        elif "exit" in told or "signal" in told:
            ended = "exit" if "exit" in told else "signal"
            if cpu_s > self.limits.cpu_s:
                ended = "cpu"
        return Outcome(
            ended=ended, code=told.get("exit", told.get("signal", 0)), stdout=bytes(self.out["stdout"]),
            stderr=bytes(self.out["stderr"]), cpu_s=cpu_s, wall_s=wall_s, waited_s=self.use.waited_s,
            detail=str(told.get("failed", "it ended without a word")) if ended in ("failed", "unmade") else "",
        )  # fmt: skip
