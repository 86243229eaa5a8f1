"""The job that does nothing: items that only wait. For measuring the daemon and for its fault tests. Torch-free.

Spec: ``items`` (3), ``delay_s`` (0) per item, ``resident`` (a key to keep loaded), and ``fault`` at item ``at`` (1):
``bad-input``, ``crash`` (an exception), ``die`` (the process kills itself), ``deaf`` (does not listen to a cancel),
``child`` (starts a process that would run on), ``noise`` (writes to stdout and stderr).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from pipo.errors import BadInput
from pipo.jobs import JobContext

DEFAULTS: dict[str, Any] = {"items": 3, "delay_s": 0.0, "resident": None, "fault": None, "at": 1}


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Append one line per item to ``records.txt``; items that are there already are not done again."""
    unknown = sorted(set(spec) - set(DEFAULTS))
    if unknown:
        raise BadInput(f"unknown setting {unknown[0]!r} of a noop job; known: {', '.join(DEFAULTS)}")
    spec = {**DEFAULTS, **spec}
    if spec["resident"]:
        ctx.resident(spec["resident"], lambda: bytearray(1000))
    path = ctx.folder / "records.txt"
    done = len(path.read_text().splitlines()) if path.exists() else 0
    for item in range(done, spec["items"]):
        if spec["fault"] != "deaf":
            ctx.check()
        if item == spec["at"]:
            _fault(spec["fault"], ctx)
        time.sleep(spec["delay_s"])
        with open(path, "a") as f:
            f.write(f"item {item} by {os.getpid()}\n")
        ctx.emit("progress", done=item + 1, total=spec["items"], note=f"item {item}")
    return {"items": spec["items"], "resumed_at": done}


def _fault(fault: str | None, ctx: JobContext) -> None:
    if fault == "bad-input":
        raise BadInput("item 1 is bad, as asked; leave out `fault`")
    if fault == "crash":
        raise RuntimeError("crashed as asked")
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        ctx.emit("log", text=f"child {child.pid}")
    if fault == "noise":
        print("noise on stdout", flush=True)
        print("noise on stderr", file=sys.stderr, flush=True)
