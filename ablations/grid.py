"""The job ``ablate-grid``: a study as a grid of points (ablations/grid_spec.py), resumable unit by unit, item by item.

What decodes equally is generated once (ablations/grid_units.py); a finished unit is not even loaded again. Everything
that can be found wrong is found before anything is generated: points, models, tasks, and that every model loads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ablations import grid_spec, grid_units
from ablations.grid_spec import Point, Study
from ablations.grid_summary import summarise
from ablations.grid_units import KIND, Unit
from ablations.study import grids, load_study, names
from bench import draft_vocab, engines, grading, loading, provenance, record
from bench.engines import engine_settings
from bench.loading import Loaded, read_spec
from bench.record import Record, Run
from bench.runner import Progress
from bench.scoring import check_pass_at
from bench.session import SampleSpec, Session, fixed_order
from bench.tasks import Task, load_tasks
from pipo.engine.types import Sampling
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model

T = TypeVar("T")


class GridSpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``ablate-grid``: those given win over the study's own.

    ``study``: name of a shipped one, or its plain values. ``reuse``: run folder of an earlier study whose finished
    points are taken over where they are equal.
    """

    study: str | dict[str, Any]
    reuse: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None:
            raise BadInput(f"shard {self.shard}: a study is not put together from shards; take bases out instead")
        if self.sampling != Sampling():
            raise BadInput(
                "sampling of a study stands in its bases and axes (temperature, top_p, ...), not beside them"
            )


class Inner:
    """A job's context for a part of it, in a folder of its own; a quiet part says nothing of its progress."""

    def __init__(self, ctx: JobContext, folder: Path, *, quiet: bool = False) -> None:
        self.ctx, self.folder, self.job_id, self.quiet = ctx, folder, ctx.job_id, quiet
        folder.mkdir(parents=True, exist_ok=True)

    def emit(self, kind: str, **data: Any) -> None:
        if not (self.quiet and kind == "progress"):
            self.ctx.emit(kind, **data)

    def check(self) -> None:
        self.ctx.check()

    def resident(self, key: str, load: Callable[[], T]) -> T:
        return self.ctx.resident(key, load)


def load_grid(study: str | Mapping[str, Any]) -> Study:
    """A study by name or from plain values. Raises BadInput; for a study of another kind it names the command."""
    if not isinstance(study, str):
        return grid_spec.read(study)
    if study in names() and study not in grids():
        raise BadInput(f"{study} is a study of its own kind: `pipo ablate {study}` runs it")
    return grid_spec.read(load_study(study), study)


def resolve(spec: Mapping[str, Any]) -> tuple[GridSpec, Study, list[Point]]:
    """A job's settings over the study's, and the points that follow. Raises BadInput."""
    if "study" not in spec:
        raise BadInput(f"{KIND}: no study; name one of {', '.join(grids())}, or give its keys")
    study = load_grid(spec["study"])
    own = {key: getattr(study, key) for key in Study.JOB}
    settings = read_spec({**own, **spec}, GridSpec, KIND)
    study = msgspec.structs.replace(study, **{key: getattr(settings, key) for key in Study.JOB})
    points = grid_spec.expand(study)
    grid_spec.check_models(points, settings.family, f"study {study.name!r}")
    check_pass_at(settings.pass_at, max(p.k for p in points))
    return settings, study, points


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Run the study or go on with it; returns the summary (schema in ablations/grid_summary.py).

    Raises:
        BadInput: a study that is wrong, an unknown task, an earlier run that has nothing to take over.
        BadModel: a model that cannot be loaded.
    """
    settings, study, points = resolve(spec)
    engines.check_usable(settings)
    provenance.check_folder(ctx.folder)
    tasks = load_tasks(
        settings.tasks, limit=settings.limit, slots=settings.slots, family=settings.family, part=settings.slice,
        data=settings.data,
    )  # fmt: skip
    derived = derive(points, settings, study, ctx)
    models = {p.name: _model(p, derived, settings) for p in points}
    common = {
        "tasks": {t.name: t.fingerprint for t in tasks}, "seed": settings.seed, "max_batch": settings.max_batch,
        "thinking": settings.thinking, "engine": settings.engine, **engine_settings(settings),
        **_scorers(tasks),
    }  # fmt: skip
    units = grid_units.units_of(points, tasks, models, common)
    header = open_study(settings, study, points, units, tasks, ctx)
    units = take_over(units, settings, header, ctx)
    for unit in units:
        place = ctx.folder / "units" / unit.folder
        provenance.check_folder(place)
        record.write_json(place / "unit.json", unit)
    generate(units, settings, tasks, ctx)
    records: dict[str, list[Record]] = {
        u.key: fixed_order(record.read(ctx.folder / "units" / u.folder / "records.jsonl")) for u in units
    }
    summary = summarise(header, study, points, units, records, tasks, derived, settings.pass_at)
    summary = grading.sealed(summary, grading.tally(r for rows in records.values() for r in rows))
    record.write_json(ctx.folder / "summary.json", summary)
    return summary


def derive(points: list[Point], settings: GridSpec, study: Study, ctx: JobContext) -> dict[str, dict[str, Any]]:
    """Build the models with a draft vocabulary that points ask for, once each; point -> what was built."""
    out: dict[str, dict[str, Any]] = {}
    for p in points:
        if p.draft_vocab is None:
            continue
        name = f"{Path(p.model).name}-drafts-{p.draft_vocab}-{provenance.settings_hash({'model': p.model})[:4]}"
        note, target = ctx.folder / "models" / f"{name}.json", ctx.folder / "models" / name
        mark = loading.fingerprint(resolve_model(p.model, settings.family))
        found = json.loads(note.read_bytes()) if note.exists() and target.is_dir() else {}
        if found.get("of") != mark:
            ctx.check()
            given = {"model": p.model, "size": p.draft_vocab, "out": str(target), "corpus": study.corpus}
            inner = Inner(ctx, ctx.folder / "models", quiet=True)
            found = {**draft_vocab.run({**given, "family": settings.family}, inner), "of": mark}
            record.write_json(note, found)
            share = f"{100 * found['coverage']:.2f} % of the corpus"
            ctx.emit("log", text=f"{p.model} with {p.draft_vocab} tokens to draft from: {share}")
        out[p.name] = {**found, "folder": str(target)}
    return out


def _scorers(tasks: list[Task]) -> dict[str, Any]:
    """The versions of scorers as a setting; nothing where answers are compared as texts."""
    found = grading.marks(tasks)
    return {"scorers": found} if found else {}


def _model(point: Point, derived: Mapping[str, dict[str, Any]], settings: GridSpec) -> tuple[str, str]:
    """What to load for a point, and the fingerprint of that."""
    name = str(derived[point.name]["folder"]) if point.name in derived else point.model
    return name, loading.fingerprint(resolve_model(name, settings.family))


def open_study(
    settings: GridSpec, study: Study, points: list[Point], units: list[Unit], tasks: list[Task], ctx: JobContext
) -> Run:
    """Write run.json, or go on with the run there; refuses a folder with a study of other settings."""
    given = msgspec.to_builtins(settings)
    for key in ("engine", "server", "data", "score", "unsafe", "reuse", *settings.NEWER):
        if given[key] is None or key not in settings.NEWER:
            del given[key]
    own = str(ctx.folder / "models")  # models built here go by their names, so that a folder may move
    marks = {Path(u.model).name if u.model.startswith(own) else u.model: u.settings["model"] for u in units}
    resolved = {
        "kind": KIND, **given, **engine_settings(settings), "study": msgspec.to_builtins(study),
        "points": msgspec.to_builtins(points), "tasks": {t.name: t.fingerprint for t in tasks},
        "benchmarks": {t.name: t.source for t in tasks if t.source}, "fingerprints": marks, **_scorers(tasks),
    }  # fmt: skip
    first = _load(units[0], settings, ctx)
    source = provenance.collect(
        resolved, seed=settings.seed, engine=settings.engine, device=engines.device_name(settings),
        threads=engines.threads(settings, first.engine), models=marks, warnings=engines.warnings(settings),
    )  # fmt: skip
    header = Run(
        kind=KIND, spec=resolved, provenance=source, variants=[u.variant for u in units],
        budgets={t.name: t.budgets for t in tasks},
    )  # fmt: skip
    return provenance.open_run(ctx.folder, header)


def take_over(units: list[Unit], settings: GridSpec, header: Run, ctx: JobContext) -> list[Unit]:
    """Take finished points of an earlier run, once; units that were taken say from where."""
    note = ctx.folder / "reused.json"
    if settings.reuse is not None and not note.exists():
        taken, whys = grid_units.take_over(units, Path(settings.reuse), ctx.folder)
        record.write_json(note, {key: u.taken_from for key, u in taken.items()})
        there = record.read_run(Path(settings.reuse)).provenance
        other = [
            key
            for key in ("device", "versions", "git_commit")
            if getattr(there, key) != getattr(header.provenance, key)
        ]
        apart = [f"they were made with another {' and '.join(other)}"] if other else []
        for text in [f"{len(taken)} of {len(units)} runs are taken from {settings.reuse}", *apart, *whys]:
            ctx.emit("log", text=text)
    known: dict[str, str] = json.loads(note.read_bytes()) if note.exists() else {}
    return [msgspec.structs.replace(u, taken_from=known.get(u.key)) for u in units]


def generate(units: list[Unit], settings: GridSpec, tasks: list[Task], ctx: JobContext) -> None:
    """Generate what is missing, unit by unit; every model that is needed is loaded before the first sample."""
    found = {u.key: grid_units.state(u, ctx.folder) for u in units}
    have = {u.key: found[u.key][0] & grid_units.wanted(u, tasks) for u in units}
    todo = [u for u in units if have[u.key] != grid_units.wanted(u, tasks) or found[u.key][1]]
    for unit in todo:
        ctx.check()
        loading.check_method(f"point {unit.name!r}", unit.method, _load(unit, settings, ctx))
    items = sum(len(t.items) for t in tasks)
    total = sum(u.k * items for u in units)
    progress = Progress(ctx, total, sum(u.k * len(have[u.key]) for u in units))
    said: set[str] = set()
    for unit in todo:
        session = _session(unit, settings, tasks, ctx, said)
        session.progress = progress
        for task in session.tasks:
            session.generate(unit.variant, task)
        session.records()  # waits for the judge, whose verdicts go into the records


def _session(unit: Unit, settings: GridSpec, tasks: list[Task], ctx: JobContext, said: set[str]) -> Session:
    shared = {key: getattr(settings, key) for key in SampleSpec.__struct_fields__}
    spec = SampleSpec(**{**shared, "k": unit.k, "sampling": unit.sampling, "pass_at": None})
    own = [msgspec.structs.replace(t, budgets=_budgets(t, unit)) for t in tasks]
    inner = Inner(ctx, ctx.folder / "units" / unit.folder, quiet=True)  # the study's progress is the one that counts
    session = Session(KIND, spec, [unit.variant], inner, tasks=own)
    for note in (n for t in tasks for n in t.notes if n not in said):
        said.add(note)
        ctx.emit("log", text=note)
    return session


def _budgets(task: Task, unit: Unit) -> dict[str, int]:
    loose = unit.budgets[task.name]
    return {"tight": min(task.budgets["tight"], loose), "loose": loose}


def _load(unit: Unit, settings: GridSpec, ctx: JobContext) -> Loaded:
    return loading.load_for(settings, unit.model, unit.method, f"point {unit.name!r}", ctx, settings.family)
