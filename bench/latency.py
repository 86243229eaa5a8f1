"""The job ``latency``: time to first token and time per token at batch 1, over input lengths, by variant.

Prompts are random words of the model's own vocabulary, end-of-sequence is ignored. Trials are interleaved: each trial
runs every arm once at that length, in an order that rotates, so that a drift of the machine meets all alike. One run of
each is thrown away first. What is timed is in bench/latency_arms.py, what becomes of the trials in
bench/latency_summary.py.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from bench import latency_floor, latency_summary, loading, provenance, record
from bench.latency_arms import Arm, LatencySpec, arms
from bench.latency_floor import Calls
from bench.latency_models import Subject, subjects
from bench.record import LatencyRecord, Run
from bench.runner import clean_exit
from bench.timing import TPOT_TOKENS, Trace
from pipo.engine.types import Event, Request, Sampling
from pipo.errors import JobFailed
from pipo.jobs import JobContext


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Time all arms; returns the summary (schema in bench/summary.py), which lies in summary.json too."""
    settings = loading.read_spec(spec, LatencySpec, "latency")
    timed = arms(settings)
    provenance.check_folder(ctx.folder)
    models = subjects(settings, timed, ctx)
    header = _open(settings, timed, models, ctx)
    least = latency_floor.floors(models, loading.device(), ctx)
    path = ctx.folder / "records.jsonl"
    done = {(r.variant, r.input_tokens, r.trial) for r in _latency(record.read(path, allow_empty=True))}
    total = len(timed) * len(settings.lengths) * settings.trial_count
    count = len(done)
    gc.collect()
    for length in settings.lengths:
        every = {(a.name, t) for a in timed for t in range(settings.trial_count)}
        todo = every - {(name, t) for name, n, t in done if n == length}
        for arm in timed:  # warm-up: caches, allocator, kernels of this shape
            if any(name == arm.name for name, _ in todo) or least.missing(arm, length):
                ctx.emit("progress", done=count, total=total, note=f"warm-up of {arm.name} at {length} tokens")
                least.note(arm, length, warm_up(arm, models[arm.variant.model], length, settings, ctx))
        for number in range(settings.trial_count):
            turn = number % len(timed)
            for arm in timed[turn:] + timed[:turn]:
                if (arm.name, number) in todo:
                    record.append(path, [trial(arm, models[arm.variant.model], length, number, settings, ctx)])
                    count += 1
                    ctx.emit("progress", done=count, total=total, note=f"{arm.name} at {length} tokens")
    summary = latency_summary.summarise(settings, header, timed, _latency(record.read(path)), least)
    record.write_json(ctx.folder / "summary.json", summary)
    return summary


def _latency(records: list[record.Record]) -> list[LatencyRecord]:
    return [r for r in records if isinstance(r, LatencyRecord)]


def _open(settings: LatencySpec, timed: list[Arm], models: dict[str, Subject], ctx: JobContext) -> Run:
    marks = {name: m.mark for name, m in models.items()}
    resolved = {
        "kind": "latency", **msgspec.to_builtins(settings), "arms": msgspec.to_builtins(timed), "fingerprints": marks,
    }  # fmt: skip
    source = provenance.collect(
        resolved, seed=settings.seed, engine=loading.ENGINE, device=loading.device_name(), threads=loading.threads(),
        models=marks,
    )  # fmt: skip
    variants = list({a.variant.name: a.variant for a in timed}.values())
    return provenance.open_run(ctx.folder, Run(kind="latency", spec=resolved, provenance=source, variants=variants))


def request(arm: Arm, subject: Subject, length: int, number: int, settings: LatencySpec) -> Request:
    """The request of one trial: the same prompt for all arms of a vocabulary, the same seed for all arms."""
    name = f"latency/{arm.name}/{length}/{number}/{time.perf_counter_ns()}"
    seed = int.from_bytes(hashlib.blake2b(f"{settings.seed}/{length}/{number}".encode(), digest_size=7).digest(), "big")
    return Request(
        id=name, prompt=subject.prompt(length, settings.seed), method=arm.method, sampling=Sampling(), seed=seed,
        max_tokens=settings.new_tokens, ignore_eos=True,
    )  # fmt: skip


def warm_up(arm: Arm, subject: Subject, length: int, settings: LatencySpec, ctx: JobContext) -> Calls:
    """A trial that is thrown away; what it leaves is the number of torch calls of its prefill and of one later step."""
    prefill: list[int] = []
    later: list[int] = []
    out = 0  # steps that gave tokens: the prefill's last, and those after it

    def step() -> list[Event]:
        nonlocal out
        if out == 0 or (out == 2 and not later):  # all chunks of the prefill; a step that is not the first of its kind
            events, calls = latency_floor.counted(subject.engine.step)
            (later if out else prefill).append(calls)
        else:
            events = subject.engine.step()
        out += any(e.tokens for e in events)
        return events  # type: ignore[no-any-return]

    _generate(arm, subject, request(arm, subject, length, -1, settings), step, ctx)
    return Calls(sum(prefill), later[0])


def trial(
    arm: Arm, subject: Subject, length: int, number: int, settings: LatencySpec, ctx: JobContext
) -> LatencyRecord:
    """One generation at batch 1, timed by the engine's stamps."""
    asked = request(arm, subject, length, number, settings)
    trace = _generate(arm, subject, asked, subject.engine.step, ctx)
    return LatencyRecord(
        variant=arm.name, input_tokens=length, trial=number, ttft_s=trace.ttft, first_pair_s=trace.first_pair,
        tpot16_s=trace.tpot(TPOT_TOKENS), tpot_s=trace.tpot(), tokens=len(trace.tokens), slots=trace.slots,
        steps=trace.steps, offered=len(trace.drafts), kept=sum(d.kept for d in trace.drafts),
        prefill_s=trace.first_step, token_times_s=trace.times,
    )  # fmt: skip


def _generate(arm: Arm, subject: Subject, asked: Request, step: Callable[[], list[Event]], ctx: JobContext) -> Trace:
    """Run one request to its end, alone; Cancelled between steps where the job was asked to stop."""
    engine = subject.engine
    ctx.check()
    engine.submit(asked)
    trace = Trace(engine.submitted[asked.id], arm.method)
    number = 0
    gc.disable()  # a collection in the middle would be timed
    try:
        with clean_exit(engine, [asked.id]):
            while trace.finish is None:
                for event in step():
                    if event.request_id == asked.id:
                        trace.add(event, number)
                number += 1
                ctx.check()
    finally:
        gc.enable()
    if trace.finish == "failed":
        raise JobFailed(f"{arm.name} at {len(asked.prompt)} tokens failed: {trace.error}")
    return trace
