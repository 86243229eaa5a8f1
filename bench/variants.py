"""Variants: a model and a method with its settings, under a name. Defaults, and how people write them. Torch-free."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from bench.record import Variant
from pipo.engine.types import METHODS, Method
from pipo.errors import BadInput

DEFAULT_VARIANTS: tuple[Variant, ...] = (
    Variant("regular", "lab/base", Method("regular")),
    Variant("control", "lab/control", Method("regular")),
    Variant("mtp", "lab/base", Method("mtp")),
    Variant("eagle", "lab/base", Method("eagle", depth=3)),
    Variant("pipo-sft", "lab/pipo-sft", Method("pipo", threshold=0.95)),
    Variant("pipo-opd", "lab/pipo-opd", Method("pipo", threshold=0.95)),
)
LATENCY_VARIANTS = tuple(v for v in DEFAULT_VARIANTS if v.name in ("regular", "mtp", "eagle", "pipo-opd"))
FORM = "NAME=MODEL:METHOD[:KEY=VALUE,...], e.g. mine=lab/pipo-opd:pipo:threshold=0.8"


def parse_variant(text: str) -> Variant:
    """A variant from ``NAME=MODEL:METHOD[:KEY=VALUE,...]``; the model may be a path.

    Raises:
        BadInput: another form, an unknown method or setting, a value out of its range.
    """
    name, equals, rest = text.partition("=")
    parts = rest.split(":")
    settings = parts.pop() if len(parts) > 2 and "=" in parts[-1] else ""
    if not (name and equals and len(parts) >= 2 and all(parts)):
        raise BadInput(f"variant {text!r} must read {FORM}")
    method: dict[str, Any] = {"name": parts.pop()}
    if method["name"] not in METHODS:
        raise BadInput(f"unknown method {method['name']!r} in variant {text!r}; methods are {', '.join(METHODS)}")
    for pair in settings.split(",") if settings else ():
        key, _, value = pair.partition("=")
        method[key] = value
    return to_variant({"name": name, "model": ":".join(parts), "method": method}, strict=False)


def read_variants(path: Path) -> list[Variant]:
    """Variants from a TOML file: a ``[[variant]]`` table each, with name, model and method = {name, ...}."""
    try:
        tables = tomllib.loads(path.read_text()).get("variant", [])
    except OSError as e:
        raise BadInput(f"{path} cannot be read ({e.strerror}); name a TOML file with [[variant]] tables") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadInput(f"{path} is not TOML ({e})") from e
    if not isinstance(tables, list) or not tables:
        raise BadInput(f"{path} has no [[variant]] table; write one a variant, with name, model and method")
    return [to_variant(t) for t in tables]


def to_variant(value: Any, *, strict: bool = True) -> Variant:
    """A variant from plain values (or a Variant). Raises BadInput naming what is unknown, missing or out of range."""
    if isinstance(value, Variant):
        return value
    try:
        return msgspec.convert(value, Variant, strict=strict)
    except msgspec.ValidationError as e:
        raise BadInput(f"variant {value!r}: {e}; a variant has name, model, method {{name, threshold, ...}}") from e


def resolve_variants(given: list[Any] | None, default: tuple[Variant, ...] = DEFAULT_VARIANTS) -> list[Variant]:
    """All variants of a spec: structs, dicts, ``NAME=...`` strings or paths of TOML files; None means the default.

    Raises:
        BadInput: none at all, or two of one name.
    """
    variants: list[Variant] = []
    for value in default if given is None else given:
        if isinstance(value, str):
            variants += read_variants(Path(value)) if value.endswith(".toml") else [parse_variant(value)]
        else:
            variants.append(to_variant(value))
    names = [v.name for v in variants]
    if not names:
        raise BadInput("no variants; name at least one, or leave them out for the default six")
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two variants are named {name!r}; give each its own name")
    return variants
