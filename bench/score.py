"""The job ``score``: all samples of a finished run judged by the present scorers, for the first time or once more.

For runs that were generated with ``score`` false, and for those that older scorers judged. Rulings go to the job's own
folder, so that the job may be stopped and goes on; the run's records, header and summary are then replaced, each by
rename. Nothing is generated. Torch-free.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from bench import grading, loading, provenance, record
from bench.compare import summary_of
from bench.grading import Asked, Key, Ruling, key_of
from bench.merge import KINDS
from bench.record import Record, Run, SampleRecord
from bench.scorers.judge import Answer, Judge
from bench.tasks import READ, Task, load_task
from pipo.data.benchmarks import Program
from pipo.errors import BadInput
from pipo.jobs import JobContext

MOST_WORKERS = 16
Programs = dict[tuple[str, str], Program | None]  # task, item


class ScoreSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``score``. ``folder``: the run's. ``tasks``: task files of the run's that have programs; benchmarks
    need not be named. ``data``: folder of benchmarks, default PIPO_DATA. ``unsafe``: see bench/sandbox/probe.py."""

    folder: str
    tasks: list[str] | None = None
    data: str | None = None
    unsafe: bool = False


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Judge all samples; returns the run's new summary with ``rescored``: ``samples``, how many of them were
    ``judged_before``, and how many of those turned ``to_right`` and ``to_wrong``.

    Raises:
        BadInput: no finished comparison or evaluation, tests that are not here or not the run's, code that cannot be
            shut in. BadRecord: a folder without a run in it.
    """
    settings = loading.read_spec(spec, ScoreSpec, "score")
    folder = Path(settings.folder)
    header = finished_run(folder)
    provenance.check_folder(folder)
    scorers = scorers_of(header)
    programs = load_programs(header, scorers, settings)
    path, journal = folder / "records.jsonl", ctx.folder / grading.JOURNAL
    with Judge(unsafe=settings.unsafe, workers=min(MOST_WORKERS, len(os.sched_getaffinity(0)))) as judge:
        if "code" in scorers.values() and judge.way == "none":
            ctx.emit("log", text="code of the model runs with your rights, as was said; it is not shut in")
        judge_all(path, journal, scorers, programs, judge, ctx)
    found = grading.read_rulings(journal)
    record.rewrite(path, put_in(record.each(path), found, scorers))
    header = with_scorers(header, scorers)
    record.write_json(folder / "run.json", header)
    records = record.read(path)
    summary = grading.sealed(summary_of(header, records), grading.tally(records))
    summary["rescored"] = changes(found.values())
    record.write_json(folder / "summary.json", summary)
    return summary


def finished_run(folder: Path) -> Run:
    """The header of a run that can be scored. Raises BadInput, BadRecord."""
    header = record.read_run(folder)
    if header.kind not in KINDS:
        raise BadInput(f"{folder} holds a run of kind {header.kind!r}; scored again can be {' and '.join(KINDS)}")
    if not (folder / "summary.json").is_file():
        raise BadInput(f"{folder} is not finished; `pipo jobs resume` goes on with it, then it can be scored")
    return header


def scorers_of(header: Run) -> dict[str, str]:
    """Task -> scorer of a run; of older ones by the definitions of their benchmarks."""
    marks: dict[str, str] = header.spec.get("scorers", {})
    told: dict[str, Any] = header.spec.get("benchmarks", {})
    return {
        task: marks[task].rpartition("-")[0] if task in marks else told.get(task, {}).get("scorer", "exact")
        for task in header.budgets
    }


def load_programs(header: Run, scorers: Mapping[str, str], settings: ScoreSpec) -> Programs:
    """What programs of the run are judged by, read from its tasks' files. Raises BadInput where they are others."""
    wanted = [task for task, scorer in scorers.items() if scorer == "code"]
    given = {name: name for name in wanted}
    for path in settings.tasks or ():
        given[_load(path, header, settings).name] = path
    found: Programs = {}
    for name in wanted:
        try:
            task = _load(given[name], header, settings)
        except BadInput as e:
            raise BadInput(f"the tests of {name} are needed to score it: {e}; name its task file with --task") from e
        if task.fingerprint != header.spec["tasks"][name]:
            raise BadInput(f"{name} has other items than the run asked for; name the files that it was made with")
        grading.check_programs([task])
        found.update({(name, item.id): item.program for item in task.items})
    return found


def _load(name: str, header: Run, settings: ScoreSpec) -> Task:
    return load_task(name, limit=header.spec.get("limit"), part=header.spec.get("slice"), data=settings.data)


def judge_all(
    path: Path, journal: Path, scorers: Mapping[str, str], programs: Programs, judge: Judge, ctx: JobContext
) -> None:
    """Write rulings on all samples that the journal has none on; exact ones need none."""
    known = grading.read_rulings(journal).keys()
    every = (r for r in record.each(path) if isinstance(r, SampleRecord) and scorers[r.task] != "exact")
    total = sum(isinstance(r, SampleRecord) and scorers[r.task] != "exact" for r in record.each(path))
    done = len(known)
    left = (r for r in every if key_of(r) not in known)
    while part := list(islice(left, grading.BATCH)):
        ctx.check()
        record.append(journal, rulings_on(part, scorers, programs, judge))
        done += len(part)
        ctx.emit("progress", done=done, total=total, note="judging")


def rulings_on(
    samples: list[SampleRecord], scorers: Mapping[str, str], programs: Programs, judge: Judge
) -> Iterator[Ruling]:
    """Rulings on samples, as the run itself would have made them (grading.first_look, then the judge)."""
    open_: list[Asked] = []
    for r in samples:
        was = r.correct if r.judged else None
        seen = grading.first_look(r, scorers[r.task])
        if seen.judged:
            assert seen.verdict is not None, "only exact scoring leaves none"
            yield grading.ruling(key_of(r), seen.verdict, was)
        else:
            answer = Answer(r.text, r.gold, programs.get((r.task, r.item)))
            open_.append(Asked(key_of(r), scorers[r.task], answer, was))
    yield from grading.rulings_on(open_, judge)


def put_in(records: Iterable[Record], found: Mapping[Key, Ruling], scorers: Mapping[str, str]) -> Iterator[Record]:
    """Records with the rulings on them, their answers read as their scorers read them."""
    for r in records:
        if isinstance(r, SampleRecord) and (ruling := found.get(key_of(r))) is not None:
            read = msgspec.structs.replace(r, answer=READ[scorers[r.task]](r.text))
            yield grading.ruled(read, ruling.verdict)
        else:
            yield r


def with_scorers(header: Run, scorers: Mapping[str, str]) -> Run:
    """The header of a run whose samples these scorers judged: the job that made it goes on from it."""
    marks = {t: f"{s}-{grading.VERSIONS[s]}" for t, s in scorers.items() if s != "exact"}
    if not marks:
        return header
    spec = {**header.spec, "scorers": marks}
    source = msgspec.structs.replace(header.provenance, settings_hash=provenance.settings_hash(spec))
    return msgspec.structs.replace(header, spec=spec, provenance=source)


def changes(found: Iterable[Ruling]) -> dict[str, int]:
    """How many verdicts are other ones than before."""
    rulings = list(found)
    return {
        "samples": len(rulings),
        "judged_before": sum(r.was is not None for r in rulings),
        "to_right": sum(r.was is False and r.verdict.right for r in rulings),
        "to_wrong": sum(r.was is True and not r.verdict.right for r in rulings),
    }
