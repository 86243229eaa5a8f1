"""Whether programs can be shut in on this machine: each way is tried with a program that tries to get out."""

from __future__ import annotations

import functools
import json
import shutil

from bench.sandbox.limits import MB, Limits, Outcome
from bench.sandbox.run import run
from bench.sandbox.view import Way, python_argv
from pipo.errors import BadInput, JobFailed

LIMITS = Limits(cpu_s=5, memory=256 * MB, disk=1 * MB, output=4096, processes=8)
UNSAFE = "--unsafe-code-execution"
PROBE = r"""
import ctypes, json, os, socket
def works(do):
    try:
        do()
        return True
    except OSError:
        return False
def reach():
    with socket.socket() as s:
        s.settimeout(0.5)
        s.connect(("192.0.2.1", 9))
def fork_many():
    children = []
    try:
        for _ in range(64):
            pid = os.fork()
            if pid == 0:
                os.pause() if hasattr(os, "pause") else __import__("signal").pause()
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
def fill():
    with open("/box/full", "wb") as f:
        for _ in range(64):
            f.write(bytes(2**16))
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps({
    "reads files of the host": any(map(os.path.exists, ("/etc/passwd", "/root", "/home", "/proc/1", "/sys/kernel"))),
    "writes outside its box": works(lambda: open("/usr/lib/x", "w")) or works(lambda: open("/x", "w")),
    "has a network": works(reach),
    "is root": 0 in (os.getuid(), os.geteuid()),
    "may change mounts": works(lambda: os.chroot("/box")) or ctypes.CDLL(None).unshare(0x10020000) == 0,
    "is not the second process": os.getpid() != 2,
    "starts processes without end": works(fork_many),
    "fills the disk": works(fill),
}))
"""


def find_way(*, unsafe: bool = False) -> Way:
    """How programs are shut in here: ``namespaces`` of our own, else ``bwrap`` where it is installed.

    ``unsafe``: the user said in so many words that code may run without walls; that is done only where no wall is to
    be had (``none``).

    Raises:
        BadInput: nothing works and nobody said so; the message names the reasons.
    """
    reasons = []
    for way in ("namespaces", "bwrap"):
        problem = why_not(way)  # type: ignore[arg-type]
        if problem is None:
            return way  # type: ignore[return-value]
        reasons.append(f"{way}: {problem}")
    if unsafe:
        return "none"
    raise BadInput(
        f"code that a model wrote cannot be shut in on this machine ({'; '.join(reasons)}); allow user namespaces, "
        f"install bubblewrap, or say {UNSAFE} to run it with your own rights"
    )


@functools.cache
def why_not(way: Way) -> str | None:
    """None where a way holds on this machine, else what fails."""
    if way == "bwrap" and shutil.which("bwrap") is None:
        return "not installed"
    files = {"probe.py": (PROBE.encode(), False)}
    try:
        return judge(run(python_argv("probe.py", way), files=files, limits=LIMITS, way=way))
    except JobFailed as e:
        return str(e)


def judge(outcome: Outcome) -> str | None:
    """None where the probe came to nothing, else what it could do."""
    if not outcome.good:
        return f"{outcome.why(LIMITS)} {outcome.stderr.decode(errors='replace').strip()[-200:]}".strip()
    holes = [name for name, found in json.loads(outcome.stdout).items() if found]
    return f"a program inside {', '.join(holes)}" if holes else None
