"""What a study generates: points that decode equally are one unit, made once under its largest budget. Torch-free.

A unit is a run folder under ``units/`` with ``unit.json`` beside its records. Its key is a hash of all that decides its
samples but the budgets and the number of samples, which smaller points read off it exactly. So a unit of an earlier
study can be taken over, by its key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ablations.grid_cut import within
from ablations.grid_spec import Point, plain_method
from bench import provenance, record
from bench.record import Record, SampleRecord, ThroughputRecord, Variant
from bench.runner import finished
from bench.tasks import Task
from pipo.engine.types import Method, Sampling
from pipo.errors import BadInput, BadRecord

KIND = "ablate-grid"
SAMPLES_ONLY = ("slots", "k")


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """Samples that are generated together. ``settings``: what ``key`` is a hash of; ``points``: names of those in it.

    ``model``: the folder or name to load. ``budgets``: task -> slots, the largest of its points; ``k`` likewise.
    """

    key: str
    name: str
    model: str
    method: Method
    sampling: Sampling
    k: int
    budgets: dict[str, int]
    points: list[str]
    settings: dict[str, Any]
    taken_from: str | None = None

    @property
    def folder(self) -> str:
        """Name of its folder under ``units/``."""
        return f"{re.sub('[^a-z0-9.=]+', '-', self.name.lower()).strip('-')[:60]}-{self.key[:8]}"

    @property
    def variant(self) -> Variant:
        """What its records are of."""
        return Variant(self.name, self.model, self.method)


def units_of(
    points: Sequence[Point], tasks: Sequence[Task], models: dict[str, tuple[str, str]], common: dict[str, Any]
) -> list[Unit]:
    """The units of all points, in their order.

    Args:
        models: point -> (model to load, fingerprint). ``common``: further settings that decide the samples.
    """
    out: dict[str, Unit] = {}
    for p in points:
        model, mark = models[p.name]
        method = plain_method(p.method)
        settings = {
            "model": mark, "method": msgspec.to_builtins(method), "sampling": msgspec.to_builtins(p.sampling), **common
        }  # fmt: skip
        key = provenance.settings_hash(settings)
        budgets = {t.name: p.slots_of(t.budgets["loose"]) for t in tasks}
        unit = out.get(key) or Unit(
            key=key, name=p.name, model=model, method=method, sampling=p.sampling, k=p.k, budgets=budgets, points=[],
            settings=settings,
        )  # fmt: skip
        out[key] = msgspec.structs.replace(
            unit, k=max(unit.k, p.k), points=[*unit.points, p.name],
            budgets={t: max(b, unit.budgets[t]) for t, b in budgets.items()},
        )  # fmt: skip
    return list(out.values())


def wanted(unit: Unit, tasks: Sequence[Task]) -> set[tuple[str, str, str]]:
    """(variant, task, item) that a unit has when it is finished."""
    return {(unit.name, t.name, i.id) for t in tasks for i in t.items}


def state(unit: Unit, folder: Path) -> tuple[set[tuple[str, str, str]], bool]:
    """(variant, task, item) of which all samples of a unit are there, and whether some wait for a judge.

    ``folder``: the study's.
    """
    found = record.read(folder / "units" / unit.folder / "records.jsonl", allow_empty=True)
    return finished(found, unit.k), any(isinstance(r, SampleRecord) and not r.judged for r in found)


def rows_for(point: Point, unit: Unit, records: Iterable[Record], tasks: Sequence[Task]) -> list[Record]:
    """A unit's records as a point's own: its samples, cut at its budgets, under its name.

    What the whole batch put out belongs to points that have the unit's own budgets and samples.
    """
    slots = {t.name: point.slots_of(t.budgets["loose"]) for t in tasks}
    whole = point.k == unit.k and slots == unit.budgets
    out: list[Record] = []
    for r in records:
        if isinstance(r, SampleRecord) and r.sample < point.k:
            out.append(msgspec.structs.replace(within(r, unit.method, slots[r.task]), variant=point.name))
        elif isinstance(r, ThroughputRecord) and whole:
            out.append(msgspec.structs.replace(r, variant=point.name))
    return out


def read_units(folder: Path) -> list[tuple[Unit, Path]]:
    """The units of a study's run folder. Raises BadInput where it is none."""
    run = record.read_run(folder)
    if run.kind != KIND:
        raise BadInput(f"{folder} holds a run of kind {run.kind!r}; points are taken from {KIND} runs")
    found = []
    for path in sorted(folder.glob("units/*/unit.json")):
        try:
            found.append((msgspec.json.decode(path.read_bytes(), type=Unit), path.parent))
        except (OSError, msgspec.DecodeError) as e:
            raise BadRecord(f"{path} cannot be read ({e}); take points from another run") from e
    return found


def take_over(units: Sequence[Unit], source: Path, folder: Path) -> tuple[dict[str, Unit], list[str]]:
    """Copy the finished items of an earlier study's equal units into this one's folder.

    Returns the units taken, by key, and why others of the same points were not.

    Raises:
        BadInput: no unit can be taken; the message says why.
    """
    there = read_units(source)
    taken: dict[str, Unit] = {}
    whys: list[str] = []
    for unit in units:
        same = next(((u, at) for u, at in there if u.key == unit.key), None)
        why: str | None
        if same is None:
            why = _differs(unit, [u for u, _ in there])
        else:
            why = _too_small(unit, same[0]) or _copy(unit, *same, source, folder)
        if why is None:
            taken[unit.key] = msgspec.structs.replace(unit, taken_from=str(source))
        elif why:
            whys.append(f"{unit.name!r} is not taken over: {why}")
    if not taken:
        more = f" ({whys[0]})" if whys else ""
        raise BadInput(f"{source} has nothing for any point of this study{more}; leave --reuse out")
    return taken, whys


def _differs(unit: Unit, there: Sequence[Unit]) -> str:
    """Why no unit there is equal: what the one of the same point has otherwise; empty for a point that is new."""
    old = next((u for u in there if set(u.points) & set(unit.points)), None)
    if old is None:
        return ""
    keys = [k for k in {**old.settings, **unit.settings} if old.settings.get(k) != unit.settings.get(k)]
    return "; ".join(f"{k} is {old.settings.get(k)!r} there and {unit.settings.get(k)!r} here" for k in keys)


def _too_small(unit: Unit, old: Unit) -> str | None:
    if old.k < unit.k:
        return f"k is {old.k} there and {unit.k} here"
    less = [t for t, b in unit.budgets.items() if old.budgets[t] < b]
    return f"{less[0]} has {old.budgets[less[0]]} slots there and {unit.budgets[less[0]]} here" if less else None


def _copy(unit: Unit, old: Unit, at: Path, source: Path, folder: Path) -> str | None:
    """Write the unit's records from those of an equal one; why not, if there are none."""
    target = folder / "units" / unit.folder
    if (target / "unit.json").exists():
        return None  # taken over before a restart
    records = record.read(at / "records.jsonl", allow_empty=True)
    whole = finished(records, old.k)
    if not whole:
        return "no item of it is finished there"
    alike = old.k == unit.k and old.budgets == unit.budgets
    kept: list[Record] = []
    for r in records:
        if isinstance(r, SampleRecord) and (r.variant, r.task, r.item) in whole and r.sample < unit.k:
            kept.append(msgspec.structs.replace(within(r, unit.method, unit.budgets[r.task]), variant=unit.name))
        elif isinstance(r, ThroughputRecord) and alike:
            kept.append(msgspec.structs.replace(r, variant=unit.name))
    target.mkdir(parents=True, exist_ok=True)
    record.rewrite(target / "records.jsonl", kept)
    record.write_json(target / "unit.json", msgspec.structs.replace(unit, taken_from=str(source)))
    return None
