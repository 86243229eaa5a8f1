"""The job ``ablate-lossiness``: how far each method's next-token distributions are from regular decoding's.

The texts are samples of regular decoding; every method reads the same ones (ablations/lossiness_walk.py), so at each
place all methods have the same text before them. Two references: regular decoding of the base model, and the PIPO model
at threshold 1, its own regular twin: what is between them is training and compression, what is between the twin and a
lower threshold is decoding. Regular decoding of another model (``others``) shows how far mere training moves.

Samples lie in records.jsonl, distances in distances.jsonl, a text at a time: what is there is never computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ablations import lossiness_distances as far
from ablations import lossiness_walk as walk
from ablations.looks import append, encoded, on_torch_only, read, samples
from ablations.lossiness_distances import DistanceRecord
from ablations.lossiness_summary import summarise
from ablations.study import load_study
from bench.loading import read_spec
from bench.record import Variant
from bench.session import SampleSpec, Session
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext

KIND = "ablate-lossiness"


class LossinessSpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``ablate-lossiness``, defaults in studies/lossiness.toml.

    ``base``: the regular model whose samples are the texts, and that mtp and eagle decode. ``others``: further regular
    models. ``models``: PIPO models, each at all ``thresholds``. ``match``: threshold whose kept share on these texts
    the coin flip has; None leaves the coin out. ``depth``: EAGLE's. ``places``: most tokens of a text that are read.
    """

    base: str
    others: list[str]
    models: list[str]
    thresholds: list[float]
    match: float | None = 0.95
    depth: int = 3
    places: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [self.base, *self.others, *self.models]
        if not self.models or not self.thresholds:
            raise BadInput("lossiness needs at least one PIPO model and one threshold")
        if len(set(named)) < len(named) or len(set(self.thresholds)) < len(self.thresholds):
            raise BadInput(f"models {named}, thresholds {self.thresholds}: name each once")
        if self.match is not None and self.match not in self.thresholds:
            raise BadInput(f"match {self.match} is none of the thresholds {self.thresholds}; add it, or leave it out")
        if self.places is not None and self.places < 2:
            raise BadInput(f"places {self.places} must be at least 2, a pair; leave it out for whole texts")
        on_torch_only(self, "lossiness")

    def variants(self) -> list[Variant]:
        """All that is measured; the first one makes the texts."""
        regular = [Variant(f"regular of {model}", model, Method("regular")) for model in self.others]
        pipo = [
            Variant(f"pipo {t:g} of {model}", model, Method("pipo", threshold=t))
            for model in self.models
            for t in self.thresholds
        ]
        own = (Method("regular"), Method("mtp"), Method("eagle", depth=self.depth))
        return [*(Variant(m.name, self.base, m) for m in own), *regular, *pipo]


def label(method: Method) -> str:
    """What a method is called in records: its name, for pipo with the threshold."""
    return f"pipo {method.threshold:g}" if method.name == "pipo" else method.name


class Text(NamedTuple):
    """One sample of regular decoding: where it comes from, its prompt's ids and its own."""

    task: str
    item: str
    sample: int
    prompt: tuple[int, ...]
    ids: list[int]
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.item, self.sample


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Run the study; returns the summary (schema in ablations/lossiness_summary.py), which lies in summary.json too."""
    settings = read_spec({**load_study("lossiness"), **spec}, LossinessSpec, KIND)
    session = Session(KIND, settings, settings.variants(), ctx)
    _check_vocabularies(session, settings)
    count = sum(len(t.items) for t in session.tasks) * settings.k
    coins = settings.models if settings.match is not None else []
    session.progress.total = count * (2 + len(coins))
    texts = list(_texts(session, settings))
    path = ctx.folder / "distances.jsonl"
    done = {(r.method, r.model, r.task, r.item, r.sample) for r in read(path, DistanceRecord)}
    for text in texts:
        if not all((label(v.method), v.model, *text.key) in done for v in settings.variants()[1:]):
            measured = _measure(session, settings, text)  # a kill may have left some of them
            append(path, [r for r in measured if (r.method, r.model, *text.key) not in done])
        _tick(session, "all methods", text)
    for model in coins:
        rate = kept_share(read(path, DistanceRecord), model, f"pipo {settings.match:g}")
        for text in texts:
            if ("random", model, *text.key) not in done:
                append(path, [_coin(session, settings, text, model, rate)])
            _tick(session, f"coin flip, {model}", text)
    return session.finish(summarise(session, settings, read(path, DistanceRecord)))


def _tick(session: Session, note: str, text: Text) -> None:
    session.ctx.check()
    session.progress.add(1, len(text.ids), note)


def _model(session: Session, name: str) -> Any:
    return session.loaded[name, ""].engine.model


def _check_vocabularies(session: Session, settings: LossinessSpec) -> None:
    size = _model(session, settings.base).config.vocab_size
    for name in (*settings.others, *settings.models):
        own = _model(session, name).config.vocab_size
        if own != size:
            raise BadInput(
                f"{name} has {own} tokens, {settings.base} has {size}; distances need one vocabulary: name the regular "
                "model that the PIPO model was trained from"
            )


def _texts(session: Session, settings: LossinessSpec) -> Iterator[Text]:
    """The base model's samples, generated where they are not there yet; failed ones left out."""
    variant = session.variants[0]
    for task in session.tasks:
        session.generate(variant, task)
    prompts = encoded(session, settings.base)
    for key, found in samples(session, variant.name).items():
        for r in found:
            yield Text(*key, r.sample, prompts[key], r.places[: settings.places], r.seed)


def _record(text: Text, method: str, model: str, fields: dict[str, Any]) -> DistanceRecord:
    return DistanceRecord(method=method, model=model, task=text.task, item=text.item, sample=text.sample, **fields)


def _measure(session: Session, settings: LossinessSpec, text: Text) -> list[DistanceRecord]:
    """Every method but the coin over one text."""
    base = _model(session, settings.base)
    draw = walk.Drawing(settings.sampling, text.ids, base.config.vocab_size)
    plain = walk.read_plain(base, text.prompt, text.ids)
    reference = walk.regular(plain, draw)
    out = [
        _record(text, "mtp", settings.base, far.distances(walk.mtp(base, plain, draw), reference)),
        _record(text, "eagle", settings.base, far.distances(walk.eagle(base, plain, draw, settings.depth), reference)),
    ]
    for name in settings.others:
        other = walk.regular(walk.read_plain(_model(session, name), text.prompt, text.ids), draw)
        places = [walk.Place(walk.FIRST, p) for p in other]
        out.append(_record(text, "regular", name, far.distances(places, reference)))
    for name in settings.models:
        model = _model(session, name)
        twin_places = _walk(model, text, settings, Method("pipo", threshold=1.0))
        twin = [x.p for x in twin_places]
        for t in settings.thresholds:
            session.ctx.check()
            places = twin_places if t == 1 else _walk(model, text, settings, Method("pipo", threshold=t))
            out.append(_record(text, f"pipo {t:g}", name, far.distances(places, reference, twin)))
    return out


def _walk(model: Any, text: Text, settings: LossinessSpec, method: Method) -> list[walk.Place]:
    return walk.pairs(model, text.prompt, text.ids, method, settings.sampling, text.seed)


def _coin(session: Session, settings: LossinessSpec, text: Text, name: str, rate: float) -> DistanceRecord:
    """The coin flip over one text."""
    base, model = _model(session, settings.base), _model(session, name)
    draw = walk.Drawing(settings.sampling, text.ids, base.config.vocab_size)
    reference = walk.regular(walk.read_plain(base, text.prompt, text.ids), draw)
    twin = [x.p for x in _walk(model, text, settings, Method("pipo", threshold=1.0))]
    places = _walk(model, text, settings, Method("random", keep_rate=rate))
    return _record(text, "random", name, far.distances(places, reference, twin))


def kept_share(rows: list[DistanceRecord], model: str, method: str) -> float:
    """Share of the drafts that a method kept on these texts; 0 where none was offered."""
    sources = [s for r in rows if (r.model, r.method) == (model, method) for s in r.sources if s in walk.SECOND]
    return sum(s == walk.DRAFT for s in sources) / len(sources) if sources else 0.0
