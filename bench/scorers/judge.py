"""One front for all scorers: answers of a task by the scorer that its definition names. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import msgspec

from bench.sandbox.probe import find_way
from bench.sandbox.view import Way
from bench.scorers.code import score_code
from bench.scorers.pool import MathPool
from bench.scorers.reading import score_choice
from bench.scorers.verdict import Verdict
from pipo.data.benchmarks.items import Program
from pipo.errors import BadInput


class Answer(msgspec.Struct, frozen=True):
    """What a model wrote, all of it, and what is known to be right: ``gold``, or ``program`` for code."""

    text: str
    gold: str
    program: Program | None = None


class Judge:
    """Scores answers; a context manager that keeps its processes for algebra until it is closed.

    ``unsafe``: run code without walls where none can be had (bench/sandbox/probe.py). ``workers``: processes for
    algebra, and programs that run at once. How code is shut in is found out when the first of it comes.
    """

    def __init__(self, *, unsafe: bool = False, workers: int = 2) -> None:
        self.unsafe, self.workers = unsafe, workers
        self.pool = MathPool(workers=workers)
        self._way: Way | None = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.close()

    @property
    def way(self) -> Way:
        """How code is shut in here. Raises BadInput where it cannot be, and nobody said to run it all the same."""
        self._way = self._way or find_way(unsafe=self.unsafe)
        return self._way

    def score(self, scorer: str, answers: Sequence[Answer]) -> list[Verdict]:
        """Verdicts in the order of the answers. ``scorer``: math, choice, code or exact.

        Raises:
            BadInput: another scorer; code without a program to judge it by, or that cannot be shut in here.
        """
        if scorer == "math":
            return self.pool.score_texts([(a.text, a.gold) for a in answers])
        if scorer == "choice":
            return [score_choice(a.text, a.gold) for a in answers]
        if scorer == "exact":
            return [_exact(a) for a in answers]
        if scorer == "code":
            return self._code(answers)
        raise BadInput(f"scorer {scorer!r} must be math, choice, code or exact")

    def _code(self, answers: Sequence[Answer]) -> list[Verdict]:
        """As many programs at once as there are processes for algebra; limits are CPU seconds, so no score changes."""
        programs = [a.program for a in answers if a.program is not None]
        if len(programs) < len(answers):
            raise BadInput("an item for the scorer 'code' has no program to judge it by; its file needs tests")
        way = self.way if answers else "none"
        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(lambda p, a: score_code(p, a.text, way=way), programs, answers))


def _exact(answer: Answer) -> Verdict:
    same = answer.text.strip() == answer.gold.strip()
    return Verdict(same, "the same text" if same else "another text", "exact")
