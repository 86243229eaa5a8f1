"""The job ``ablate-geometry``: what the compressor does to real pairs (figures 8 to 12), and where PADs fall.

The first model writes the pairs: its own generations on the tasks, both tokens real, about ``pairs`` in all and as many
from each prompt as from any other. All models, and untrained compressors as controls, are measured on these very pairs;
each model's own generations show its PADs.

Samples lie in records.jsonl, quantities in pairs.jsonl (a line a compressor and prompt), what the model would have said
in place of each draft in drafts.jsonl (a line a sample): what is there is never computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast, get_args

import msgspec
import torch
from torch import Tensor

from ablations import geometry_measures as measures
from ablations.geometry_pads import DraftRecord
from ablations.geometry_summary import check_run, summarise
from ablations.looks import append, encoded, on_torch_only, read, samples, short
from ablations.lossiness_walk import Drawing, PairReader
from ablations.study import load_study
from bench.loading import read_spec
from bench.record import SampleRecord, Variant
from bench.session import SampleSpec, Session
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.model.modules import Compressor, Start

KIND = "ablate-geometry"
STARTS: tuple[str, ...] = get_args(Start)


class GeometrySpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``ablate-geometry``, defaults in studies/geometry.toml.

    ``models``: PIPO models; the first one's generations are the pairs. ``starts``: untrained compressors, of the first
    model's kind and over its embeddings. ``threshold``: of the gate that generates. ``pairs``: about how many pairs.
    ``runs``: folders of other runs (compare, eval, ablate-threshold) whose PADs are shown as well.
    """

    models: list[str]
    starts: list[str] = []
    threshold: float = 0.95
    pairs: int = 1400
    runs: list[str] = []

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.models or len(set(self.models)) < len(self.models):
            raise BadInput(f"models {self.models}: name at least one PIPO model, each once")
        if not set(self.starts) <= set(STARTS) or len(set(self.starts)) < len(self.starts):
            raise BadInput(f"starts {self.starts}: known are {', '.join(STARTS)}, each at most once")
        if self.pairs < 1:
            raise BadInput(f"pairs {self.pairs} must be at least 1")
        on_torch_only(self, "geometry")

    def variants(self) -> list[Variant]:
        """How each model writes."""
        return [Variant(m, m, Method("pipo", threshold=self.threshold)) for m in self.models]


class PairRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="pairs"):
    """One compressor on the pairs of one prompt: every quantity of geometry_measures, pair by pair."""

    subject: str
    task: str
    item: str
    pairs: list[tuple[int, int]]
    values: dict[str, list[float | None]]


class Subject(NamedTuple):
    """A compressor to look at, the embeddings that it folds [V, H], and PAD's id."""

    name: str
    compressor: Compressor
    table_VH: Tensor
    pad: int


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Run the study; returns the summary (schema in ablations/geometry_summary.py), which lies in summary.json too."""
    settings = read_spec({**load_study("geometry"), **spec}, GeometrySpec, KIND)
    for folder in settings.runs:
        check_run(folder, settings.family)
    session = Session(KIND, settings, settings.variants(), ctx)
    prompts = sum(len(t.items) for t in session.tasks)
    subjects = make_subjects(session, settings)
    session.progress.total = prompts * (2 * settings.k * len(settings.models) + len(subjects))
    for variant in session.variants:
        for task in session.tasks:
            session.generate(variant, task)
    pairs = choose(samples(session, settings.models[0]), settings.pairs)
    if not pairs:
        raise BadInput(
            f"{settings.models[0]} wrote no pair of two tokens at threshold {settings.threshold:g}; lower the "
            "threshold, or take more items"
        )
    if (found := sum(map(len, pairs.values()))) < settings.pairs:
        ctx.emit("log", text=f"{found} pairs instead of {settings.pairs}: more items, or a larger k, give more")
    measured = _measure(session, subjects, pairs)
    _would_have_said(session, settings)
    drafts = read(ctx.folder / "drafts.jsonl", DraftRecord)
    return session.finish(summarise(session, settings, subjects, measured, drafts))


def make_subjects(session: Session, settings: GeometrySpec) -> list[Subject]:
    """The models' compressors, then the untrained ones. Raises BadInput where two models have other vocabularies."""
    models = [session.loaded[name, ""].engine.model for name in settings.models]
    for name, model in zip(settings.models, models, strict=True):
        if model.config.vocab_size != models[0].config.vocab_size:
            raise BadInput(
                f"{name} has {model.config.vocab_size} tokens, {settings.models[0]} has {models[0].config.vocab_size}; "
                "pairs are token ids: models that are compared need one vocabulary"
            )
    out = [_subject(name, model, model.compressor) for name, model in zip(settings.models, models, strict=True)]
    for how in settings.starts:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            fresh = Compressor(models[0].config.hidden_size, models[0].compressor.kind)
            fresh.start(cast(Start, how))
        out.append(_subject(f"start {how}", models[0], fresh))
    return out


def _subject(name: str, model: Any, compressor: Compressor) -> Subject:
    table_VH: Tensor = model.backbone.embed_tokens.weight.detach()
    return Subject(name, compressor, table_VH, model.config.pad_token_id)


def choose(
    found: dict[tuple[str, str], list[SampleRecord]], wanted: int
) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Pairs of two real tokens by (task, item): the first ones of each prompt's samples, equally many where there are.

    What a short prompt lacks, the others give as far as they can.
    """
    have = {
        key: [
            (a, b) for r in group for a, b in zip(r.places[::2], r.places[1::2], strict=True) if r.pad_id not in (a, b)
        ]
        for key, group in found.items()
    }
    have = {key: value for key, value in have.items() if value}
    out: dict[tuple[str, str], list[tuple[int, int]]] = {}
    left = wanted
    for i, (key, value) in enumerate(sorted(have.items(), key=lambda pair: len(pair[1]))):
        out[key] = value[: -(-left // (len(have) - i))] if left > 0 else []
        left -= len(out[key])
    return {key: out[key] for key in have if out[key]}


def _measure(
    session: Session, subjects: Sequence[Subject], pairs: dict[tuple[str, str], list[tuple[int, int]]]
) -> list[PairRecord]:
    """Every quantity of every subject on every pair, a prompt at a time."""
    path = session.ctx.folder / "pairs.jsonl"
    done = {(r.subject, r.task, r.item) for r in read(path, PairRecord)}
    for s in subjects:
        for (task, item), chosen in pairs.items():
            session.ctx.check()
            if (s.name, task, item) not in done:
                found = measures.measure(s.compressor, s.table_VH, s.pad, chosen)
                values = {name: short(v) for name, v in found.items()}
                append(path, [PairRecord(subject=s.name, task=task, item=item, pairs=chosen, values=values)])
            session.progress.add(1, 0, f"compressor of {s.name}")
    return read(path, PairRecord)


def _would_have_said(session: Session, settings: GeometrySpec) -> None:
    """For each draft of each sample: the chance that the backbone says it after a PAD in its place."""
    path = session.ctx.folder / "drafts.jsonl"
    done = {(r.variant, r.task, r.item, r.sample) for r in read(path, DraftRecord)}
    for variant in session.variants:
        loaded = session.loaded[variant.model, ""]
        prompts = encoded(session, variant.model)
        for key, group in samples(session, variant.name).items():
            for r in group:
                session.ctx.check()
                if (variant.name, *key, r.sample) not in done:
                    found = short(chances(loaded.engine.model, prompts[key], r, settings))
                    append(path, [DraftRecord(variant=variant.name, task=key[0], item=key[1], sample=r.sample,
                                              chance=[v or 0.0 for v in found])])  # fmt: skip
                session.progress.add(1, 0, f"drafts of {variant.name}")


@torch.inference_mode()
def chances(model: Any, prompt: Sequence[int], r: SampleRecord, settings: SampleSpec) -> list[float]:
    """Of each draft of a sample: how likely the model makes it as next token where (first, PAD) stands instead."""
    reader, pad = PairReader(model, prompt), r.pad_id
    draw = Drawing(settings.sampling, [t for t in r.places if t != pad], model.config.vocab_size)
    out, at = [], 0
    for i, d in enumerate(r.drafts):
        first, second = r.places[2 * i : 2 * i + 2]
        if d.kept:
            other = reader.instead(first)
            reader.commit(first, second)
        else:
            reader.commit(first, second)
            other = reader.first()
        out.append(float(draw(other, at + 1)[d.id]))
        at += 1 + d.kept
    return out
