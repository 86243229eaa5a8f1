"""The job ``rollouts``: a teacher's samples on training questions, scored, to build training files from.

A run folder as any other (bench/session.py), and ``questions.jsonl``: each question as the teacher saw it. Samples keep
the text as it was written, EOS and other marks included, and their ids; times and drafts are left out. A shard holds
every N-th question with the seeds that the whole run gives them. Lab answers are compared as texts, others scored as
mathematics, programs by their tests (docs/SCORING.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from bench import loading, record, stats
from bench.record import Record, SampleRecord, Variant
from bench.runner import Generation
from bench.session import SampleSpec, Session
from bench.summary import throughput
from bench.tasks import DEFAULT_BUDGETS, READ, Item, Task
from bench.timing import Trace
from pipo.data.benchmarks import Program
from pipo.data.benchmarks.items import Case
from pipo.data.lines import write_lines
from pipo.data.questions import Question, read_questions, take_shard
from pipo.data.texts import prompt_text
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab import TASKS, extract_answer, lab_manifest, resolve_model
from pipo.lab.tasks import draw_many, task_named

LAB_QUESTIONS = 1024
LAB_LEAST = 4  # easier ones teach nothing more; what the lab's own build takes too
VARIANT = "teacher"
QUESTIONS = "questions.jsonl"


class RolloutSpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``rollouts``.

    ``questions``: a JSONL file (pipo/data/questions.py), or a lab task, whose train split is drawn from (``limit``
    questions, default 1,024, at ``levels``, default those trained on from 4 on; ``family`` gives budgets).
    ``method``: default by the model's kind. ``shard``: ``I/N`` takes every N-th question from the I-th on.
    ``thinking``: the chat template's ``enable_thinking``. ``out``: a folder to copy the finished records to.
    """

    model: str
    questions: str
    method: Method | None = None
    levels: list[int] | None = None
    out: str | None = None
    NEWER: ClassVar[tuple[str, ...]] = ("slice",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks is not None:
            raise BadInput(f"tasks {self.tasks}: roll-outs have questions instead; leave tasks out")
        for key in ("slice", "data"):
            if getattr(self, key) is not None:
                raise BadInput(f"{key} {getattr(self, key)!r} has no effect on roll-outs; leave it out")
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"limit {self.limit} must be at least 1; leave it out for all questions")
        if self.slots is not None and self.slots < 1:
            raise BadInput(f"slots {self.slots} must be at least 1; leave it out for the task's own budget")


class RolloutGeneration(Generation):
    """Samples with their text as it was written, and without what training has no use for."""

    def _record(self, item: Item, length: int, sample: int, trace: Trace) -> SampleRecord:
        made = super()._record(item, length, sample, trace)
        text = self.tokenizer.decode(trace.tokens, skip_special_tokens=False)
        return msgspec.structs.replace(made, text=text, token_times_s=[], drafts=[])


class RolloutSession(Session):
    """As any sampled run, but its records are read without texts and ids: a shard may hold gigabytes of them."""

    generation = RolloutGeneration

    def _read(self) -> list[Record]:
        if not self.path.exists():
            return []
        return [bare(r) for r in record.each(self.path)]

    def _text_of(self, r: SampleRecord) -> str:
        """Decoded again, without the marks that its text has."""
        ids = [place for place in r.places if place != r.pad_id]
        return self.loaded[self._key(self.variants[0])].tokenizer.decode(ids, skip_special_tokens=True)


def bare(r: Record) -> Record:
    """A sample without its text and places; other records as they are."""
    return msgspec.structs.replace(r, text="", places=[]) if isinstance(r, SampleRecord) else r


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Roll out, score and sum up; going on where an earlier call on the same folder stopped.

    Returns:
        task names, questions, samples, k, shard, accuracy (estimate, clustered by question), solved (questions by how
        many of their samples are right), cut, failed, tokens (mean, median, sd, of all and of right samples),
        throughput, folder.

    Raises:
        BadInput: a setting out of range, questions without an answer or tests to score by, programs that cannot be run
            here, an empty shard, a chat template that is missing. BadRecord: a question file that cannot be read.
            BadModel: a model that cannot be used.
    """
    from pipo.model import load_tokenizer

    settings = loading.read_spec(spec, RolloutSpec, "rollouts")
    tokenizer = load_tokenizer(Path(resolve_model(settings.model, settings.family)))
    questions = choose(settings)
    texts = [prompt_text(as_row(q), tokenizer, settings.thinking, f"question {q.task}/{q.id}") for _, q in questions]
    tasks = make_tasks(settings, [q for _, q in questions], texts)
    method = settings.method or loading.default_method(settings, settings.model, ctx, settings.family)
    variant = Variant(VARIANT, settings.model, method)
    session = RolloutSession("rollouts", settings, [variant], ctx, tasks)
    rows = ({"number": n, **msgspec.to_builtins(q), "prompt": t} for (n, q), t in zip(questions, texts, strict=True))
    write_lines(ctx.folder / QUESTIONS, rows)
    for task in tasks:
        session.generate(variant, task)
    summary = session.finish(summarise(settings, session))
    if settings.out is not None:
        publish(ctx.folder, Path(settings.out))
    return summary


def choose(settings: RolloutSpec) -> list[tuple[int, Question]]:
    """(number in the whole run, question) of the questions of this shard. Raises as ``run``."""
    if settings.questions in TASKS:
        every = lab_questions(settings)
    else:
        if settings.levels is not None:
            raise BadInput(f"levels {settings.levels} have no effect on {settings.questions}; they belong to lab tasks")
        every = read_questions(Path(settings.questions))[: settings.limit]
    untold = [q for q in every if q.answer is None and not q.tests]
    if untold:
        raise BadInput(
            f"{len(untold)} of {len(every)} questions ({untold[0].task}/{untold[0].id} the first) have neither an "
            "answer nor tests to be scored by; take them out"
        )
    return take_shard(list(enumerate(every)), settings.shard)


def lab_questions(settings: RolloutSpec) -> list[Question]:
    """Training problems of a lab task; the same for the same seed, and a smaller limit is the beginning of a larger."""
    low, high = task_named(settings.questions).train_levels
    levels = settings.levels or list(range(max(low, LAB_LEAST), high + 1))
    found = draw_many(settings.questions, "train", settings.limit or LAB_QUESTIONS, levels, settings.seed)
    return [Question(id=i.id, task=i.task, prompt=i.prompt, answer=i.answer, level=i.level) for i in found]


def as_row(question: Question) -> dict[str, Any]:
    """A question as a row of a prompt file."""
    return {"prompt": question.prompt} if question.messages is None else {"messages": question.messages}


def make_tasks(settings: RolloutSpec, questions: Sequence[Question], texts: Sequence[str]) -> list[Task]:
    """The questions as tasks, in their order. Raises BadInput where a task has answers and programs."""
    lab = settings.questions in TASKS
    loose = DEFAULT_BUDGETS["loose"]
    if lab and settings.questions in (own := lab_manifest(settings.family).tasks):
        loose = own[settings.questions].budgets["loose"]
    slots = settings.slots or loose
    items: dict[str, list[Item]] = {}
    for q, text in zip(questions, texts, strict=True):
        items.setdefault(q.task, []).append(Item(str(q.id), text, q.answer or "", q.level, program=program_of(q)))
    made = []
    for name, found in items.items():
        programs = sum(i.program is not None for i in found)
        if programs not in (0, len(found)):
            raise BadInput(f"{programs} of {len(found)} questions of {name} are programs; give them their own task")
        scorer = "exact" if lab else "code" if programs else "math"
        read = extract_answer if lab else READ[scorer]
        made.append(Task(name, found, {"tight": slots, "loose": slots}, read, scorer))
    return made


def program_of(q: Question) -> Program | None:
    """What a question's program is judged by: Python from standard input to standard output; None with an answer."""
    if q.answer is not None:
        return None
    tests = [Case(t.get("input", ""), t.get("output", "")) for t in q.tests or ()]
    return Program(
        form="stdin", tests=tests, checker=q.checker, time_limit=q.time_limit, memory_limit=q.memory_limit
    )  # fmt: skip


def summarise(settings: RolloutSpec, session: RolloutSession) -> dict[str, Any]:
    """What ``run`` returns."""
    records = session.records()
    samples = [r for r in records if isinstance(r, SampleRecord)]
    rates = [r for r in records if isinstance(r, record.ThroughputRecord)]
    by_question: dict[tuple[str, str], list[SampleRecord]] = {}
    for r in samples:
        by_question.setdefault((r.task, r.item), []).append(r)
    right = [sum(r.correct for r in group) for group in by_question.values()]
    return {
        "schema": record.SCHEMA,
        "kind": "rollouts",
        "tasks": [t.name for t in session.tasks],
        "questions": len(by_question),
        "samples": len(samples),
        "k": settings.k,
        "shard": settings.shard,
        "accuracy": msgspec.to_builtins(
            stats.clustered([[float(r.correct) for r in group] for group in by_question.values()])
        ),
        "solved": {str(n): right.count(n) for n in range(settings.k + 1)},
        "cut": sum(r.finish in ("slots", "tokens") for r in samples),
        "failed": sum(r.finish == "failed" for r in samples),
        "tokens": lengths([r.tokens for r in samples]),
        "tokens_of_right": lengths([r.tokens for r in samples if r.correct]),
        "throughput": throughput(rates),
        "folder": str(session.ctx.folder),
    }


def lengths(counts: Sequence[int]) -> dict[str, float] | None:
    """Mean, median and standard deviation of token counts; None without any."""
    if not counts:
        return None
    return {"mean": float(np.mean(counts)), "median": float(np.median(counts)), "sd": float(np.std(counts))}


def publish(folder: Path, out: Path) -> None:
    """Copy a finished run to another folder, each file by rename, the summary last. Raises BadInput."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("run.json", QUESTIONS, "records.jsonl", "summary.json"):
            tmp = out / f".{name}.tmp"
            shutil.copyfile(folder / name, tmp)
            tmp.replace(out / name)
    except OSError as e:
        raise BadInput(f"cannot copy the roll-outs to {out} ({e.strerror}); they are whole in {folder}") from e
