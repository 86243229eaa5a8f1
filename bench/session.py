"""A sampled run: tasks, engines and a run folder, opened once; then any variant on any task, resumable.

compare, eval and the threshold study are three orders of calling ``Session.generate``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from bench import asked, engines, grading, loading, prompts, provenance, record
from bench.engines import EngineSpec
from bench.fit import fit
from bench.grading import Asked, Grader
from bench.loading import Loaded
from bench.record import Record, Run, SampleRecord, Variant
from bench.runner import Generation, Progress, finished
from bench.scorers.judge import Answer
from bench.scoring import check_pass_at
from bench.tasks import Task, fingerprint, load_tasks
from pipo.data.benchmarks import parse_slice
from pipo.data.questions import parse_shard
from pipo.engine.types import Sampling
from pipo.errors import BadInput
from pipo.jobs import JobContext

JUDGED_LATER = ("eval", "compare")  # kinds that may leave judging for later


class SampleSpec(EngineSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings that sampled jobs share.

    ``k``: samples an item. ``pass_at``: which pass@k to report. ``limit``: items a task. ``slice``: ``A:B``, only these
    items of each task; ``shard``: ``I/N``, every N-th of them with the seeds that the whole run gives (bench/merge.py
    puts shards together). ``slots``: loose budget in place of the tasks' own. ``thinking``: the chat template's
    ``enable_thinking``; None leaves it to the template. ``data``: folder of benchmarks, default PIPO_DATA.
    ``max_batch``: most requests in the engine at once. ``family``: folder of a lab family that ``lab/...`` and lab
    tasks mean; default the shipped one. ``score``: False leaves what takes time to judge for bench/score.py.
    ``unsafe``: run a model's code without walls where none can be had (bench/sandbox/probe.py).
    """

    tasks: list[str] | None = None
    k: int = 4
    pass_at: list[int] | None = None
    limit: int | None = None
    seed: int = 0
    slots: int | None = None
    sampling: Sampling = Sampling()
    max_batch: int = 64
    family: str | None = None
    slice: str | None = None
    shard: str | None = None
    thinking: bool | None = None
    data: str | None = None
    score: bool = True
    unsafe: bool = False
    # Unset they are left out of the settings, so that runs made before them can go on.
    NEWER: ClassVar[tuple[str, ...]] = ("slice", "shard", "thinking")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_slice(self.slice)
        parse_shard(self.shard)
        if self.max_batch < 1:
            raise BadInput(f"max_batch {self.max_batch} must be at least 1")
        if self.seed < 0:
            raise BadInput(f"seed {self.seed} must be >= 0")


class Session:
    """Tasks (those of the settings, or ``tasks``), loaded models and an opened run folder.

    Raises:
        BadInput: a setting out of range, an unknown task, a method that a model cannot do, an unwritable folder.
        BadModel: a model that cannot be loaded.
    """

    generation = Generation

    def __init__(
        self, kind: str, spec: SampleSpec, variants: list[Variant], ctx: JobContext, tasks: list[Task] | None = None
    ) -> None:  # fmt: skip
        self.spec, self.variants, self.ctx = spec, variants, ctx
        provenance.check_folder(ctx.folder)
        self.pass_at = check_pass_at(spec.pass_at, spec.k)
        self.tasks = tasks or load_tasks(
            spec.tasks, limit=spec.limit, slots=spec.slots, family=spec.family, part=spec.slice, shard=spec.shard,
            data=spec.data,
        )  # fmt: skip
        self._check_scoring(kind)
        self.loaded: dict[tuple[str, str], Loaded] = {}
        engines.check_usable(spec)
        for v in variants:
            if self._key(v) not in self.loaded:
                ctx.check()
                self.loaded[self._key(v)] = loading.load_for(
                    spec, v.model, v.method, f"variant {v.name}", ctx, spec.family
                )
            loading.check_method(f"variant {v.name}", v.method, self.loaded[self._key(v)])
        for loaded in self.loaded.values():
            if spec.max_batch > loaded.engine.max_batch:
                loaded.engine.resize(max_batch=spec.max_batch)
        self.path = ctx.folder / "records.jsonl"
        self.run = self._open(kind)
        asked.write(ctx.folder, self.tasks)
        found = self._read()
        self.done = finished(found, spec.k)
        drop_unfinished(self.path, found, self.done)
        self.judged: dict[str, Any] | None = None
        self.grader = Grader(ctx.folder / grading.JOURNAL, unsafe=spec.unsafe) if spec.score else None
        self._take_up(found)
        total = len(variants) * sum(len(t.items) for t in self.tasks) * spec.k
        self.progress = Progress(ctx, total, len(self.done) * spec.k)
        if tasks is None:
            self._say()

    def _check_scoring(self, kind: str) -> None:
        if not self.spec.score and kind not in JUDGED_LATER:
            raise BadInput(f"score false: {kind} needs verdicts at once; only {' and '.join(JUDGED_LATER)} can wait")
        grading.check_programs(self.tasks)
        if self.spec.score and grading.check_way(self.tasks, self.spec.unsafe) == "none":
            self.ctx.emit("log", text="code of the model runs with your rights, as was said; it is not shut in")

    def _take_up(self, found: list[Record]) -> None:
        """Judge what an earlier call wrote and did not come to judge; rulings on what is not there any more go.

        ``found``: what is in the record file; what is bulky may be left out, so it is read again for these.
        """
        rulings = grading.read_rulings(self.ctx.folder / grading.JOURNAL)
        if not rulings and all(r.judged for r in found if isinstance(r, SampleRecord)):
            return
        waiting = [r for r in record.each(self.path) if isinstance(r, SampleRecord) and not r.judged]
        kept = [rulings[key] for r in waiting if (key := grading.key_of(r)) in rulings]
        if len(kept) < len(rulings):
            record.rewrite(self.ctx.folder / grading.JOURNAL, kept)
        if self.grader is None:
            return
        tasks = {t.name: t for t in self.tasks}
        programs = {(t.name, i.id): i.program for t in self.tasks for i in t.items}
        self.grader.put(
            [
                Asked(grading.key_of(r), tasks[r.task].scorer,
                      Answer(self._text_of(r), r.gold, programs[r.task, r.item]))
                for r in waiting
                if grading.key_of(r) not in rulings
            ]
        )  # fmt: skip

    def _text_of(self, r: SampleRecord) -> str:
        """A sample's text as its scorer reads it."""
        return r.text

    def _say(self) -> None:
        """What is worth knowing about the tasks and how each model is asked, once each."""
        notes = [note for t in self.tasks for note in t.notes]
        every = [i for t in self.tasks for i in t.items]
        for (model, _), loaded in self.loaded.items():
            notes.append(prompts.remark(every, loaded.tokenizer, self.spec.thinking, model) or "")
        for text in dict.fromkeys(filter(None, notes)):
            self.ctx.emit("log", text=text)

    def _key(self, variant: Variant) -> tuple[str, str]:
        """Torch's engine does all methods of a model, SGLang's one."""
        return variant.model, engines.server_of(variant.method) if self.spec.on_sglang else ""

    def _open(self, kind: str) -> Run:
        marks = {name: loading.fingerprint(m.folder) for (name, _), m in self.loaded.items()}
        given = msgspec.to_builtins(self.spec)
        # Where items lay does not matter, what they are does; nor does when samples are judged, but by what.
        for key in ("engine", "server", "data", "score", "unsafe"):
            del given[key]
        for key in self.spec.NEWER:
            if given[key] is None:
                del given[key]
        sources = {t.name: t.source for t in self.tasks if t.source}
        scorers = grading.marks(self.tasks)
        settings: dict[str, Any] = {
            "kind": kind,
            **given,
            **engines.engine_settings(self.spec),
            "variants": msgspec.to_builtins(self.variants),
            "tasks": {t.name: t.fingerprint or fingerprint(t.items) for t in self.tasks},
            **({"benchmarks": sources} if sources else {}),
            **({"scorers": scorers} if scorers else {}),
            "pass_at": self.pass_at,
            "fingerprints": marks,
        }
        source = provenance.collect(
            settings, seed=self.spec.seed, engine=self.spec.engine, device=engines.device_name(self.spec),
            threads=engines.threads(self.spec, next(iter(self.loaded.values())).engine), models=marks,
            warnings=engines.warnings(self.spec),
        )  # fmt: skip
        budgets = {t.name: t.budgets for t in self.tasks}
        run = Run(kind=kind, spec=settings, provenance=source, variants=self.variants, budgets=budgets,
                  sampling=self.spec.sampling)  # fmt: skip
        return provenance.open_run(self.ctx.folder, run)

    def records(self) -> list[Record]:
        """All records there are by now, judged if the settings say so; waits for the judge."""
        if self.grader is not None:
            with self._giving_up():
                self.grader.drain(self.ctx)
        grading.fold(self.path, self.ctx.folder / grading.JOURNAL)
        found = self._read()
        self.judged = grading.tally(found)
        return found

    def _read(self) -> list[Record]:
        return record.read(self.path, allow_empty=True)

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Whatever ends the job early ends its judge too."""
        try:
            yield
        except BaseException:
            if self.grader is not None:
                self.grader.close()
            raise

    def generate(self, variant: Variant, task: Task) -> None:
        """Generate the items of a task that the run folder lacks for this variant."""
        missing = [i for i in task.items if (variant.name, task.name, i.id) not in self.done]
        if not missing:
            return
        loaded = self.loaded[self._key(variant)]
        missing = prompts.prepare(missing, loaded.tokenizer, self.spec.thinking, task.name)
        said = fit(loaded.engine, loaded.tokenizer, missing, task.budgets["loose"], self.spec.max_batch)
        if said is not None:
            self.ctx.emit("log", text=f"{variant.name} on {task.name}: {said}")
        generation = self.generation(
            loaded.engine, loaded.tokenizer, variant, task, k=self.spec.k, seed=self.spec.seed,
            sampling=self.spec.sampling, max_batch=min(self.spec.max_batch, loaded.engine.max_batch), path=self.path,
            grader=self.grader,
        )  # fmt: skip
        with self._giving_up():
            generation.run(missing, self.ctx, self.progress)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write summary.json, the last file of a run; returns it, with how samples were judged (grading.sealed)."""
        judged = self.judged or grading.tally(self.records())
        if judged["unjudged"]:
            run = self.ctx.job_id if self.ctx.job_id.isdecimal() else self.ctx.folder
            left = judged["unjudged"]
            self.ctx.emit("log", text=f"{left} samples are not judged yet; `pipo eval score {run}` judges them")
        summary = grading.sealed(summary, judged)
        record.write_json(self.ctx.folder / "summary.json", summary)
        return summary


def fixed_order(records: list[Record]) -> list[Record]:
    """Records in an order that does not depend on what finished first: sums and resampling come out the same."""

    def key(r: Record) -> tuple[str, str, str, int]:
        return (r.variant, r.task, r.item, r.sample) if isinstance(r, SampleRecord) else ("", "", "", 0)

    return sorted(records, key=key)


def drop_unfinished(path: Path, found: list[Record], done: set[tuple[str, str, str]]) -> None:
    """Take samples of items that a kill left incomplete out of a record file; they are generated again.

    ``found``: its records; what is bulky may be left out of them.
    """

    def kept(r: Record) -> bool:
        return not isinstance(r, SampleRecord) or (r.variant, r.task, r.item) in done

    if not all(map(kept, found)):
        record.rewrite(path, (r for r in record.each(path) if kept(r)))
