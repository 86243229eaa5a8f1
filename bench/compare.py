"""The jobs ``compare`` (variants on the same items with the same seeds) and ``eval`` (one model, one method)."""

from __future__ import annotations

from typing import Any

from bench import engines, loading
from bench.record import Record, Run, SampleRecord, Variant
from bench.session import SampleSpec, Session, fixed_order
from bench.summary import head_of, summarise
from bench.variants import DEFAULT_VARIANTS, resolve_variants
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext

REFERENCES = ("regular", "control")


class CompareSpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``compare``.

    ``variants``: {name, model, method} each, or ``NAME=MODEL:METHOD[:KEY=VALUE,...]``, or a TOML file; default the
    lab's six, as far as the engine can do them. ``references``: names that paired differences are taken to; default
    ``regular`` and ``control`` where present, else the first variant with regular decoding.
    """

    variants: list[Any] | None = None
    references: list[str] | None = None


class EvalSpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``eval``. ``method``: default by the model's kind (pipo or regular)."""

    model: str
    method: Method | None = None


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Compare variants; returns the summary (schema in bench/summary.py), which lies in summary.json too."""
    settings = loading.read_spec(spec, CompareSpec, "compare")
    default, left_out = engines.split_by_engine(DEFAULT_VARIANTS, settings)
    for text in left_out if settings.variants is None else ():
        ctx.emit("log", text=text)
    variants = resolve_variants(settings.variants, default)
    pick_references(settings.references, variants)
    return _measure("compare", settings, variants, ctx)


def run_eval(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Evaluate one model with one method; the summary is that of ``compare`` with one variant and no differences."""
    settings = loading.read_spec(spec, EvalSpec, "eval")
    method = settings.method or loading.default_method(settings, settings.model, ctx, settings.family)
    return _measure("eval", settings, [Variant(method.name, settings.model, method)], ctx)


def pick_references(asked: list[str] | None, variants: list[Variant]) -> list[str]:
    """Names of the variants that differences are taken to. Raises BadInput where one asked for is no variant."""
    names = [v.name for v in variants]
    for name in asked or ():
        if name not in names:
            raise BadInput(f"reference {name!r} is no variant of this comparison; they are {', '.join(names)}")
    if asked is not None:
        return asked
    usual = [name for name in REFERENCES if name in names]
    return usual or [v.name for v in variants if v.method.name == "regular"][:1]


def _measure(kind: str, settings: SampleSpec, variants: list[Variant], ctx: JobContext) -> dict[str, Any]:
    session = Session(kind, settings, variants, ctx)
    turns = [(v, t) for t in session.tasks for v in variants]
    if settings.on_sglang:  # a server a variant: all its tasks before the next one starts
        turns.sort(key=lambda turn: variants.index(turn[0]))
    for variant, task in turns:
        session.generate(variant, task)
    return session.finish(summary_of(session.run, session.records()))


def summary_of(run: Run, records: list[Record]) -> dict[str, Any]:
    """The summary of a comparison or evaluation by its header and records; its head alone while some are not judged."""
    references = pick_references(run.spec.get("references"), run.variants) if run.kind == "compare" else []
    k, pass_at = run.spec["k"], run.spec["pass_at"]
    if any(isinstance(r, SampleRecord) and not r.judged for r in records):
        return {**head_of(run, records, k, pass_at), "references": references}
    return summarise(run, fixed_order(records), k=k, pass_at=pass_at, references=references)
