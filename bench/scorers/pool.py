"""Scoring mathematics: cheap comparisons here, algebra in a few processes that can be killed (algebra.py).

A comparison is bounded in CPU seconds of its own process; the wall clock is a backstop with one retry, so that a busy
machine changes no score. The processes are kept from one call to the next. Torch-free.
"""

from __future__ import annotations

import selectors
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import msgspec

from bench.sandbox import tree
from bench.sandbox.limits import MB
from bench.scorers.algebra import frame
from bench.scorers.reading import compare, last_boxed
from bench.scorers.verdict import Verdict
from pipo.config import child_environment
from pipo.errors import BadInput, JobFailed

LOOK_EVERY_S = 0.1
GRACE_S = 1.0  # CPU seconds after its limit in which a process may still say so by itself
START_S = 120.0
MEMORY = 2048 * MB
KEPT = 200_000  # verdicts remembered
Pair = tuple[str, str]  # gold, answer


class Comparer:
    """One process, and what it is asked at the moment."""

    def __init__(self, cpu_s: float) -> None:
        command = [sys.executable, "-m", "bench.scorers.algebra", str(cpu_s), str(MEMORY)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), bufsize=0,
        )  # fmt: skip
        self.buffer = b""
        self.ready = False
        self.asked: Pair | None = None
        self.since = time.monotonic()
        self.cpu_then = 0.0

    @property
    def pipe(self) -> Any:
        return self.process.stdout

    def ask(self, pair: Pair) -> None:
        assert self.process.stdin
        self.asked, self.since, self.cpu_then = pair, time.monotonic(), self.cpu_s()
        self.process.stdin.write(frame(pair))

    def cpu_s(self) -> float:
        return tree.use([self.process.pid]).cpu_s

    def receive(self) -> Any:
        """The next message, None while it is incomplete. Raises EOFError where the process has ended."""
        assert self.process.stdout
        data = self.process.stdout.read(65536)
        if not data:
            raise EOFError
        self.buffer += data
        if len(self.buffer) < 4 or len(self.buffer) < 4 + (size := struct.unpack("<I", self.buffer[:4])[0]):
            return None
        message, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]
        return msgspec.msgpack.decode(message)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


class MathPool:
    """Scores answers in mathematics; a context manager, usable again and again, by one thread at a time.

    ``workers``: processes for algebra, started when they are needed. ``cpu_s``: CPU seconds of one comparison;
    ``wall_s``: its backstop, default four times that and five more.
    """

    def __init__(self, *, workers: int = 2, cpu_s: float = 3.0, wall_s: float | None = None) -> None:
        if workers < 1 or not cpu_s > 0:
            raise BadInput(f"workers {workers} and cpu_s {cpu_s} must be at least 1 and above 0")
        self.workers, self.cpu_s = workers, cpu_s
        self.wall_s = 4 * cpu_s + 5 if wall_s is None else wall_s
        self.known: dict[Pair, Verdict] = {}
        self.comparers: list[Comparer] = []
        self.select = selectors.DefaultSelector()

    def __enter__(self) -> MathPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for comparer in list(self.comparers):
            self._drop(comparer)

    def score_texts(self, texts: Iterable[tuple[str, str]]) -> list[Verdict]:
        r"""Verdicts on (text, gold): what the last ``\boxed{}`` of each text holds against its gold."""
        return self.score([(last_boxed(text), gold) for text, gold in texts])

    def score(self, answers: Sequence[tuple[str | None, str]]) -> list[Verdict]:
        """Verdicts on (answer, gold), in their order; the answer None where a text has none.

        Raises:
            JobFailed: the processes for algebra cannot be started.
        """
        if len(self.known) > KEPT:
            self.known.clear()
        found = [compare(answer, gold) for answer, gold in answers]
        open_ = {(gold, answer or "") for (answer, gold), v in zip(answers, found) if v is None}
        self._run(deque(sorted(open_ - self.known.keys())))
        return [self.known[gold, answer or ""] if v is None else v for (answer, gold), v in zip(answers, found)]

    def _run(self, todo: deque[Pair]) -> None:
        again: set[Pair] = set()
        try:
            while todo or any(c.asked for c in self.comparers):
                while len(self.comparers) < min(
                    self.workers, len(todo) + sum(c.asked is not None for c in self.comparers)
                ):
                    self._start()
                for comparer in self.comparers:
                    if comparer.ready and comparer.asked is None and todo:
                        comparer.ask(todo.popleft())
                for key, _ in self.select.select(LOOK_EVERY_S):
                    self._hear(key.data)
                for comparer in list(self.comparers):
                    self._look(comparer, todo, again)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        comparer = Comparer(self.cpu_s)
        self.comparers.append(comparer)
        self.select.register(comparer.pipe, selectors.EVENT_READ, comparer)

    def _drop(self, comparer: Comparer) -> None:
        self.select.unregister(comparer.pipe)
        self.comparers.remove(comparer)
        comparer.end()

    def _hear(self, comparer: Comparer) -> None:
        try:
            message = comparer.receive()
        except EOFError:
            if not comparer.ready:
                raise JobFailed("the process for algebra did not start; is math-verify installed?") from None
            self._give(comparer, Verdict(False, "the algebra broke down over it", "symbolic", limit=True))
            self._drop(comparer)
            return
        if message == "ready":
            comparer.ready = True
        elif message is not None:
            right, limit, why = message
            self._give(comparer, Verdict(right, why, "symbolic", limit=limit))

    def _give(self, comparer: Comparer, verdict: Verdict) -> None:
        if comparer.asked is not None:
            self.known[comparer.asked] = verdict
            comparer.asked = None

    def _look(self, comparer: Comparer, todo: deque[Pair], again: set[Pair]) -> None:
        """End a process that is beyond its limits; a comparison that only the wall clock ended is asked once more."""
        waited = time.monotonic() - comparer.since
        if not comparer.ready:
            if waited > START_S:
                raise JobFailed(
                    f"the process for algebra did not start within {START_S:g} s; look at the machine's load"
                )
            return
        if comparer.asked is None or waited < min(self.cpu_s, self.wall_s):
            return
        pair = comparer.asked
        if comparer.cpu_s() - comparer.cpu_then > self.cpu_s + GRACE_S:
            why = f"killed after {self.cpu_s:g} CPU seconds of algebra"
        elif waited > self.wall_s and pair in again:
            why = f"killed after {self.wall_s:g} s of wall clock, 2 tries"
        elif waited > self.wall_s:
            again.add(pair)
            comparer.asked = None
            todo.append(pair)
            self._drop(comparer)
            return
        else:
            return
        self._give(comparer, Verdict(False, why, "symbolic", limit=True))
        self._drop(comparer)
