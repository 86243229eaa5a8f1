"""The job ``load``: points one after another, each kept as soon as it is over; what is there is never run again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from bench import engines, loading, provenance, record
from bench.load import contention, energy, overhead, summary
from bench.load.arrivals import arrivals
from bench.load.drive import How
from bench.load.records import ClientRecord, LoadRecord, Mode, PointRecord, RequestRecord, append, points, resume
from bench.load.scoring import score
from bench.load.search import highest_rate
from bench.load.spec import DEFAULT_RATE, MOST_REQUESTS, LoadSpec, plain
from bench.load.targets import EndpointTarget, EngineTarget, Target, What
from bench.load.traces import Recorded, find_trace, read_recorded
from bench.load.workload import Ask
from bench.record import Run, Variant
from bench.runner import PROGRESS_EVERY_S
from bench.tasks import Task, fingerprint, load_task
from pipo.jobs import JobContext

MOST_CLOSED = 10_000  # requests of a closed loop that its duration alone ends


class Point(NamedTuple):
    """A load to put on a variant; ``name`` is a point's key without the variant."""

    mode: Mode
    load: float

    @property
    def name(self) -> str:
        return f"{self.mode}={self.load:g}"


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Put load on variants; returns the summary (schema in bench/load/summary.py), which lies in summary.json too."""
    settings = loading.read_spec(spec, LoadSpec, "load")
    provenance.check_folder(ctx.folder)
    what = _what(settings)
    target: Target = (EndpointTarget if settings.url else EngineTarget)(settings, what, ctx)
    return LoadRun(settings, what, target, ctx).run()


def _what(settings: LoadSpec) -> What:
    """The trace or task that requests are made of. Raises BadInput or BadRecord."""
    if settings.trace is not None:
        path = find_trace(settings.trace, settings.data)
        found = read_recorded(path, settings.count or MOST_REQUESTS)
        if settings.duration_s is not None:
            found = [r for r in found if r.at_s / settings.speedup < settings.duration_s]
        return What(recorded=found)
    if settings.task is not None:
        task = load_task(settings.task, slots=settings.slots, family=settings.family, data=settings.data)
        return What(task=task)
    return What()


class LoadRun:
    """One run folder and what is still missing in it."""

    def __init__(self, settings: LoadSpec, what: What, target: Target, ctx: JobContext) -> None:
        self.settings, self.what, self.target, self.ctx = settings, what, target, ctx
        self.path = ctx.folder / "records.jsonl"
        self.header = self._open()
        self.records: list[LoadRecord] = resume(self.path)
        self.done = {r.point for r in self.records if isinstance(r, PointRecord)}
        self.energy = (
            energy.Found(None, energy.ELSEWHERE)
            if settings.url
            else energy.find(engines.device_name(settings) != "cpu")
        )

    def _open(self) -> Run:
        s, t = self.settings, self.target
        marks = t.fingerprints
        resolved = {
            "kind": "load", **plain(s), **engines.engine_settings(s), "variants": msgspec.to_builtins(t.variants),
            "scale": t.scale, "fingerprints": marks, "recorded": _mark(self.what.recorded),
            "items": _task_mark(self.what.task),
        }  # fmt: skip
        source = provenance.collect(
            resolved, seed=s.seed, engine="endpoint" if s.url else s.engine,
            device=t.name if s.url else engines.device_name(s), threads=getattr(t, "threads", 1), models=marks,
            warnings=engines.warnings(s),
        )  # fmt: skip
        budgets = {self.what.task.name: self.what.task.budgets} if self.what.task else {}
        run = Run(kind="load", spec=resolved, provenance=source, variants=t.variants, budgets=budgets,
                  sampling=s.sampling)  # fmt: skip
        return provenance.open_run(self.ctx.folder, run)

    def run(self) -> dict[str, Any]:
        """All points that are missing, then the summary."""
        self._measure_client()
        found = self._search() if self.settings.find_rate else []
        if not self.settings.find_rate:
            plan = self._plan()
            total = sum(len(self._asks(v, p)) for v, p in plan)
            before = 0
            for variant, point in plan:
                asks = self._asks(variant, point)
                self._run_point(variant, point, asks, before, total)
                before += len(asks)
        head = {
            "target": self.target.name, "mode": self._mode(),
            "scale": self.target.scale if self.what.recorded else None,
        }  # fmt: skip
        made = summary.summarise(self.header, self.settings, self.records, found, head)
        record.write_json(self.ctx.folder / "summary.json", made)
        return made

    def _mode(self) -> str:
        s = self.settings
        return "find_rate" if s.find_rate else "trace" if s.trace else "concurrency" if s.concurrency else "rate"

    def _measure_client(self) -> None:
        """The client's own costs, once a run."""
        if any(isinstance(r, ClientRecord) for r in self.records):
            return
        measure = overhead.of_engine if self.target.side == "engine" else overhead.of_endpoint
        self.ctx.emit("progress", done=0, total=0, note="what the client itself costs")
        found = measure(self.ctx.check)
        append(self.path, [found])
        self.records.append(found)

    def _plan(self) -> list[tuple[Variant, Point]]:
        """Variants under each load. SGLang has a server a variant, so there each variant has its turn once."""
        s, variants = self.settings, self.target.variants
        if s.trace:
            loads = [Point("trace", s.speedup)]
        elif s.concurrency:
            loads = [Point("concurrency", float(n)) for n in s.concurrency]
        else:
            loads = [Point("rate", r) for r in s.rates or [DEFAULT_RATE]]
        if s.on_sglang:
            return [(v, p) for v in variants for p in loads]
        turns = [variants[i % len(variants) :] + variants[: i % len(variants)] for i in range(len(loads))]
        return [(v, p) for p, turn in zip(loads, turns) for v in turn]

    def _asks(self, variant: Variant, point: Point) -> list[Ask]:
        """The requests of a point with the moments at which they are due: the same for all variants."""
        s, make = self.settings, self.target.workload(variant).asks
        if point.mode == "concurrency":
            return make(s.count or MOST_CLOSED)
        if point.mode == "trace":
            due = [r.at_s / s.speedup for r in self.what.recorded]
        else:
            count = s.probe_count(point.load) if point.mode == "probe" else s.count
            due = arrivals(s.arrivals, point.load, s.seed, requests=count, duration_s=s.duration_s,
                           burstiness=s.burstiness)  # fmt: skip
        return [a._replace(due_s=t) for a, t in zip(make(len(due)), due)]

    def _run_point(self, variant: Variant, point: Point, asks: list[Ask], before: int, total: int) -> None:
        key = f"{variant.name} {point.name}"
        if key in self.done:
            return
        s, note = self.settings, f"{variant.name}, {said(point)}"
        notes = self.target.warm(variant, s.warmup)
        for text in notes:
            self.ctx.emit("log", text=f"{variant.name}: {text}")
        how = How(
            int(point.load) if point.mode == "concurrency" else None,
            s.duration_s if point.mode == "concurrency" else None, s.timeout_s,
        )  # fmt: skip
        before_s = contention.waited_s()
        with energy.Meter(self.energy) as meter:
            driven = self.target.run(variant, key, asks, how, _Progress(self.ctx, before, total, note))
        waited = contention.since(before_s)
        score(self.what.task, asks, driven.records, lambda ids: self.target.text(variant, ids))
        made = PointRecord(
            point=key, variant=variant.name, mode=point.mode, load=point.load, requests=len(driven.records),
            wall_s=driven.wall_s, own_s=driven.own_s, cpu_s=driven.cpu_s, waited_s=waited, lag_s=driven.lag_s,
            energy=meter.result, most=driven.most, notes=notes,
        )  # fmt: skip
        append(self.path, [*driven.records, made])
        self.records += [*driven.records, made]
        self.done.add(key)
        self._say_failures(note, driven.records)

    def _say_failures(self, note: str, records: Sequence[RequestRecord]) -> None:
        bad = [r for r in records if r.status != "ok"]
        if bad:
            self.ctx.emit(
                "log", text=f"{note}: {len(bad)} of {len(records)} requests failed; the first: {bad[0].error}"
            )

    def _search(self) -> list[dict[str, Any]]:
        """The highest rate of each variant."""
        s = self.settings
        out = []
        for variant in self.target.variants:
            found = highest_rate(self._probe(variant), (s.rates or [DEFAULT_RATE])[0], s.target, s.precision)
            out.append({"variant": variant.name, **found})
        return out

    def _probe(self, variant: Variant) -> Callable[[float], dict[str, Any]]:
        def probe(rate: float) -> dict[str, Any]:
            point = Point("probe", rate)
            asks = self._asks(variant, point)
            self._run_point(variant, point, asks, 0, len(asks))
            key = f"{variant.name} {point.name}"
            p, requests = next((p, r) for p, r in points(self.records) if p.point == key)
            good = summary.goodput(p, requests, self.settings.slo)
            assert good is not None
            found: dict[str, Any] = good["share"]
            self.ctx.emit("log", text=f"{variant.name} at {rate:g}/s: {100 * found['value']:.1f}% meet the SLO")
            return found

        return probe


class _Progress:
    """Tells how many requests of all points are over, at a steady rate: an event costs time that would be measured."""

    def __init__(self, ctx: JobContext, before: int, total: int, note: str) -> None:
        self.ctx, self.before, self.total, self.note = ctx, before, total, note
        self.last = float("-inf")

    def __call__(self, over: int) -> None:
        now = time.perf_counter()
        if now - self.last < PROGRESS_EVERY_S and self.before + over < self.total:
            return
        self.last = now
        self.ctx.emit("progress", done=self.before + over, total=self.total, note=self.note)


def said(point: Point) -> str:
    """A load in words."""
    words = {"concurrency": "{:g} at once", "trace": "the trace {:g} times as fast"}
    return words.get(point.mode, "{:g} requests/s").format(point.load)


def _mark(recorded: Sequence[Recorded]) -> str:
    text = msgspec.json.encode(recorded)
    return hashlib.sha256(text).hexdigest()[:16] if recorded else ""


def _task_mark(task: Task | None) -> str:
    return "" if task is None else task.fingerprint or fingerprint(task.items)
