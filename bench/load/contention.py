"""How long this thread was ready to run and had no CPU: whether others on the machine disturbed a measurement."""

from __future__ import annotations

from pathlib import Path

SCHEDSTAT = Path("/proc/thread-self/schedstat")  # nanoseconds on a CPU, nanoseconds waiting for one, turns


def waited_s(file: Path = SCHEDSTAT) -> float | None:
    """Seconds that the calling thread has waited for a CPU since it began; None where the kernel does not tell."""
    try:
        return int(file.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def since(before: float | None) -> float | None:
    """Seconds waited since ``waited_s`` gave ``before``."""
    now = waited_s()
    return None if now is None or before is None else now - before
