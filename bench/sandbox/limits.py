"""What a program in the sandbox may use, and what came of it. Torch-free."""

from __future__ import annotations

from typing import Literal

import msgspec

from pipo.errors import BadInput

MB = 2**20
Ended = Literal["exit", "signal", "cpu", "wall", "memory", "output", "processes", "failed", "unmade"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one run.

    ``cpu_s``: CPU seconds of the whole process tree, the limit that counts. ``wall_s``: the backstop, None for four
    times the CPU seconds and five more. Bytes: ``memory`` of the tree and of each address space, ``disk`` of the box
    that can be written to, ``output`` of stdout and of stderr. ``processes``: threads count too.
    """

    cpu_s: float = 10.0
    wall_s: float | None = None
    memory: int = 1024 * MB
    disk: int = 64 * MB
    output: int = 1 * MB
    processes: int = 64

    def __post_init__(self) -> None:
        for name in ("cpu_s", "memory", "disk", "output", "processes"):
            if not getattr(self, name) > 0:
                raise BadInput(f"limit {name} {getattr(self, name)} must be above 0")
        if self.wall_s is not None and not self.wall_s > 0:
            raise BadInput(f"limit wall_s {self.wall_s} must be above 0; leave it out for the default")

    @property
    def backstop_s(self) -> float:
        return 4 * self.cpu_s + 5 if self.wall_s is None else self.wall_s


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    ``ended``: by itself (exit, signal), at a limit (cpu, wall, memory, output, processes), ``failed``: no end was
    reported since the program broke something, or ``unmade``: the box could not be made, the program never ran.
    ``code``: exit status or signal number. ``stdout``, ``stderr``: the first bytes, as many as the limit allows.
    ``cpu_s``: of all its processes. ``waited_s``: time in which they were ready and had no CPU, None where the kernel
    does not tell. ``tries``: 2 where the backstop came down on a busy machine and the run was made again.
    """

    ended: Ended
    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    waited_s: float | None = None
    tries: int = 1
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the program ended by itself with exit status 0."""
        return self.ended == "exit" and self.code == 0

    def why(self, limits: Limits) -> str:
        """The end in words."""
        words = {
            "exit": f"exit status {self.code}",
            "signal": f"killed by signal {self.code}",
            "cpu": f"stopped after {limits.cpu_s:g} CPU seconds",
            "wall": f"stopped after {limits.backstop_s:g} s of wall clock, with {self.cpu_s:.1f} s of CPU",
            "memory": f"stopped above {limits.memory // MB} MB of memory",
            "output": f"stopped above {limits.output} bytes of output",
            "processes": f"stopped above {limits.processes} processes",
            "failed": f"it broke the sandbox it ran in: {self.detail}",
            "unmade": f"the sandbox could not be made: {self.detail}",
        }
        tries = f", {self.tries} tries" if self.tries > 1 else ""
        return words[self.ended] + tries
