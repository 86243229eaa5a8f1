"""Verdicts on samples, by the scorer of their task: at once where that is cheap, else beside the engine.

Samples are written as they end, as not judged yet where their scorer needs processes (algebra) or a sandbox (code). A
thread judges them meanwhile; its rulings go to ``verdicts.jsonl`` and, once all are there, into the records, by rename.
So a kill loses no sample, and no ruling but those in flight. Torch-free.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench import record
from bench.record import Record, SampleRecord
from bench.sandbox.probe import find_way
from bench.scorers.code import LANGUAGES
from bench.scorers.judge import Answer, Judge
from bench.scorers.reading import compare, last_boxed, score_choice
from bench.scorers.verdict import Verdict
from bench.tasks import Task, is_right
from pipo.data.benchmarks import Program
from pipo.data.lines import objects
from pipo.errors import BadInput
from pipo.jobs import JobContext

VERSIONS = {"math": 1, "choice": 1, "code": 1}  # one more whenever verdicts change; exact comparing never does
JOURNAL = "verdicts.jsonl"
ENDED = ("eos", "stop")  # a sample that was cut or failed has no answer
BATCH = 16
LOOK_EVERY_S = 0.5
Key = tuple[str, str, str, int]  # variant, task, item, sample


class Ruling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict on a sample of a record file. ``was``: how it was judged before; None where it was not."""

    variant: str
    task: str
    item: str
    sample: int
    verdict: Verdict
    was: bool | None = None

    @property
    def key(self) -> Key:
        return self.variant, self.task, self.item, self.sample


class Asked(NamedTuple):
    """A sample that waits for its judge."""

    key: Key
    scorer: str
    answer: Answer
    was: bool | None = None


def key_of(r: SampleRecord) -> Key:
    return r.variant, r.task, r.item, r.sample


def marks(tasks: Sequence[Task]) -> dict[str, str]:
    """Task -> its scorer with version, for settings: a run does not go on with another one. Exact ones need none."""
    return {t.name: f"{t.scorer}-{VERSIONS[t.scorer]}" for t in tasks if t.scorer != "exact"}


def check_programs(tasks: Sequence[Task]) -> None:
    """Raise BadInput or BadRecord for a task of programs with an item that could not be judged on this machine."""
    for task in tasks:
        if task.scorer != "code":
            continue
        for item in task.items:
            why = _unfit(item.program)
            if why is not None:
                raise BadInput(f"{task.name}/{item.id}: {why}; take the item out, or name other tasks")


def _unfit(program: Program | None) -> str | None:
    if program is None:
        return "it has no program to be judged by"
    if program.form == "check":
        return None if program.test.strip() else "it has no tests"
    if program.form not in ("stdin", "function") or program.language not in LANGUAGES:
        return f"programs of the form {program.form!r} in {program.language!r} cannot be judged here"
    if program.language == "cpp" and shutil.which("g++") is None:
        return "it asks for C++, and there is no g++ here"
    return None if program.cases() else "it has no tests"


def check_way(tasks: Sequence[Task], unsafe: bool) -> str | None:
    """How code is shut in, where a task has code. Raises BadInput where it cannot be."""
    return find_way(unsafe=unsafe) if any(t.scorer == "code" for t in tasks) else None


def first_look(r: SampleRecord, scorer: str) -> SampleRecord:
    """A sample with its verdict where that takes no process, else as not judged yet.

    A sample that did not end is wrong, whatever it holds.
    """
    if scorer == "exact":
        return msgspec.structs.replace(r, correct=r.finish in ENDED and is_right(r.answer, r.gold))
    if r.finish not in ENDED:
        how = "the generation failed" if r.finish == "failed" else f"it did not end: cut by its budget of {r.finish}"
        return ruled(r, Verdict(False, how))
    found = quick(scorer, r.text, r.gold)
    return msgspec.structs.replace(r, correct=False, judged=False) if found is None else ruled(r, found)


def quick(scorer: str, text: str, gold: str) -> Verdict | None:
    """What ``Judge.score`` would say, where it says so without a process of its own; else None."""
    if scorer == "choice":
        return score_choice(text, gold)
    return compare(last_boxed(text), gold) if scorer == "math" else None


def ruled(r: SampleRecord, verdict: Verdict) -> SampleRecord:
    """The sample with a verdict."""
    return msgspec.structs.replace(r, correct=verdict.right, judged=True, verdict=verdict)


class Grader:
    """Judges samples in a thread while others are made; rulings go to ``path``.

    It may be used again after ``drain``. ``unsafe``: run code without walls where none can be had. An error of the
    judge comes out of ``drain``: what was generated is not lost by it.
    """

    def __init__(self, path: Path, *, unsafe: bool = False, workers: int | None = None) -> None:
        self.path, self.unsafe = path, unsafe
        self.workers = workers or max(1, min(8, len(os.sched_getaffinity(0)) // 2))  # the engine needs the others
        self.asked = self.ruled = 0
        self._queue: deque[Asked] = deque()
        self._turns: list[Future[None]] = []
        self._judge: Judge | None = None  # of the thread's alone
        self._stopped = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge")

    def put(self, samples: Sequence[Asked]) -> None:
        """Have these judged; they must be in the record file already."""
        self._queue.extend(samples)
        self.asked += len(samples)
        self._turns = [t for t in self._turns if not t.done() or t.exception()]
        if samples:
            self._turns.append(self._thread.submit(self._turn))

    def _turn(self) -> None:
        while self._queue and not self._stopped:
            most = self.workers if self._queue[0].scorer == "code" else BATCH  # who gives up waits for the batch
            batch = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._judge = self._judge or Judge(unsafe=self.unsafe, workers=self.workers)
            found = list(rulings_on(batch, self._judge))
            if not self._stopped:
                record.append(self.path, found)
                self.ruled += len(found)

    def _rest(self) -> None:
        if self._judge is not None:
            self._judge.__exit__(None, None, None)
        self._judge = None

    def drain(self, ctx: JobContext) -> None:
        """Wait until all are judged. Raises what judging raised, and Cancelled."""
        said = time.monotonic()
        while left := [t for t in self._turns if not t.done()]:
            wait(left, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            ctx.check()
            if time.monotonic() - said >= LOOK_EVERY_S:
                said = time.monotonic()
                ctx.emit("progress", done=self.ruled, total=self.asked, note="judging")
        turns, self._turns = self._turns, []
        self._thread.submit(self._rest).result()
        for turn in turns:
            turn.result()

    def close(self) -> None:
        """Give up what waits; a judgement in flight is not waited for."""
        self._stopped = True
        self._thread.submit(self._rest)
        self._thread.shutdown(wait=False)


def rulings_on(asked: Sequence[Asked], judge: Judge) -> Iterator[Ruling]:
    """Rulings on samples of any scorers, in their order."""
    verdicts: dict[Key, Verdict] = {}
    for scorer in dict.fromkeys(a.scorer for a in asked):
        of = [a for a in asked if a.scorer == scorer]
        found = judge.score(scorer, [a.answer for a in of])
        verdicts.update({a.key: v for a, v in zip(of, found, strict=True)})
    for a in asked:
        yield ruling(a.key, verdicts[a.key], a.was)


def ruling(key: Key, verdict: Verdict, was: bool | None = None) -> Ruling:
    variant, task, item, sample = key
    return Ruling(variant=variant, task=task, item=item, sample=sample, verdict=verdict, was=was)


def read_rulings(path: Path) -> dict[Key, Ruling]:
    """Rulings of a journal, the last one on a sample; a torn last line is left out. Raises BadRecord."""
    if not path.exists():
        return {}
    rows = (msgspec.convert(row, Ruling) for _, row in objects(path, "a ruling on a sample"))
    return {r.key: r for r in rows}


def fold(records: Path, journal: Path) -> None:
    """Put the rulings of a journal into the record file, by rename; the journal goes."""
    found = read_rulings(journal)
    if found:
        record.rewrite(records, put_in(record.each(records), found))
    journal.unlink(missing_ok=True)


def put_in(records: Iterable[Record], found: Mapping[Key, Ruling]) -> Iterator[Record]:
    """Records with the rulings on those of them that are not judged."""
    for r in records:
        if isinstance(r, SampleRecord) and not r.judged and (known := found.get(key_of(r))) is not None:
            yield ruled(r, known.verdict)
        else:
            yield r


def tally(records: Iterable[Record]) -> dict[str, Any]:
    """How samples were judged: ``unjudged`` (count) and by task ``samples``, ``by`` (means -> count), ``limits`` (count
    of verdicts that a limit made), ``cpu_s``, ``wall_s`` of programs, and ``waited_s``, for how long those were ready
    and had no CPU (None where the kernel does not tell, or nothing ran)."""
    tasks: dict[str, list[SampleRecord]] = {}
    for r in records:
        if isinstance(r, SampleRecord):
            tasks.setdefault(r.task, []).append(r)
    return {
        "unjudged": sum(not r.judged for rows in tasks.values() for r in rows),
        "tasks": {task: _tally(rows) for task, rows in tasks.items()},
    }


def _tally(rows: Sequence[SampleRecord]) -> dict[str, Any]:
    known = [r.verdict for r in rows if r.verdict is not None]
    waits = [v.waited_s for v in known if v.waited_s is not None]
    by = Counter(("exact" if r.verdict is None else r.verdict.by) if r.judged else "not judged" for r in rows)
    return {
        "samples": len(rows), "by": dict(sorted(by.items())), "limits": sum(v.limit for v in known),
        "cpu_s": sum(v.cpu_s for v in known), "wall_s": sum(v.wall_s for v in known),
        "waited_s": sum(waits) if waits else None,
    }  # fmt: skip


def sealed(summary: dict[str, Any], judged: dict[str, Any]) -> dict[str, Any]:
    """A summary with how its samples were judged (``tally``) as ``scoring``; without results while some are not."""
    if not judged["unjudged"]:
        return {**summary, "scoring": judged}
    return {**summary, "scoring": judged, "unjudged": judged["unjudged"], "rows": [], "differences": []}
