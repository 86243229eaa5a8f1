"""Generating k samples of every item by one variant, through an engine, into records: resumable, batch kept full.

A record file gets whole items: all k samples of an item and what the engine put out meanwhile, in one fsynced write.
What is there already is never computed again. Verdicts that take time come later (bench/grading.py): an engine does not
wait for a judge. A sample's seed depends on run seed, task, item and sample number alone,
so every variant gets the same seeds, and neither order nor interruptions change a sample.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench import prompts, record
from bench.grading import Asked, Grader, first_look, key_of
from bench.record import Record, SampleRecord, ThroughputRecord, Variant
from bench.scorers.code import STOPS
from bench.scorers.judge import Answer
from bench.tasks import Item, Task
from bench.timing import Trace
from pipo.engine.types import Event, Request, Sampling
from pipo.errors import BadInput, BadModel, PipoError
from pipo.jobs import JobContext

PROGRESS_EVERY_S = 0.5
_run_numbers = itertools.count()


class Engine(Protocol):
    """What measuring needs of an engine; the torch engine has it."""

    model: Any
    submitted: dict[str, float]

    @property
    def max_batch(self) -> int: ...
    def resize(self, *, max_batch: int) -> None: ...
    def submit(self, request: Request) -> None: ...
    def cancel(self, request_id: str) -> None: ...
    def step(self) -> list[Event]: ...
    @property
    def busy(self) -> bool: ...


class Tokenizer(Protocol):
    """What measuring needs of a tokenizer."""

    unk_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


def sample_seed(seed: int, task: str, item: str, sample: int) -> int:
    """The seed of one sample, 63 bits: a hash of run seed, task, item and sample number; the same for all variants."""
    words = "\x1f".join((str(seed), task, item, str(sample)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def finished(records: Iterable[Record], k: int) -> set[tuple[str, str, str]]:
    """(variant, task, item) of which all k samples are there."""
    have: dict[tuple[str, str, str], set[int]] = {}
    for r in records:
        if isinstance(r, SampleRecord):
            have.setdefault((r.variant, r.task, r.item), set()).add(r.sample)
    return {key for key, samples in have.items() if samples >= set(range(k))}


class Progress:
    """Emits ``progress`` events at a steady rate: done and total samples, rates of this stretch (so time to go)."""

    def __init__(self, ctx: JobContext, total: int, done: int) -> None:
        self.ctx, self.total, self.done, self.start = ctx, total, done, time.perf_counter()
        self.made = self.tokens = 0
        self.last = float("-inf")

    def skip(self, samples: int, note: str) -> None:
        """Count samples that need no generating; the rates leave them out."""
        self.done += samples
        self._emit(note)

    def add(self, samples: int, tokens: int, note: str) -> None:
        """Count finished samples and tokens; emit if the last event is old enough or all is done."""
        self.done, self.made, self.tokens = self.done + samples, self.made + samples, self.tokens + tokens
        self._emit(note)

    def _emit(self, note: str) -> None:
        now = time.perf_counter()
        if now - self.last < PROGRESS_EVERY_S and self.done < self.total:
            return
        self.last, wall = now, max(now - self.start, 1e-9)
        self.ctx.emit(
            "progress", done=self.done, total=self.total, note=note, samples_s=round(self.made / wall, 3),
            tokens_s=round(self.tokens / wall, 1),
        )  # fmt: skip


class Generation:
    """One variant on one task: feeds the engine items as places get free, and writes items as they finish.

    ``grader``: judges those that are written; without one they stay as they are, to be judged later.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        variant: Variant,
        task: Task,
        *,
        k: int,
        seed: int,
        sampling: Sampling,
        max_batch: int,
        path: Path,
        grader: Grader | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.variant, self.task = engine, tokenizer, variant, task
        self.k, self.seed, self.sampling, self.path, self.grader = k, seed, sampling, path, grader
        self.batch = max(max_batch, k)
        self.prefix = f"{next(_run_numbers)}/{variant.name}/{task.name}"
        self.traces: dict[str, Trace] = {}
        self.open: dict[str, tuple[Item, int, int, dict[int, str]]] = {}  # item id -> item, prompt length, left, ids
        self.where: dict[str, tuple[str, int]] = {}  # request id -> item id, sample
        self.refused: list[Event] = []  # requests that the engine did not take
        self.asked: list[Asked] = []  # samples of this step that need a judge
        self.running = self.steps = 0
        self._new_stretch()

    def _new_stretch(self) -> None:
        self.out = ThroughputRecord(
            variant=self.variant.name, task=self.task.name, batch=self.batch, wall_s=0.0, tokens=0, slots=0, steps=0
        )

    def run(self, items: Sequence[Item], ctx: JobContext, progress: Progress) -> None:
        """Generate the items not yet finished; raises Cancelled between steps if the job was asked to stop."""
        waiting = list(reversed(items))
        note = f"{self.variant.name} on {self.task.name}"
        with clean_exit(self.engine, self.where):
            while waiting or self.running:
                ctx.check()
                while waiting and self.running + self.k <= self.batch:
                    self._submit(waiting.pop())
                done, tokens = self._step()
                progress.add(done * self.k, tokens, note)

    def _submit(self, item: Item) -> None:
        prompt = encode(self.tokenizer, item.prompt, self.engine.model.config.vocab_size, f"{self.task.name}/{item.id}")
        group = f"{self.prefix}/{item.id}"
        ids = {s: f"{group}/{s}" for s in range(self.k)}
        for sample, request_id in ids.items():
            request = Request(
                id=request_id, prompt=prompt, method=self.variant.method, sampling=self.sampling, group=group,
                seed=sample_seed(self.seed, self.task.name, item.id, sample), max_slots=self.task.budgets["loose"],
                stop=stops(item, self.tokenizer),
            )  # fmt: skip
            try:
                self.engine.submit(request)
                submitted = self.engine.submitted[request_id]
            except BadInput as e:  # too long for the model or the memory plan, say: this sample fails, the rest goes on
                submitted = time.perf_counter()
                self.refused.append(Event(request_id=request_id, time=submitted, finish="failed", error=str(e)))
            self.traces[request_id] = Trace(submitted, self.variant.method)
            self.where[request_id] = (item.id, sample)
            self.running += 1
        self.open[item.id] = (item, len(prompt), self.k, ids)

    def _step(self) -> tuple[int, int]:
        """One engine step; returns items finished and tokens made."""
        full = self.running + self.k > self.batch
        start = time.perf_counter()
        events = self.refused + self.engine.step()
        self.refused = []
        done: list[str] = []
        tokens = 0
        for event in events:
            if event.request_id not in self.where:
                continue  # a request that an earlier, cancelled run left behind
            tokens += len(event.tokens)
            self.out.slots += event.slots
            self.traces[event.request_id].add(event, self.steps)
            if event.finish is not None:
                done += self._finish(event.request_id)
        wall = time.perf_counter() - start
        if any(e.restarted for e in events):
            wall, full = 0.0, False  # an engine that had to start again did not decode meanwhile
        self.out.wall_s += wall
        self.out.tokens += tokens
        self.out.steps += 1
        self.steps += 1
        if full:
            self.out.full_wall_s += wall
            self.out.full_tokens += tokens
        if done:
            rows = [r for item_id in done for r in self._records(item_id)]
            record.append(self.path, [*rows, self.out])
            if self.grader is not None:
                self.grader.put(self.asked)
            self.asked = []
            self._new_stretch()
        return len(done), tokens

    def _finish(self, request_id: str) -> list[str]:
        item_id, _ = self.where.pop(request_id)
        self.running -= 1
        item, length, left, ids = self.open[item_id]
        self.open[item_id] = (item, length, left - 1, ids)
        return [item_id] if left == 1 else []

    def _records(self, item_id: str) -> list[Record]:
        item, length, _, ids = self.open.pop(item_id)
        return [self._record(item, length, s, self.traces.pop(request_id)) for s, request_id in ids.items()]

    def _record(self, item: Item, length: int, sample: int, trace: Trace) -> SampleRecord:
        text = self.tokenizer.decode(trace.tokens, skip_special_tokens=True)
        made = SampleRecord(
            variant=self.variant.name, task=self.task.name, item=item.id, sample=sample, level=item.level,
            seed=sample_seed(self.seed, self.task.name, item.id, sample), prompt_tokens=length, places=trace.places,
            pad_id=self.engine.model.config.pad_token_id, text=text, answer=self.task.extract(text), gold=item.gold,
            finish=trace.finish or "failed", slots=trace.slots, tokens=len(trace.tokens), drafts=trace.drafts,
            steps=trace.steps, ttft_s=trace.ttft, first_pair_s=trace.first_pair, token_times_s=trace.times,
            error=trace.error,
        )  # fmt: skip
        seen = first_look(made, self.task.scorer)
        if not seen.judged:
            self.asked.append(Asked(key_of(made), self.task.scorer, Answer(text, item.gold, item.program)))
        return seen


def stops(item: Item, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Where a function ends that a model without a chat template goes on with: it seldom ends by itself there."""
    asked = item.messages is not None and prompts.has_template(tokenizer)
    return STOPS if item.program is not None and item.program.form == "check" and not asked else ()


@contextmanager
def clean_exit(engine: Engine, running: Iterable[str]) -> Iterator[None]:
    """Leave no request behind in a resident engine when a job stops; ``running``: ids at that time.

    After one of our errors (cancelled, bad input) the engine is fit to let its requests go at once.
    """
    try:
        yield
    except BaseException as e:
        for request_id in list(running):
            engine.cancel(request_id)
        while isinstance(e, PipoError) and engine.busy:
            engine.step()
        raise


def encode(tokenizer: Tokenizer, prompt: str, vocab_size: int, name: str) -> tuple[int, ...]:
    """Token ids of a prompt.

    Raises:
        BadInput: there are none, or more than half are unknown words to the tokenizer.
        BadModel: an id that the model's vocabulary does not have.
    """
    ids = tuple(tokenizer.encode(prompt, add_special_tokens=False))
    if not ids:
        raise BadInput(f"the prompt of {name} has no token that the tokenizer knows; give it words of the model's")
    if max(ids) >= vocab_size:
        raise BadModel(
            f"{name} has token id {max(ids)}, the model's vocabulary ends at {vocab_size - 1}; wrong tokenizer"
        )
    unknown = ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
    if 2 * unknown > len(ids):
        raise BadInput(
            f"{unknown} of {len(ids)} tokens of {name} are unknown to the model's tokenizer; wrong model or task"
        )
    return ids
