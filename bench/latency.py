"""The job ``latency``: time to first token and time per token at batch 1, over input lengths, by variant.

Prompts are random words of the model's own vocabulary, end-of-sequence is ignored. Trials are interleaved: each trial
runs every variant once at that length, in an order that rotates, so that a drift of the machine meets all alike. One
run of each is thrown away first. Ratios are of medians, with a bootstrap over trials that are drawn together.
"""

from __future__ import annotations

import gc
import hashlib
import random
import time
from typing import Any

import msgspec

from bench import loading, provenance, record, roofline, stats
from bench.loading import Loaded
from bench.record import LatencyRecord, Run, Variant
from bench.runner import clean_exit
from bench.timing import TPOT_TOKENS, Trace
from bench.variants import LATENCY_VARIANTS, resolve_variants
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadInput, JobFailed
from pipo.jobs import JobContext

METRICS = ("ttft", "first_pair", "tpot16", "tpot")
FORCED = (1.0, 0.8)


class LatencySpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``latency``.

    ``keep``: kept shares to force on the pair methods, beside the model's own decisions (default 1.0 and 0.8; an
    empty list forces none). ``tokens``: real output tokens a trial. ``input_lengths``: prompt tokens.
    ``family``: folder of a lab family that ``lab/...`` means; default the shipped one.
    """

    variants: list[Any] | None = None
    input_lengths: list[int] = msgspec.field(default_factory=lambda: [512, 2048, 8192])
    trials: int = 5
    tokens: int = 32
    keep: float | list[float] | None = None
    seed: int = 0
    family: str | None = None

    def __post_init__(self) -> None:
        if not self.input_lengths or min(self.input_lengths) < 2:
            raise BadInput(f"input_lengths {self.input_lengths} must hold numbers of at least 2 tokens")
        if len(set(self.input_lengths)) < len(self.input_lengths):
            raise BadInput(f"input_lengths {self.input_lengths} name a length twice")
        if self.trials < 1:
            raise BadInput(f"trials {self.trials} must be at least 1")
        if self.tokens < TPOT_TOKENS:
            raise BadInput(f"tokens {self.tokens} must be at least {TPOT_TOKENS}, what the paper's TPOT is taken over")
        for share in self.forced:
            if not 0 <= share <= 1:
                raise BadInput(f"keep {share} must lie in [0, 1]; it is the share of drafts kept")

    @property
    def forced(self) -> list[float]:
        """The kept shares to force."""
        if self.keep is None:
            return list(FORCED)
        return self.keep if isinstance(self.keep, list) else [self.keep]


class Arm(msgspec.Struct, frozen=True):
    """One thing timed: a variant as it is, or with a forced kept share. ``name`` is the records' variant."""

    name: str
    variant: Variant
    method: Method
    keep: float | None = None


def arms_of(variants: list[Variant], forced: list[float]) -> list[Arm]:
    """Every variant, and for pair methods every forced share beside it.

    Shares 1 and 0 are the gate at threshold 0 and 1, so the confidence head runs; others are coin flips without it.
    """
    out: list[Arm] = []
    for v in variants:
        out.append(Arm(v.name, v, v.method))
        for share in forced if v.method.pairs else ():
            whole = share in (0.0, 1.0)
            method = Method("pipo", threshold=1.0 - share) if whole else Method("random", keep_rate=share)
            out.append(Arm(f"{v.name}@keep={share:g}", v, method, share))
    return out


def prompt_ids(tokenizer: Any, length: int, seed: int) -> tuple[int, ...]:
    """``length`` random ids of a tokenizer's vocabulary without its special tokens; the same for equal vocabularies."""
    special = set(tokenizer.all_special_ids)
    words = sorted(i for i in tokenizer.get_vocab().values() if i not in special)
    return tuple(random.Random(f"{seed}/{length}").choices(words, k=length))


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Time all variants; returns the summary (schema in bench/summary.py), which lies in summary.json too."""
    settings = loading.read_spec(spec, LatencySpec, "latency")
    arms = arms_of(resolve_variants(settings.variants, LATENCY_VARIANTS), settings.forced)
    provenance.check_folder(ctx.folder)
    loaded: dict[str, Loaded] = {}
    for arm in arms:
        if arm.variant.model not in loaded:
            ctx.check()
            loaded[arm.variant.model] = loading.load(arm.variant.model, ctx, settings.family)
        loading.check_method(f"variant {arm.name}", arm.method, loaded[arm.variant.model])
    header = _open(settings, arms, loaded, ctx)
    path = ctx.folder / "records.jsonl"
    done = {(r.variant, r.input_tokens, r.trial) for r in _latency(record.read(path, allow_empty=True))}
    total = len(arms) * len(settings.input_lengths) * settings.trials
    count = len(done)
    gc.collect()
    for length in settings.input_lengths:
        todo = {(a.name, t) for a in arms for t in range(settings.trials)} - {(a, t) for a, n, t in done if n == length}
        for arm in arms:  # warm-up: caches, allocator, kernels of this shape
            if any(name == arm.name for name, _ in todo):
                ctx.emit("progress", done=count, total=total, note=f"warm-up of {arm.name} at {length} tokens")
                trial(arm, loaded[arm.variant.model], length, -1, settings, ctx)
        for number in range(settings.trials):
            turn = number % len(arms)
            for arm in arms[turn:] + arms[:turn]:
                if (arm.name, number) in todo:
                    record.append(path, [trial(arm, loaded[arm.variant.model], length, number, settings, ctx)])
                    count += 1
                    ctx.emit("progress", done=count, total=total, note=f"{arm.name} at {length} tokens")
    summary = summarise(settings, header, arms, _latency(record.read(path)), loaded)
    record.write_json(ctx.folder / "summary.json", summary)
    return summary


def _latency(records: list[record.Record]) -> list[LatencyRecord]:
    return [r for r in records if isinstance(r, LatencyRecord)]


def _open(settings: LatencySpec, arms: list[Arm], loaded: dict[str, Loaded], ctx: JobContext) -> Run:
    marks = {name: loading.fingerprint(m.folder) for name, m in loaded.items()}
    resolved = {
        "kind": "latency", **msgspec.to_builtins(settings), "arms": msgspec.to_builtins(arms), "fingerprints": marks,
    }  # fmt: skip
    source = provenance.collect(
        resolved, seed=settings.seed, engine=loading.ENGINE, device=loading.device_name(), threads=loading.threads(),
        models=marks,
    )  # fmt: skip
    variants = list({a.variant.name: a.variant for a in arms}.values())
    return provenance.open_run(ctx.folder, Run(kind="latency", spec=resolved, provenance=source, variants=variants))


def trial(arm: Arm, loaded: Loaded, length: int, number: int, settings: LatencySpec, ctx: JobContext) -> LatencyRecord:
    """One generation at batch 1, timed by the engine's stamps. ``number`` -1: a warm-up."""
    engine = loaded.engine
    name = f"latency/{arm.name}/{length}/{number}/{time.perf_counter_ns()}"
    seed = int.from_bytes(hashlib.blake2b(f"{settings.seed}/{length}/{number}".encode(), digest_size=7).digest(), "big")
    request = Request(
        id=name, prompt=prompt_ids(loaded.tokenizer, length, settings.seed), method=arm.method, sampling=Sampling(),
        seed=seed, max_tokens=settings.tokens, ignore_eos=True,
    )  # fmt: skip
    ctx.check()
    engine.submit(request)
    trace = Trace(engine.submitted[name], arm.method)
    step = 0
    gc.disable()  # a collection in the middle would be timed
    try:
        with clean_exit(engine, [name]):
            while trace.finish is None:
                for event in engine.step():
                    if event.request_id == name:
                        trace.add(event, step)
                step += 1
                ctx.check()
    finally:
        gc.enable()
    if trace.finish == "failed":
        raise JobFailed(f"{arm.name} at {length} tokens failed: {trace.error}")
    return LatencyRecord(
        variant=arm.name, input_tokens=length, trial=number, ttft_s=trace.ttft, first_pair_s=trace.first_pair,
        tpot16_s=trace.tpot(TPOT_TOKENS), tpot_s=trace.tpot(), tokens=len(trace.tokens), slots=trace.slots,
        steps=trace.steps, offered=len(trace.drafts), kept=sum(d.kept for d in trace.drafts),
        prefill_s=trace.first_step, token_times_s=trace.times,
    )  # fmt: skip


def summarise(
    settings: LatencySpec, header: Run, arms: list[Arm], records: list[LatencyRecord], loaded: dict[str, Loaded]
) -> dict[str, Any]:
    """Rows, ratios to the first variant with regular decoding, and what shapes allow beside what was measured."""
    cells: dict[tuple[str, int], list[LatencyRecord]] = {}
    for r in sorted(records, key=lambda r: r.trial):
        cells.setdefault((r.variant, r.input_tokens), []).append(r)
    base = next((a for a in arms if a.method.name == "regular"), None)
    others = [(a, n) for n in settings.input_lengths for a in arms if base and a is not base]
    compared = [_ratios(a, base, n, cells) for a, n in others if base]
    return {
        "schema": header.schema, "kind": "latency", "batch": 1, "tokens": settings.tokens, "trials": settings.trials,
        "input_lengths": settings.input_lengths, "reference": base.name if base else None,
        "threads": header.provenance.threads, "variants": msgspec.to_builtins(header.variants),
        "interval": stats.INTERVALS,
        "rows": [_row(a, n, cells[a.name, n]) for n in settings.input_lengths for a in arms],
        "ratios": [row for rows in compared for row in rows],
        "floor": [_floor(a, base, n, cells, rows, loaded) for (a, n), rows in zip(others, compared) if base],
    }  # fmt: skip


def _values(records: list[LatencyRecord], metric: str) -> list[float]:
    return [getattr(r, f"{metric}_s") for r in records]


def _kept(records: list[LatencyRecord]) -> float | None:
    offered = sum(r.offered for r in records)
    return sum(r.kept for r in records) / offered if offered else None


def _tokens_per_step(records: list[LatencyRecord]) -> float:
    """Tokens a step after the first step."""
    after = sum(sum(t > r.prefill_s for t in r.token_times_s) for r in records)
    return after / max(1, sum(r.steps - 1 for r in records))


def _row(arm: Arm, length: int, records: list[LatencyRecord]) -> dict[str, Any]:
    times = {f"{m}_s": {q: stats.quantile(_values(records, m), p) for q, p in (("p50", 0.5), ("p90", 0.9))}
             for m in METRICS}  # fmt: skip
    return {
        "variant": arm.variant.name, "model": arm.variant.model, "method": msgspec.to_builtins(arm.method),
        "keep": arm.keep, "input_tokens": length, "trials": len(records), **times,
        "tokens_per_slot": sum(r.tokens for r in records) / sum(r.slots for r in records),
        "tokens_per_step": _tokens_per_step(records), "kept_share": _kept(records),
    }  # fmt: skip


def _ratios(
    arm: Arm, base: Arm, length: int, cells: dict[tuple[str, int], list[LatencyRecord]]
) -> list[dict[str, Any]]:
    out = []
    for metric in METRICS:
        found = stats.bootstrap_ratio(
            _values(cells[base.name, length], metric), _values(cells[arm.name, length], metric)
        )
        head = {"variant": arm.variant.name, "keep": arm.keep, "reference": base.name, "input_tokens": length}
        out.append({**head, "metric": metric, "value": found.value, "low": found.low, "high": found.high})
    return out


def _floor(
    arm: Arm, base: Arm, length: int, cells: dict[tuple[str, int], list[LatencyRecord]], measured: list[dict[str, Any]],
    loaded: dict[str, Loaded],
) -> dict[str, Any]:  # fmt: skip
    shapes = {a.name: roofline.shapes_of(loaded[a.variant.model].engine.model) for a in (arm, base)}
    records = cells[arm.name, length]
    allowed = roofline.ratios(
        shapes[base.name], base.method, shapes[arm.name], arm.method, length,
        kept=_kept(records) or 0.0, accepted=_tokens_per_step(records),
    )  # fmt: skip
    by_metric = {row["metric"]: row["value"] for row in measured}
    return {
        "variant": arm.variant.name, "keep": arm.keep, "input_tokens": length, **allowed,
        "tpot_measured": by_metric["tpot"], "ttft_measured": by_metric["ttft"],
    }  # fmt: skip
