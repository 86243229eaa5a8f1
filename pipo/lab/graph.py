"""A graph of stages, each a process of its own: started as its needs are met, resumable, with progress. Torch-free.

A stage is done when ``FOLDER/STAGE/done.json`` stands; it is never started again then, so a second run on the same
folder goes on. A stage writes its progress to standard output as JSON lines (``ChildContext``, ``show``), one thread
of torch each, and what it says on standard error goes to ``FOLDER/STAGE.err``.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from pipo.errors import JobFailed
from pipo.jobs import JobContext, LocalContext


class Graph:
    """Starts stages in the order of ``needs``, up to ``workers`` at a time, and passes their progress on.

    ``needs``: stage -> stages that must be done before; ``command(stage)``: what runs it; ``noun`` and ``again``: words
    of messages. A stage that fails ends them all, or with ``keep_going`` only those that need it. ``until``: a time
    (``time.monotonic``) at which what runs is ended and nothing more is started.
    """

    def __init__(
        self, folder: Path, needs: Mapping[str, tuple[str, ...]], command: Callable[[str], list[str]], workers: int,
        ctx: JobContext, *, noun: str, again: str, keep_going: bool = False, until: float | None = None,
        on_done: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.needs, self.command, self.workers, self.ctx = folder, needs, command, workers, ctx
        self.noun, self.again, self.keep_going, self.until, self.on_done = noun, again, keep_going, until, on_done
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.failed: dict[str, str] = {}
        self.waiting: set[str] = set()  # stages that could not be started yet
        self.lines: Queue[tuple[str, str | None]] = Queue()

    def done(self, stage: str) -> bool:
        return (self.folder / stage / "done.json").exists()

    def run(self) -> dict[str, str]:
        """Run what is not done; returns stage -> why for those that failed (none unless ``keep_going``).

        Raises:
            JobFailed: a stage failed; the message has its last line and where its log is.
            Cancelled: the job was asked to stop; what runs is ended.
        """
        try:
            while not self._late():
                for stage in self._ready()[: self.workers - len(self.running)]:
                    self._start(stage)
                if not self.running:
                    break
                self._listen()
        finally:
            for process in self.running.values():
                process.terminate()
            for process in self.running.values():
                process.wait()
        return self.failed

    def _late(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until

    def _ready(self) -> list[str]:
        return [
            stage
            for stage, needs in self.needs.items()
            if stage not in self.running and stage not in self.failed and not self.done(stage)
            and all(map(self.done, needs))
        ]  # fmt: skip

    def _start(self, stage: str) -> None:
        """Start a stage; where the machine has no process left for it, it is tried again while others run."""
        try:
            with open(self.folder / f"{stage}.err", "a") as log:  # the process has its own copy
                process = subprocess.Popen(self.command(stage), stdout=subprocess.PIPE, stderr=log, text=True)
        except OSError as e:
            why = f"{self.noun} {stage} cannot be started ({e.strerror})"
            if not self.running:
                raise JobFailed(f"{why}; {self.again}") from e
            if stage not in self.waiting:
                self.ctx.emit("log", text=f"{why}; tried again")
            self.waiting.add(stage)
            return
        self.running[stage] = process
        self.ctx.emit("log", text=f"{stage}: started")
        threading.Thread(target=self._read, args=(stage, process), daemon=True).start()

    def _read(self, stage: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.lines.put((stage, line))
        self.lines.put((stage, None))

    def _listen(self) -> None:
        """Pass on one line of a stage, or note that it ended; look out for a cancel meanwhile."""
        self.ctx.check()
        try:
            stage, line = self.lines.get(timeout=0.5)
        except Empty:
            return
        if line is None:
            self._ended(stage, self.running.pop(stage).wait())
            return
        data = json.loads(line)
        kind = data.pop("kind")
        if kind == "progress":
            data["note"] = f"{stage} ({sum(map(self.done, self.needs))} of {len(self.needs)} stages done)"
            self.ctx.emit("progress", **data)

    def _ended(self, stage: str, code: int) -> None:
        if code or not self.done(stage):
            tail = " ".join((self.folder / f"{stage}.err").read_text().strip().splitlines()[-1:])
            why = f"{self.noun} {stage} ended with code {code}: {tail}"
            if not self.keep_going:
                raise JobFailed(f"{why}; {self.again} (log: {self.folder / stage}.err)")
            self.failed[stage] = why
            self.ctx.emit("log", text=why)
            return
        self.ctx.emit("log", text=f"{stage}: done")
        if self.on_done is not None:
            self.on_done(stage)


def show(kind: str, data: dict[str, Any]) -> None:
    """A stage's event, to whoever started it."""
    print(json.dumps({"kind": kind, **data}), flush=True)


class ChildContext(LocalContext):
    """Stops a stage, after a checkpoint, when the process that started it is gone."""

    def __init__(self, folder: Path, on_event: Callable[[str, dict[str, Any]], None] = show) -> None:
        super().__init__(folder, on_event)
        self._parent = os.getppid()

    def check(self) -> None:
        self.cancelled = os.getppid() != self._parent
        super().check()
