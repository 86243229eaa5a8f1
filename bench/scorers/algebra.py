"""The process that compares formulas with math-verify: ``python -m bench.scorers.algebra CPU_S MEMORY``.

Questions come by stdin and verdicts go by stdout, each a MessagePack value behind its length. A formula may keep the
algebra busy for ever, in C where no signal is heard: so a comparison is interrupted after its CPU seconds, and who
asked kills the process where that did not help (math.py). Golds are parsed once.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from functools import lru_cache
from typing import IO, Any

import msgspec

from bench.sandbox.kernel import PR_SET_PDEATHSIG, prctl

RE_FIRE_S = 0.2  # an interrupt may be lost in a handler of the libraries


class OutOfTime(BaseException):
    """Beside ``Exception``, so that no handler of the libraries takes it for an error of their own."""


def interrupt(*_: Any) -> None:
    raise OutOfTime


@lru_cache(maxsize=8192)
def parse(text: str) -> Any:
    """What math-verify makes of an answer, golds and repeated answers once; a list, empty where it makes nothing."""
    from math_verify import parse as read

    return read(f"\\boxed{{{text}}}", parsing_timeout=None)


def compare(gold: str, answer: str) -> tuple[bool, str]:
    """Right or wrong, and why."""
    from math_verify import verify

    known = parse(gold)
    if not known:
        return False, "the gold answer cannot be read as mathematics"
    given = parse(answer)
    if not given:
        return False, "the answer cannot be read as mathematics"
    right = bool(verify(known, given, timeout_seconds=None, allow_set_relation_comp=True))
    return right, "equal by algebra" if right else "not equal by algebra"


def limited(gold: str, answer: str, cpu_s: float) -> tuple[bool, bool, str]:
    """(right, ended by a limit, why) within CPU seconds."""
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_s, RE_FIRE_S)
        try:
            right, why = compare(gold, answer)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return right, False, why
    except OutOfTime:
        return False, True, f"stopped after {cpu_s:g} CPU seconds of algebra"
    except MemoryError:
        return False, True, "stopped for want of memory"
    except RecursionError:
        return False, True, "nested too deep for the algebra"


def read(stream: IO[bytes]) -> bytes | None:
    """One message, or None at the end."""
    head = stream.read(4)
    return stream.read(struct.unpack("<I", head)[0]) if len(head) == 4 else None


def frame(value: Any) -> bytes:
    data = msgspec.msgpack.encode(value)
    return struct.pack("<I", len(data)) + data


def main(cpu_s: float, memory: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # stuck in C it would not see that nobody asks any more
    answers = os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what a library prints is no verdict
    os.dup2(quiet, 2)
    signal.signal(signal.SIGPROF, interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends who asks, and with that the questions
    parse("1")  # loads the libraries before the clock of the first question
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sys.set_int_max_str_digits(4300)
    answers.write(frame("ready"))
    answers.flush()
    while (data := read(sys.stdin.buffer)) is not None:
        gold, answer = msgspec.msgpack.decode(data, type=tuple[str, str])
        answers.write(frame(limited(gold, answer, cpu_s)))
        answers.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
