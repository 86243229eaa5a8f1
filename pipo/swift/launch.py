"""Trainings on ms-swift as jobs: its processes are children of the job, and their events become the job's.

The processes run under the watchdog of pipo.sglang: nothing that they started outlives the job. A cancel asks them by a
file to stop behind a checkpoint; who does not stop in time is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from pipo.errors import ERRORS_BY_NAME, BadInput, Cancelled, JobFailed, PipoError
from pipo.jobs import JobContext
from pipo.sglang import machine
from pipo.swift import command as c
from pipo.swift.checkpoint import latest
from pipo.train import resume

POLL_S = 0.2
PATIENCE_S = 1800.0  # a stop waits for the step that runs, and for a checkpoint
GRACE_S = 10.0
RAISED = re.compile(r"^(?:\[rank\d+\]: ?)?pipo\.errors\.(\w+): (.*)")
ERROR_LINE = re.compile(r"^(?:\[rank\d+\]: ?)?((?:[\w.]+\.)?\w*(?:Error|Exception|SystemExit)\b.*)")
NO_CAUSE = ("ChildFailedError", "CalledProcessError")  # torchrun says that somebody else failed
MEMORY_SIGNS = ("OutOfMemoryError", "out of memory", "MemoryError")


def run(stage: c.Stage, s: Any, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Train by ms-swift in ``folder``; a second call on the same folder goes on from its last checkpoint.

    Raises:
        BadInput: settings that cannot run here, or what a process found wrong with the input.
        JobFailed: a process ended with an error; the message has its last words and the log.
        Cancelled: on request, behind a checkpoint.
    """
    if (why := c.unusable(s)) is not None:
        raise BadInput(why)
    start = prepare(stage, s, folder, ctx)
    command = c.make_command(stage, s, folder, start)
    if s.processes > 1:
        command = command._replace(port=machine.free_port("127.0.0.1"))
    ctx.emit("log", text=f"{stage}: ms-swift {c.VERSION}, processes: {s.processes}; its log is {folder / c.LOG}")
    follow(command, folder, ctx)
    try:
        done: dict[str, Any] = json.loads((folder / c.RESULT).read_text())
    except (OSError, json.JSONDecodeError) as e:
        raise JobFailed(f"ms-swift ended without a result; its log is {folder / c.LOG}") from e
    return done


def prepare(stage: c.Stage, s: Any, folder: Path, ctx: JobContext) -> Path | None:
    """Write the files of the command; returns the checkpoint to go on from, of this folder or of ``s.resume``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (c.STOP, c.RESULT, c.EVENTS):
        (folder / name).unlink(missing_ok=True)
    start = latest(folder / c.OUTPUT)
    if start is None and s.resume is not None:
        old = Path(s.resume).expanduser().absolute()
        start = latest(old / c.OUTPUT)
        if start is None:
            raise BadInput(f"{old} holds no checkpoint of ms-swift to resume from; leave --resume out to start anew")
        before = c.read_settings(stage, old / c.SETTINGS)
        resume.compare(msgspec.to_builtins(s), msgspec.to_builtins(before), old)
        for name in resume.FILES[1:]:
            if (old / name).exists():
                shutil.copyfile(old / name, folder / name)
    c.write_files(stage, s, folder)
    return start


def follow(command: c.Command, folder: Path, ctx: JobContext) -> None:
    """Run a command to its end, its events passed on; raises as ``run`` does."""
    _Run(command, folder, ctx).wait()


class _Run:
    """Processes of one command, followed to their end."""

    def __init__(self, command: c.Command, folder: Path, ctx: JobContext) -> None:
        self.folder, self.ctx, self.log = folder, ctx, folder / c.LOG
        self.position = 0
        self.asked: float | None = None
        self.training = False  # whether the first step is near: until then a stop costs nothing
        self.why: Cancelled | None = None
        reading, self.life = os.pipe()
        line = [sys.executable, "-P", "-m", "pipo.sglang.watchdog", str(reading), str(GRACE_S), *command.line]
        try:
            with open(self.log, "ab") as log:
                log.write(f"\n{command.shown()}\n".encode())
                log.flush()
                self.began = log.tell()
                self.process = subprocess.Popen(
                    line, pass_fds=(reading,), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, env=command.environment(), cwd=folder,
                )  # fmt: skip
        except OSError as e:
            os.close(self.life)
            raise JobFailed(f"ms-swift cannot be started: {e}") from e
        finally:
            os.close(reading)

    def wait(self) -> None:
        """Pass events on until all processes are gone; raises what went wrong."""
        try:
            while self.process.poll() is None:
                self._pass_on()
                self._listen()
                time.sleep(POLL_S)
            self._pass_on()
        finally:
            os.close(self.life)  # ends what still runs
            self.process.wait()
        if self.why is not None:
            raise self.why
        if self.process.returncode:
            raise self._failure()

    def _listen(self) -> None:
        """Turn a cancel into a stop file; before there is anything to save, and out of patience, into a signal."""
        if self.asked is None:
            try:
                self.ctx.check()
            except Cancelled as e:
                self.why, self.asked = e, time.monotonic()
                (self.folder / c.STOP).touch()
        elif not self.training or time.monotonic() - self.asked > PATIENCE_S:
            self.process.send_signal(signal.SIGTERM)

    def _pass_on(self) -> None:
        """Emit the whole lines that came to the file of events since the last call."""
        with contextlib.suppress(FileNotFoundError), open(self.folder / c.EVENTS, "rb") as f:
            f.seek(self.position)
            whole, _, _ = f.read().rpartition(b"\n")
            if whole:
                self.position += len(whole) + 1
                for line in whole.split(b"\n"):
                    event = json.loads(line)
                    if event["kind"] == c.BEGINS:
                        self.training = True
                    else:
                        self.ctx.emit(event["kind"], **event["data"])

    def _failure(self) -> PipoError:
        """What the processes said before they ended, as the error that it was."""
        with open(self.log, "rb") as f:
            f.seek(max(self.began, self.log.stat().st_size - 200_000))
            lines = [line.strip() for line in f.read().decode(errors="replace").splitlines()]
        for line in lines:
            if (found := RAISED.match(line)) and found[1] in ERRORS_BY_NAME:
                return ERRORS_BY_NAME[found[1]](found[2])
        end = f"its log is {self.log}"
        if any(sign in line for line in lines for sign in MEMORY_SIGNS):
            return JobFailed(f"ms-swift ran out of memory; lower micro_rows, micro_tokens or max_length; {end}")
        if self.process.returncode == 128 + signal.SIGKILL:
            return JobFailed(
                f"ms-swift was killed (signal 9); if nobody did that, the machine ran out of memory; {end}"
            )
        errors = [m[1] for line in lines if (m := ERROR_LINE.match(line)) and not any(n in line for n in NO_CAUSE)]
        last = errors[-1] if errors else next((line for line in reversed(lines) if line), "it said nothing")
        return JobFailed(f"ms-swift ended with exit code {self.process.returncode}: {last[:500]}; {end}")
