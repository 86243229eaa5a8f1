"""The job ``map``: which method decodes fastest, over batch, context and kept share; the floor and what was measured.

The model is random (bench/shapes.py): the time of a step depends on shapes, batch and context, not on what the tokens
say. So every step is timed once a method, and the tokens that come out of it are what is assumed: 1 + kept for the pair
methods, the acceptance length for eagle, 2 for unverified mtp, 1 for regular. A pair method's context is shorter the
more it keeps. Which kept share costs no quality, no map can say: that is what comparisons are for.

Methods take turns within a cell, a few steps at a time in an order that rotates, so that a drift of the machine meets
all alike. Cells are written as they finish and never done again.

summary.json of ``map``::

    schema 1, kind "map", shape, dtype, device, batches, contexts, kept, accepted, depth, prompt (contexts are prompts:
    dense pairs), steps (timed a method and cell), measured (bool), memory_bytes (what has to fit), interval (text),
    machine {"name", "bandwidth", "matmul_rate", "attention_rate", "call_s", "memory", "dtype", "threads"}
    rows    [{"batch", "context", "method" ("regular" | "mtp" | "eagle" | "pipo"), "keep" (pipo, else None),
              "accepted" (eagle, else None), "tokens_per_step" (a row), "places" (backbone positions a row),
              "memory_bytes", "fits" (bool), "rows_that_fit" (most rows of this context),
              "floor_s" (least time of a step by bytes and operations), "floor_tokens_s" (whole batch),
              "floor_ratio" (to regular in this cell; None where regular does not fit),
              "prefill_floor_s" (least time to the first token of prompts that long),
              "calls" (torch operators a step; None where not counted), "calls_floor_s" (floor_s and the calls' time),
              "step_s" ({"p10", "p50", "p90"} or None), "tokens_s" (measured, or None), "ratio" ({"value", "low",
              "high"}: tokens a second over regular's, 95% bootstrap over turns; or None), "over_floor" (median step
              over floor_s; None for an ideal machine), "note" (why nothing was timed, or "")}]
    cells   [{"batch", "context", "keep", "accepted", "floor": {...}, "measured": {...} or None}] where each side is
             {"winner" (method, or None where none fits), "ratio" (winner's tokens/s over regular's; None where regular
              does not fit), "lead" (over the second; None where there is none), "settled" (bool: by floor always; as
              measured where the lead's 95% interval, a bootstrap over turns, lies above 1)}

Unverified mtp is in the rows and in no contest: it keeps every draft unseen, so beside a kept share below 1 its text is
another one, and the winner would be whoever checks least.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import msgspec
import torch

from bench import footprint, loading, machine, map_summary, provenance, record
from bench.footprint import Shapes
from bench.machine import Machine
from bench.map_arms import BURST, Arm, arms_of
from bench.record import MapRecord, Run
from bench.runner import clean_exit
from bench.shapes import random_model, shape_config
from pipo.engine.trial import start_at
from pipo.engine.types import Request
from pipo.errors import BadInput, JobFailed
from pipo.jobs import JobContext

WARM = 2  # steps of a turn that do not count
SMALL = 64  # places of a plan that takes next to nothing
MEASURE = "measure"


class MapSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``map``.

    ``shape``: a name of bench/shapes.py or the path of a config.json. ``kept``: shares of drafts that pair methods
    keep. ``accepted``: tokens a step of eagle, 1 to depth + 1. ``prompt``: contexts are prompts, dense for pairs;
    else they were generated. ``steps``: timed a method and cell. ``memory_gb``: what has to fit (10^9 bytes; default
    the machine's); steps are timed where this machine holds the engine's caches as well. ``machine``: ``measure``, or
    an ideal one by name. ``measured``: time steps here as well. ``dtype``: default bfloat16 on a GPU or for an ideal
    machine alone, float32 on a CPU.
    """

    shape: str = "lab"
    batches: list[int] = msgspec.field(default_factory=lambda: [1, 8, 64])
    contexts: list[int] = msgspec.field(default_factory=lambda: [512, 2048, 8192])
    kept: list[float] = msgspec.field(default_factory=lambda: [0.335, 0.8, 1.0])
    accepted: list[float] = msgspec.field(default_factory=lambda: [2.4])
    depth: int = 3
    prompt: bool = False
    steps: int = 24
    memory_gb: float | None = None
    machine: str = MEASURE
    measured: bool = True
    seed: int = 0
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("batches", "contexts", "kept", "accepted"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise BadInput(f"{name} {values} must name at least one value, and none twice")
        if min(self.batches) < 1 or min(self.contexts) < 2:
            raise BadInput(f"batches {self.batches} must be at least 1, contexts {self.contexts} at least 2 tokens")
        if not all(0 <= share <= 1 for share in self.kept):
            raise BadInput(f"kept {self.kept} must lie in [0, 1]; it is the share of drafts kept")
        if not 1 <= self.depth <= 16:
            raise BadInput(f"depth {self.depth} must lie in [1, 16]")
        if not all(1 <= a <= self.depth + 1 for a in self.accepted):
            raise BadInput(f"accepted {self.accepted} must lie in [1, {self.depth + 1}], tokens a step at this depth")
        if self.steps < 1:
            raise BadInput(f"steps {self.steps} must be at least 1")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise BadInput(f"memory_gb {self.memory_gb} must be above 0")
        if self.machine != MEASURE:
            machine.named(self.machine)
        if self.dtype is not None:
            machine.dtype_of(self.dtype)


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Fill the map; returns the summary, which lies in summary.json too."""
    settings = loading.read_spec(spec, MapSpec, "map")
    dtype = machine.dtype_of(settings.dtype or default_dtype(settings))
    config = shape_config(settings.shape)
    shapes = footprint.shapes_of_config(config, dtype)
    arms = arms_of(settings.kept, settings.depth)
    check_room(settings, config)
    provenance.check_folder(ctx.folder)
    bench = Bench(settings, config, dtype, ctx) if settings.measured else None  # sets torch's threads
    header = _open(settings, dtype, shapes, ctx)
    where = the_machine(settings, dtype, bench, ctx)
    memory = where.memory if settings.memory_gb is None else settings.memory_gb * 1e9
    path = ctx.folder / "records.jsonl"
    done = {(r.batch, r.context) for r in maps(record.read(path, allow_empty=True))}
    cells = [(b, n) for n in settings.contexts for b in settings.batches]
    for i, (batch, context) in enumerate(cells):
        if (batch, context) in done:
            continue
        ctx.check()
        ctx.emit("progress", done=i, total=len(cells), note=f"batch {batch}, context {context}")
        rows = [planned(shapes, arm, batch, context, memory, settings.prompt) for arm in arms]
        if bench is not None:
            rows = bench.cell(arms, rows)
        record.append(path, rows)
    ctx.emit("progress", done=len(cells), total=len(cells), note="all cells")
    summary = map_summary.summarise(settings, header, where, memory, shapes, maps(record.read(path)))
    record.write_json(ctx.folder / "summary.json", summary)
    return summary


def maps(records: list[record.Record]) -> list[MapRecord]:
    """The records of cells."""
    return [r for r in records if isinstance(r, MapRecord)]


def default_dtype(settings: MapSpec) -> str:
    """The type of weights where none is asked for; see ``MapSpec``."""
    on_cpu = (settings.measured or settings.machine == MEASURE) and loading.device() == "cpu"
    return "float32" if on_cpu else "bfloat16"


def planned(s: Shapes, arm: Arm, batch: int, context: int, memory: float, prompt: bool) -> MapRecord:
    """What a method takes in a cell, nothing timed yet."""
    kept, dense = 1.0 if arm.keep is None else arm.keep, context if prompt else 0
    need = footprint.memory_bytes(s, arm.method, batch, context, kept=kept, prompt=dense)
    fits = need <= memory
    note = "" if fits else f"needs {need / 1e9:.1f} GB of {memory / 1e9:.1f}"
    return MapRecord(
        batch=batch, context=context, method=arm.method.name, keep=arm.keep, memory_bytes=need, fits=fits, note=note,
        places=max(1, round(footprint.places_of(arm.method, context, kept=kept, prompt=dense))),
    )  # fmt: skip


def check_room(settings: MapSpec, config: Any) -> None:
    """Raise BadInput where the longest context, and the steps after it, are beyond the model's positions."""
    need = max(settings.contexts) + room(settings.depth)
    if need > config.max_position_embeddings:
        raise BadInput(
            f"context {max(settings.contexts)} needs {need} positions with the steps after it, shape "
            f"{settings.shape!r} has {config.max_position_embeddings}; shorten it"
        )


def room(depth: int) -> int:
    """Places that a turn of any method may write behind its context."""
    return (WARM + BURST + 2) * (depth + 1)


def the_machine(settings: MapSpec, dtype: torch.dtype, bench: Bench | None, ctx: JobContext) -> Machine:
    """The named machine, or this one: measured once a run, so that a run that goes on has one floor."""
    if settings.machine != MEASURE:
        return machine.named(settings.machine)
    path = ctx.folder / "machine.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Machine)
    ctx.emit("log", text="measuring bandwidth, rates and the time of a call")
    found = machine.measure(loading.device(), dtype)
    record.write_json(path, found)
    return found


def _open(settings: MapSpec, dtype: torch.dtype, shapes: Shapes, ctx: JobContext) -> Run:
    resolved = {
        "kind": "map", **msgspec.to_builtins(settings), "dtype": str(dtype).removeprefix("torch."),
        "shapes": msgspec.to_builtins(shapes),
    }  # fmt: skip
    source = provenance.collect(
        resolved, seed=settings.seed, engine=loading.ENGINE, device=loading.device_name(), threads=loading.threads(),
        models={},
    )  # fmt: skip
    return provenance.open_run(ctx.folder, Run(kind="map", spec=resolved, provenance=source))


class Bench:
    """A random model in an engine whose plan is made anew for each cell; times the methods of a cell in turns."""

    def __init__(self, settings: MapSpec, config: Any, dtype: torch.dtype, ctx: JobContext) -> None:
        from pipo.engine import TorchEngine
        from pipo.model.draft_vocab import eos_ids
        from pipo.model.threads import fit_threads

        self.settings, self.ctx = settings, ctx
        ctx.emit("log", text=f"a random model of shape {settings.shape}, {str(dtype).removeprefix('torch.')}")
        model = random_model(config, loading.device(), dtype, settings.seed)
        fit_threads(model)
        self.engine: Any = TorchEngine(model, max_batch=1, context=SMALL, mixed=True)
        eos = eos_ids(config)
        self.prompt = tuple(i for i in range(len(eos) + 3) if i not in (config.pad_token_id, *eos))[:2]
        self.turns = 0

    def cell(self, arms: list[Arm], rows: list[MapRecord]) -> list[MapRecord]:
        """The rows of a cell with their steps timed, where the methods fit."""
        pairs = self._arrange([(a, r) for a, r in zip(arms, rows, strict=True) if r.fits])
        for arm, row in pairs:  # kernels, caches and graphs of this shape come into being; calls are counted
            self.turn(arm, row, count=True)
        rounds = -(-self.settings.steps // BURST)
        for number in range(rounds):
            turn = number % max(1, len(pairs))
            for arm, row in pairs[turn:] + pairs[:turn]:
                left = self.settings.steps - len(row.step_s)
                row.step_s += self.turn(arm, row, steps=min(BURST, left))
        return rows

    def _arrange(self, pairs: list[tuple[Arm, MapRecord]]) -> list[tuple[Arm, MapRecord]]:
        """Make the engine's plan for these; methods whose caches it cannot hold go out, the longest first."""
        pairs = list(pairs)
        while pairs:
            widest = max(pairs, key=lambda p: p[1].places)
            self._let_go()
            try:
                self.engine.resize(max_batch=widest[1].batch, context=widest[1].places + room(self.settings.depth))
                return pairs
            except (BadInput, torch.OutOfMemoryError) as e:
                for pair in [p for p in pairs if p[1].places == widest[1].places]:
                    pair[1].note = f"not timed: {e}"
                    pairs.remove(pair)
        return pairs

    def _let_go(self) -> None:
        """Free the last cell's caches before new ones come, to the device as well: the engine asks what is free."""
        self.engine.resize(max_batch=1, context=SMALL)
        if self.engine.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def turn(self, arm: Arm, row: MapRecord, steps: int = 0, count: bool = False) -> list[float]:
        """Seconds of some steps of a method after the warm-up; the engine is empty before and after."""
        self.turns += 1
        ids = [f"map/{self.turns}/{i}" for i in range(row.batch)]
        slots, seed = room(self.settings.depth), self.settings.seed
        requests = [
            Request(id=name, prompt=self.prompt, method=arm.method, seed=seed + i, max_slots=slots, ignore_eos=True)
            for i, name in enumerate(ids)
        ]
        times: list[float] = []
        gc.disable()  # a collection in the middle would be timed
        try:
            with clean_exit(self.engine, ids):
                start_at(self.engine, requests, row.places)
                for number in range(WARM + steps):
                    self.ctx.check()
                    start = time.perf_counter()
                    events = self.engine.step()
                    times.append(time.perf_counter() - start)
                    for event in events:
                        if event.finish is not None:
                            raise JobFailed(f"{arm.name} at batch {row.batch}, context {row.context} ended: {event}")
                    del number
                if count:
                    row.calls = machine.count_calls(self.engine.step)
                for name in ids:
                    self.engine.cancel(name)
                self.engine.step()
        finally:
            gc.enable()
        return times[WARM:]
