"""``pipo ablate run``, ``list`` and the short forms: studies as grids of points, shipped ones and one's own.

A study is read and checked here, before anything is submitted; the job checks it again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo.cli import evaluate as e
from pipo.cli import options as o
from pipo.cli import tasks as t

if TYPE_CHECKING:
    from ablations.grid_spec import Point, Study

KIND = "ablate-grid"
LAB_ITEMS = 240  # of a lab task where no limit is given
SHORT = {
    "budget": "Quality over the budget of slots (figure 2).",
    "draft-vocab": "Drafts from the most frequent tokens only: acceptance, kept share, speed.",
    "eagle-depth": "EAGLE from one to six drafts a step: acceptance, speed, and that quality stays.",
    "pads": "Quality by the share of PADs alone: a coin decides which drafts stay.",
    "temperature": "The methods at temperatures 0, 0.6 and 1, each beside regular decoding there.",
}

Samples = Annotated[int | None, typer.Option("--k", min=1, help="Samples per item. [default: the study's]")]
Items = Annotated[int | None, typer.Option("--limit", min=1, help="Items per task. [default: the study's]")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Base seed. [default: the study's]")]
Reuse = Annotated[
    str | None, typer.Option("--reuse", metavar="JOB|FOLDER", help="Take over the equal points of an earlier study.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the points and what they would cost, run nothing.")]


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("list")(list_studies)
    for name, text in SHORT.items():
        app.command(name, help=text)(_short(name))


def run(
    study: Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="One of `pipo ablate list`, or a file.")],
    task: o.Tasks = None,
    k: Samples = None,
    limit: Items = None,
    slice: t.Slice = None,
    seed: Seed = None,
    slots: o.Slots = None,
    thinking: t.Thinking = None,
    data: t.Data = None,
    unsafe: e.Unsafe = False,
    reuse: Reuse = None,
    dry_run: DryRun = False,
    engine: o.Engine = "torch",
    cpu_rig: o.CpuRig = False,
    devices: o.Devices = None,
    tp: o.Tp = None,
    dp: o.Dp = None,
    memory_fraction: o.MemoryFraction = None,
    radix_cache: o.RadixCache = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Run a study: every point of its grid, paired with its reference. Goes on where it stopped."""
    from pipo.cli.follow import run_job
    from pipo.cli.show_grid import show

    raw = load(study)
    lab = o.check_family(family)
    own = _read(raw).tasks if task is None else None
    given = o.without_none(
        **t.selection(task or own, slice, None, thinking, data), k=k, limit=limit, seed=seed, slots=slots
    )
    found, points = plan(raw, given, lab)
    settings = o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache)
    if dry_run:
        _print_plan(found, points, json)
        return
    spec = o.without_none(
        study=raw,
        **given,
        **settings,
        unsafe=unsafe or None,
        family=lab,
        reuse=t.run_folders([reuse])[0] if reuse is not None else None,
    )
    run_job(KIND, spec, as_json=json, detach=detach, show=show)


def _short(name: str) -> Callable[..., None]:
    """``pipo ablate NAME``: run with the study already named."""

    def command(**flags: Any) -> None:
        run(name, **flags)

    signature = inspect.signature(run, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name != "study"]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def load(study: str) -> dict[str, Any]:
    """A study's plain values by name or file; paths in a file are relative to it. Raises BadInput."""
    from ablations.study import grids, load_study, names, read_study
    from pipo.errors import BadInput

    if study in grids():
        return {"name": study, **load_study(study)}
    if study in names():
        raise BadInput(f"{study} is a study of its own kind: `pipo ablate {study}` runs it")
    path = Path(study).expanduser()
    if path.suffix != ".toml":
        raise BadInput(f"unknown study {study!r}; studies are {', '.join(grids())}, or the path of a .toml file")
    raw = {"name": path.stem, **read_study(path)}
    return _absolute(raw, path.parent.absolute())


def _absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths of tasks, models and corpora as absolute ones, where they are files beside the study."""

    def fix(value: Any) -> Any:
        if isinstance(value, list):
            return [fix(v) for v in value]
        return str(folder / value) if isinstance(value, str) and value and (folder / value).exists() else value

    def fix_in(table: Any, key: str) -> Any:
        return {**table, key: fix(table[key])} if isinstance(table, dict) and key in table else table

    out = raw | {key: fix(raw[key]) for key in ("tasks", "corpus") if key in raw}
    for name, key in (("base", "model"), ("axis", "values")):
        tables = raw.get(name)
        if isinstance(tables, list):
            varies = [name == "base" or (isinstance(t, dict) and t.get("key") == "model") for t in tables]
            out[name] = [fix_in(t, key) if is_path else t for t, is_path in zip(tables, varies, strict=True)]
    return out


def _read(raw: Mapping[str, Any]) -> Study:
    from ablations import grid_spec

    return grid_spec.read(raw)


def plan(raw: Mapping[str, Any], given: Mapping[str, Any], family: str | None) -> tuple[Study, list[Point]]:
    """The study with the flags over it, and its points. Raises BadInput, as the job would."""
    import msgspec

    from ablations import grid_spec

    study = _read(raw)
    study = msgspec.structs.replace(study, **{key: given[key] for key in study.JOB if key in given})
    points = grid_spec.expand(study)
    grid_spec.check_models(points, family, f"study {study.name!r}")
    return study, points


def _print_plan(study: Study, points: list[Point], json: bool) -> None:
    """Points, what is generated for them, and how much that is."""
    import msgspec

    from pipo.cli.output import print_json, print_table

    cost = rough(study, points)
    if json:
        print_json({"study": study.name, "question": study.question, "points": msgspec.to_builtins(points), **cost})
        return
    print(f"{study.question}\n")
    rows = [[p.name, p.model, method_text(p), _sampling(p), _budget(p), p.k, p.reference or "-"] for p in points]
    columns = ["point", "model", "method", "sampling", "budget", "k", "against"]
    print_table(columns, rows, left=[c for c in columns if c != "k"])
    print(f"\n{cost_text(cost)}")


def rough(study: Study, points: list[Point]) -> dict[str, Any]:
    """What a study generates: ``runs`` (points that decode equally are one), ``items``, ``samples``; None: unknown."""
    most: dict[Any, int] = {}
    for p in points:
        most[p.decoding] = max(p.k, most.get(p.decoding, 0))
    sizes = [_items(name, study.limit) for name in study.tasks or _lab_tasks()]
    items = sum(s for s in sizes if s) if all(sizes) else None
    return {"runs": len(most), "items": items, "samples": items and items * sum(most.values())}


def cost_text(cost: Mapping[str, Any]) -> str:
    """The cost as words."""
    samples = f"{cost['samples']:,} samples of {cost['items']} items" if cost["samples"] else "all items of its tasks"
    return f"{cost['runs']} run{'s' if cost['runs'] != 1 else ''}, {samples}"


def _lab_tasks() -> list[str]:
    from pipo.lab import TASKS

    return list(TASKS)


def _items(task: str, limit: int | None) -> int | None:
    from pipo.data import benchmarks
    from pipo.lab import TASKS

    if task in TASKS:
        return limit or LAB_ITEMS
    known = benchmarks.shipped(task).items if task in benchmarks.NAMES else None
    return min(known, limit) if known and limit else known or limit


def method_text(point: Point) -> str:
    """A method with the one setting that it uses, and the draft vocabulary."""
    from ablations.grid_spec import METHOD_KEYS

    settings = [f"{key} {getattr(point.method, key):g}" for key, of in METHOD_KEYS.items() if point.method.name in of]
    settings += [f"drafts from {point.draft_vocab}"] if point.draft_vocab else []
    return ", ".join([point.method.name, *settings])


def _sampling(point: Point) -> str:
    from pipo.engine.types import Sampling

    usual = Sampling()
    changed = [key for key in Sampling.__struct_fields__ if getattr(point.sampling, key) != getattr(usual, key)]
    return ", ".join(f"{key} {getattr(point.sampling, key):g}" for key in changed) or "temperature 1"


def _budget(point: Point) -> str:
    if point.budget is not None:
        return f"{100 * point.budget:g} %"
    return f"{point.slots} slots" if point.slots else "loose"


def list_studies(json: o.Json = False) -> None:
    """List the studies that ship: what each asks, how many points, what it generates, what it took."""
    from ablations import grid_spec, study
    from pipo.cli.output import print_json

    rows = []
    for name in study.names():
        row: dict[str, Any] = {"study": name, "question": study.about(name), "points": None, "paper": "", "cost": ""}
        if name in study.grids():
            found = grid_spec.read(study.load_study(name), name)
            points = grid_spec.expand(found)
            row |= {"points": len(points), "paper": found.paper, "cost": found.cost, **rough(found, points)}
            row["command"] = f"pipo ablate {name if name in SHORT else f'run {name}'}"
        else:
            row["command"] = f"pipo ablate {name}"
        rows.append(row)
    if json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['command']}\n    {row['question']}")
        if row["points"]:
            print(f"    {row['points']} points, {cost_text(row)}; {row['cost']}. Paper: {row['paper']}.")
