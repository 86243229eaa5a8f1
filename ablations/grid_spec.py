"""Studies as grids: what is asked, which points are run, and which point each is held against. Torch-free.

A study is a TOML: ``question``, ``reference``, ``[[base]]`` tables (a name, a model, a method and its settings) and
``[[axis]]`` tables (a key and its values). Points are every base at every combination of the axes' values; a base that
an axis does not name (``only``) is run once. docs/ABLATIONS.md shows all keys. Everything wrong with a study is said
here, in one line, before anything runs.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from pipo.engine.types import METHODS, PAIR_METHODS, Method, Sampling
from pipo.errors import BadInput, BadModel
from pipo.lab.family import resolve_model

METHOD_KEYS: dict[str, tuple[str, ...]] = {"threshold": ("pipo",), "depth": ("eagle",), "keep_rate": ("random",)}
OWNERS = {**METHOD_KEYS, "draft_vocab": ("mtp", "eagle", *PAIR_METHODS)}  # key -> the methods that it has an effect on
SAMPLING_KEYS: tuple[str, ...] = Sampling.__struct_fields__
KEYS = ("model", "method", *OWNERS, *SAMPLING_KEYS, "slots", "budget", "k")
FULL = "full"  # draft_vocab of a model as it is
MOST_POINTS = 200
Value = str | int | float


class Axis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What varies: ``key`` takes each of ``values``, for all bases or for those of ``only``."""

    key: str
    values: list[Value]
    only: list[str] = []


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A study as written. ``base``: tables of ``name``, ``reference`` and ``KEYS``.

    ``reference``: what every point is held against: the name of a point, or of a base, whose point with the same values
    on the axes is meant; a base may name another one. ``paper``: where the paper has it; ``cost``: what the study took;
    ``corpus``: what draft vocabularies are counted in, as in `pipo draft-vocab`. The rest are defaults of the job's
    settings (bench.session.SampleSpec).
    """

    question: str
    reference: str
    base: list[dict[str, Any]]
    axis: list[Axis] = []
    name: str = "study"
    paper: str = ""
    cost: str = ""
    corpus: list[str] = []
    tasks: list[str] | None = None
    k: int = 4
    limit: int | None = None
    seed: int = 0
    slots: int | None = None
    max_batch: int = 64
    thinking: bool | None = None
    JOB: ClassVar[tuple[str, ...]] = ("tasks", "k", "limit", "seed", "slots", "max_batch", "thinking")


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One way to decode. ``at``: its values on the axes. ``reference``: name of the point that it is held against.

    ``slots``: its budget; ``budget``: the same as a share of each task's loose one; both None: the loose budget itself.
    ``draft_vocab``: drafts come from so many tokens; None: the model as it is.
    """

    name: str
    base: str
    model: str
    method: Method
    sampling: Sampling
    k: int
    slots: int | None = None
    budget: float | None = None
    draft_vocab: int | None = None
    at: dict[str, Value] = {}
    reference: str | None = None

    @property
    def decoding(self) -> tuple[Any, ...]:
        """Points that are alike in this decode the same way, up to budget and number of samples."""
        return self.model, self.draft_vocab, plain_method(self.method), self.sampling

    def slots_of(self, loose: int) -> int:
        """The budget on a task whose loose one is given."""
        if self.budget is not None:
            return max(1, int(self.budget * loose + 1e-9))
        return self.slots or loose


def plain_method(method: Method) -> Method:
    """A method with the settings that it does not use at their defaults."""
    used = {key: getattr(method, key) for key, owners in METHOD_KEYS.items() if method.name in owners}
    return Method(method.name, **used)


def read(raw: Mapping[str, Any], name: str = "") -> Study:
    """A study from plain values. Raises BadInput naming what is unknown, missing or of another type."""
    try:
        study = msgspec.convert({"name": name or "study", **raw}, Study)
    except msgspec.ValidationError as e:
        known = ", ".join(Study.__struct_fields__)
        raise BadInput(f"study {name or raw.get('name', '')!r}: {e}; a study's keys are {known}") from e
    if not study.question.strip():
        raise BadInput(f"study {study.name!r}: question is empty; say in one sentence what the study asks")
    if not study.base:
        raise BadInput(f"study {study.name!r}: base is empty; write at least one [[base]] table")
    return study


def expand(study: Study) -> list[Point]:
    """All points of a study in order, each with its reference.

    Raises:
        BadInput: an unknown key, a value out of its range, a key without effect, the same point twice, a reference that
            is none or several points.
    """
    where = f"study {study.name!r}"
    bases = [str(b.get("name", "")) for b in study.base]
    _check_axes(study, bases, where)
    points = [p for b in study.base for p in _points_of(study, b, where)]
    if len(points) > MOST_POINTS:
        raise BadInput(f"{where}: {len(points)} points; at most {MOST_POINTS}, so take values off an axis")
    names: dict[str, Point] = {}
    same: dict[Any, str] = {}
    for p in points:
        if p.name in names:
            raise BadInput(f"{where}: two points are named {p.name!r}; give each base its own name")
        names[p.name] = p
        key = (*p.decoding, p.slots, p.budget, p.k)
        if (other := same.setdefault(key, p.name)) != p.name:
            raise BadInput(f"{where}: points {other!r} and {p.name!r} are the same; take one of them out")
    own = {str(b["name"]): str(b.get("reference", study.reference)) for b in study.base}
    return [msgspec.structs.replace(p, reference=_reference(p, own[p.base], points, where)) for p in points]


def _check_axes(study: Study, bases: Sequence[str], where: str) -> None:
    seen: set[tuple[str, str]] = set()
    for axis in study.axis:
        at = f"{where}, axis {axis.key!r}"
        if axis.key not in KEYS:
            raise BadInput(f"{where}: unknown key {axis.key!r} of an axis; keys are {', '.join(KEYS)}")
        if not axis.values:
            raise BadInput(f"{at}: no values; name at least one, or take the axis out")
        for value in axis.values:
            if axis.values.count(value) > 1:
                raise BadInput(f"{at}: value {value!r} stands there twice; name each once")
        for name in axis.only:
            if name not in bases:
                raise BadInput(f"{at}: only names {name!r}, which is no base; they are {', '.join(bases)}")
        for name in axis.only or bases:
            if (axis.key, name) in seen:
                raise BadInput(f"{at}: base {name!r} has it from another axis too; put all values into one axis")
            seen.add((axis.key, name))
            if axis.key in next(b for b in study.base if b.get("name") == name):
                raise BadInput(
                    f"{at}: base {name!r} sets {axis.key} itself; take it out there, or name other bases in only"
                )


def _points_of(study: Study, base: Mapping[str, Any], where: str) -> Iterator[Point]:
    name = base.get("name")
    if not isinstance(name, str) or not name:
        raise BadInput(f"{where}: a [[base]] has name {name!r}; every base needs a name of its own")
    for key in base:
        if key not in (*KEYS, "name", "reference"):
            raise BadInput(f"{where}, base {name!r}: unknown key {key!r}; keys are name, reference, {', '.join(KEYS)}")
    axes = [a for a in study.axis if not a.only or name in a.only]
    for values in itertools.product(*(a.values for a in axes)):
        at = {a.key: v for a, v in zip(axes, values, strict=True)}
        label = " ".join([name, *(f"{key}={word(v)}" for key, v in at.items())])
        yield _point({"k": study.k, **base, **at}, name, label, at, f"{where}, point {label!r}")


def word(value: Value) -> str:
    """A value of an axis as people write it; a path by its last part."""
    return f"{value:g}" if isinstance(value, int | float) else value if value.startswith("lab/") else Path(value).name


def _point(given: dict[str, Any], base: str, name: str, at: dict[str, Value], where: str) -> Point:
    for key in ("model", "method"):
        if not isinstance(given.get(key), str):
            raise BadInput(f"{where}: {key} is {given.get(key)!r}; it must be a text, in the base or on an axis")
    method = given["method"]
    if method not in METHODS:
        raise BadInput(f"{where}: unknown method {method!r}; methods are {', '.join(METHODS)}")
    for key, owners in OWNERS.items():
        if key in given and method not in owners:
            raise BadInput(
                f"{where}: {key} {given[key]!r} has no effect on method {method}; it belongs to {', '.join(owners)}; "
                "leave it out (only of an axis says for which bases it is)"
            )
    try:
        return Point(
            name=name, base=base, model=given["model"], at=at, k=_count(given, "k") or 1, slots=_count(given, "slots"),
            method=msgspec.convert({"name": method, **{k: given[k] for k in METHOD_KEYS if k in given}}, Method),
            sampling=msgspec.convert({k: given[k] for k in SAMPLING_KEYS if k in given}, Sampling),
            budget=_share(given),
            draft_vocab=None if given.get("draft_vocab") == FULL else _count(given, "draft_vocab"),
        )  # fmt: skip
    except (msgspec.ValidationError, BadInput) as e:
        raise BadInput(f"{where}: {e}") from e


def _count(given: Mapping[str, Any], key: str) -> int | None:
    value = given.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        more = f", or {FULL!r}" if key == "draft_vocab" else ""
        raise BadInput(f"{key} {value!r} must be a whole number of at least 1{more}")
    return value


def _share(given: Mapping[str, Any]) -> float | None:
    value = given.get("budget")
    if value is None:
        return None
    if "slots" in given:
        raise BadInput(f"budget {value!r} and slots {given['slots']!r} exclude each other; give one of them")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise BadInput(f"budget {value!r} must lie in (0, 1], a share of each task's loose budget")
    return float(value)


def _reference(point: Point, wanted: str, points: Sequence[Point], where: str) -> str | None:
    """Name of the point that ``point`` is held against; None where it is that one itself."""
    found = [p for p in points if p.name == wanted]
    if not found:
        of = [p for p in points if p.base == wanted]
        if not of:
            known = ", ".join(dict.fromkeys(p.base for p in points))
            raise BadInput(f"{where}: reference {wanted!r} is no base and no point; bases are {known}")
        found = [p for p in of if all(point.at.get(key, value) == value for key, value in p.at.items())]
    if len(found) != 1:
        which = ", ".join(repr(p.name) for p in found) or "none"
        raise BadInput(
            f"{where}: reference {wanted!r} of point {point.name!r} must be one point, it is {which}; name a point, "
            "or a base that has no further axis"
        )
    return None if found[0].name == point.name else found[0].name


def check_models(points: Sequence[Point], family: str | None = None, where: str = "study") -> None:
    """Whether each point's model is there and can do it, as far as its config.json says.

    Raises:
        BadInput: pairs of a model without a compressor, the other way round, a draft vocabulary out of range.
        BadModel: no such model.
    """
    for p in points:
        folder = Path(resolve_model(p.model, family))
        config = _config(folder)
        is_pipo, vocab = config.get("compressor_type") is not None, config.get("vocab_size")
        head = f"{where}, point {p.name!r}"
        if p.method.pairs and not is_pipo:
            raise BadInput(f"{head}: method {p.method.name} needs a PIPO model, {p.model} has no compressor; name one")
        if is_pipo and not p.method.pairs:
            raise BadInput(
                f"{head}: {p.model} is a PIPO model, method {p.method.name} is not for it; use pipo or random"
            )
        if p.draft_vocab and isinstance(vocab, int) and not 2 <= p.draft_vocab < vocab:
            raise BadInput(
                f"{head}: draft_vocab {p.draft_vocab} must lie in [2, {vocab - 1}], {p.model} has {vocab} tokens; "
                f"{FULL!r} is the model as it is"
            )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
        return {**raw.get("text_config", {}), **raw}
    except FileNotFoundError as e:
        raise BadModel(f"{folder} has no config.json; name a model folder, or see `pipo models`") from e
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise BadModel(f"{path} is not a model's config ({e}); copy it again") from e
