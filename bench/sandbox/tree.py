"""Looking at a tree of processes from outside, through /proc."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")


class Use(msgspec.Struct):
    """What a tree uses at this moment: CPU seconds with those of its reaped children, bytes of its own memory, seconds
    that it was ready and had no CPU (None where the kernel does not tell)."""

    cpu_s: float = 0.0
    memory: int = 0
    waited_s: float | None = 0.0


def below(pid: int) -> list[int]:
    """All processes that descend from ``pid``, itself left out; what ends meanwhile is left out too."""
    found: list[int] = []
    todo = [pid]
    while todo:
        folder = Path(f"/proc/{todo.pop()}/task")
        try:
            threads = list(folder.iterdir())
        except OSError:
            continue
        for thread in threads:
            try:
                children = [int(word) for word in (thread / "children").read_text().split()]
            except OSError:
                continue
            found += children
            todo += children
    return found


def use(pids: list[int]) -> Use:
    """The sum over processes; those that have ended count no more."""
    total = Use()
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            memory = Path(f"/proc/{pid}/statm").read_text().split()
        except OSError:
            continue
        total.cpu_s += sum(map(int, fields[11:15])) / TICK
        total.memory += (int(memory[1]) - int(memory[2])) * PAGE
        if total.waited_s is not None:
            try:
                total.waited_s += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                total.waited_s = None
    return total


def kill(pids: list[int], *, but: int) -> None:
    """SIGKILL to each that is still there and to its whole process group at once, which outruns a fork bomb.

    ``but``: a group that is left alone.
    """
    groups = set()
    for pid in pids:
        try:
            groups.add(os.getpgid(pid))
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for group in groups - {but, 0}:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
