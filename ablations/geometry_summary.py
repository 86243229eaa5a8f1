"""From quantities of pairs to rows: means with intervals clustered by prompt, differences, latent spaces, PADs.

summary.json holds ``rows`` (subject x quantity), ``differences`` (to the first model, pair by pair), ``spaces`` (one
row a subject), ``explained`` and ``points`` (principal components), ``pads`` (ablations/geometry_pads.py, one entry a
variant that samples) and ``definitions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ablations import geometry_measures as measures
from ablations import geometry_space as spaces
from ablations.geometry_pads import DraftRecord, Slot, behaviour, slots, token_kind
from ablations.looks import by_item, estimate
from bench.record import SampleRecord, each, read_run
from bench.stats import INTERVALS
from bench.summary import head_of
from pipo.errors import BadInput, PipoError
from pipo.lab import resolve_model

if TYPE_CHECKING:
    from ablations.geometry import GeometrySpec, PairRecord, Subject
    from bench.session import Session


def summarise(
    session: Session,
    settings: GeometrySpec,
    subjects: Sequence[Subject],
    measured: Sequence[PairRecord],
    drafts: Sequence[DraftRecord],
) -> dict[str, Any]:
    """The summary of a study."""
    order = {(t.name, i.id): n for n, (t, i) in enumerate((t, i) for t in session.tasks for i in t.items)}
    measured = sorted(measured, key=lambda r: order[r.task, r.item])
    found = {s.name: [r for r in measured if r.subject == s.name] for s in subjects}
    first = settings.models[0]
    looked = {s.name: _space(s, found[s.name]) for s in subjects}
    head = head_of(session.run, session.records(), settings.k, session.pass_at)
    return {
        **head,
        "interval": f"{INTERVALS.split(';')[0]}; latent spaces: delete-one-prompt jackknife",
        "source": first,
        "subjects": [s.name for s in subjects],
        "models": settings.models,
        "threshold": settings.threshold,
        "prompts": len(found[first]),
        "pairs": sum(len(r.pairs) for r in found[first]),
        "different_pairs": len({tuple(p) for r in found[first] for p in r.pairs}),
        "rows": [
            {"subject": name, "trained": name in settings.models, "quantity": quantity, "value": value}
            for name, records in found.items()
            for quantity in measures.QUANTITIES
            if (value := estimate(_values(records, quantity)))
        ],
        "differences": [
            {"subject": name, "reference": first, "quantity": quantity, **gap}
            for name, records in found.items()
            if name != first
            for quantity in measures.QUANTITIES
            if (gap := _gap(records, found[first], quantity))
        ],
        "spaces": [
            {"subject": name, "trained": name in settings.models, **estimates}
            for name, (estimates, _, _) in looked.items()
        ],
        "explained": [
            {"subject": name, "component": i + 1, "share": share}
            for name, (_, shares, _) in looked.items()
            for i, share in enumerate(shares)
        ],
        "points": [{"subject": name, **point} for name, (_, _, points) in looked.items() for point in points],
        "pads": _pads(session, settings, drafts),
        "definitions": measures.QUANTITIES | spaces.QUANTITIES,
    }


def _values(records: Sequence[PairRecord], quantity: str) -> dict[str, list[float]]:
    return by_item((f"{r.task}/{r.item}", [v for v in r.values[quantity] if v is not None]) for r in records)


def _gap(ours: Sequence[PairRecord], theirs: Sequence[PairRecord], quantity: str) -> dict[str, Any] | None:
    other = {(r.task, r.item): r.values[quantity] for r in theirs}
    return estimate(
        by_item(
            (
                f"{r.task}/{r.item}",
                [
                    a - b
                    for a, b in zip(r.values[quantity], other[r.task, r.item], strict=True)
                    if a is not None and b is not None
                ],
            )
            for r in ours
        )
    )


def _space(s: Subject, records: Sequence[PairRecord]) -> Any:
    """Latent space of a subject over the pairs of its records, computed anew: latents are too many to keep."""
    c, table = measures.exact(s.compressor), s.table_VH.detach().cpu().double()
    real, pad, summed = [], [], []
    with torch.no_grad():
        p = table[s.pad]
        for r in records:
            ids = torch.tensor(r.pairs)
            a, b = table[ids[:, 0]], table[ids[:, 1]]
            real.append(measures.fold(c, a, b))
            pad.append(measures.fold(c, a, p.expand_as(a)))
            summed.append(torch.cat([a + b, a + p]))
    return spaces.space(real, pad, summed)


def _pads(session: Session, settings: GeometrySpec, drafts: Sequence[DraftRecord]) -> list[dict[str, Any]]:
    """PADs of this run's models, then of the other runs' pair methods."""
    chance = {(d.variant, d.task, d.item, d.sample): d.chance for d in drafts}
    out = []
    for variant in session.variants:
        made = [r for r in session.records() if isinstance(r, SampleRecord) and r.variant == variant.name]
        made.sort(key=lambda r: (r.task, r.item, r.sample))
        found = [slots(r, chance.get((variant.name, r.task, r.item, r.sample))) for r in made]
        out.append(_entry("", variant.name, variant.model, settings.family, found))
    for folder in settings.runs:
        pairs = [v for v in read_run(Path(folder)).variants if v.method.pairs]
        by_variant: dict[str, list[list[Slot]]] = {v.name: [] for v in pairs}
        for r in each(Path(folder) / "records.jsonl"):
            if isinstance(r, SampleRecord) and r.variant in by_variant:
                by_variant[r.variant].append(slots(r))
        for variant in pairs:
            if by_variant[variant.name]:
                out.append(_entry(folder, variant.name, variant.model, settings.family, by_variant[variant.name]))
    return [entry for entry in out if entry["slots"]]


def _entry(run: str, variant: str, model: str, family: str | None, found: list[list[Slot]]) -> dict[str, Any]:
    from pipo.model import load_tokenizer

    tokenizer = load_tokenizer(resolve_model(model, family))
    special = set(tokenizer.all_special_ids)
    kinds: dict[int, str] = {}

    def kind_of(token: int) -> str:
        if token not in kinds:
            kinds[token] = token_kind(tokenizer.decode([token]), token in special)
        return kinds[token]

    return {"run": run, "variant": variant, "model": model, **behaviour([s for s in found if s], kind_of)}


def check_run(folder: str, family: str | None = None) -> None:
    """Raise BadInput where a folder holds no run with pairs, or what its summary needs is gone; before any work."""
    run = read_run(Path(folder))
    found = [v for v in run.variants if v.method.pairs]
    if not found:
        raise BadInput(f"{folder} holds no run of a pair method ({run.kind}); PADs come from pipo and random alone")
    if not (Path(folder) / "records.jsonl").is_file():
        raise BadInput(f"{folder} has no records.jsonl ({run.kind}); name a run of compare, eval or ablate threshold")
    for v in found:
        try:
            resolve_model(v.model, family)
        except PipoError as e:
            raise BadInput(f"{folder}: the tokenizer of {v.model} is needed to name tokens: {e}") from e
