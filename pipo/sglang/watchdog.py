"""The parent of a server: ``python -m pipo.sglang.watchdog FD GRACE COMMAND...``. Nothing that it started outlives it.

FD is the reading end of a pipe whose writing end only the owner has. When the owner ends, in whatever way, the pipe
closes, and all of the server's processes are killed. SIGTERM asks the server to stop, and kills what is left after
GRACE seconds. When the server ends by itself, what it left behind is killed. Only then does this process end, with the
server's exit code. Where this process itself is killed, the kernel kills the server, and SGLang's processes follow it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.02


def children() -> list[int]:
    """Direct children of this process, orphans that came to it included."""
    me, found = str(os.getpid()), []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1] == me:
                    found.append(int(entry))
    return found


def kill_all() -> None:
    """Kill every descendant and wait until all are gone. As parents die, their children become ours, and die next."""
    while True:
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(POLL_S)


def watch(child: subprocess.Popen[bytes], life: int, bell: int, grace_s: float) -> int:
    """Wait for the end of the server, of its owner, or of the time that it got to stop; the exit code."""
    deadline: float | None = None
    with selectors.DefaultSelector() as events:
        events.register(life, selectors.EVENT_READ)
        events.register(bell, selectors.EVENT_READ)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = {key.fd for key, _ in events.select(left)}
            if life in ready or left == 0:
                return child.poll() or 0
            if (code := child.poll()) is not None:
                return code
            if bell in ready and signal.SIGTERM in os.read(bell, 4096) and deadline is None:
                deadline = time.monotonic() + grace_s
                child.terminate()


def main(life: int, grace_s: float, command: list[str]) -> int:
    """Run the command to its end; returns its exit code, 128 + signal where one ended it."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bell, ringer = os.pipe()
    for end in (bell, ringer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(ringer)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to hear

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    child = subprocess.Popen(command, preexec_fn=tie, process_group=0)
    code = watch(child, life, bell, grace_s)
    kill_all()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
