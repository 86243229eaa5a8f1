"""From distances to rows: means over places with intervals clustered by item, differences, losslessness, calibration.

summary.json holds ``rows`` (method x model x task x kind of place), ``differences`` (paired, place by place),
``lossless`` (what the verified method's largest distance is), ``calibration`` (confidence against what a verifier would
accept) and ``definitions``. Distances are pooled over all places, so a long text weighs more; items are the clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ablations.looks import by_item, estimate
from ablations.lossiness_distances import DistanceRecord
from ablations.lossiness_walk import AFTER_PAD, DRAFT, FIRST, SECOND, VERIFIED
from bench.stats import INTERVALS
from bench.summary import OVERALL, head_of

if TYPE_CHECKING:
    from ablations.lossiness import LossinessSpec
    from bench.session import Session

PLACES: dict[str, tuple[str, ...]] = {
    "all": (FIRST, *SECOND, VERIFIED),
    "first": (FIRST,),
    "second": (*SECOND, VERIFIED),
    "draft": (DRAFT,),
    "after PAD": (AFTER_PAD,),
}
VALUES = ("tv", "kl_reference", "kl_method", "twin_tv", "twin_kl_reference", "twin_kl_method")
DRAFTS = ("draft_tv", "accept", "accept_reference")  # -1 where no draft is offered
LOSSLESS = 1e-5  # what rounding in float32 may leave
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0)  # of confidence: most drafts are near 1
DEFINITIONS = {
    "tv": "total variation to regular decoding of the base model on the same text: share of draws that must differ",
    "kl_reference": "KL(regular || method), nats, over the places where it is finite",
    "kl_method": "KL(method || regular), nats, over the places where it is finite",
    "twin_tv": "total variation to the same PIPO model at threshold 1",
    "draft_tv": "total variation between the draft and what the model itself would say after a PAD at that place",
    "accept": "chance that a verifier over that same model would accept the draft, 1 - draft_tv",
    "accept_reference": "chance that regular decoding of the base model as verifier would accept the draft",
    "first": "places that the backbone fills and no draft is offered for",
    "second": "places that a draft is offered for; rejected, they are filled by the backbone after the PAD",
    "draft": "second places whose draft was kept",
    "after PAD": "second places whose draft was rejected",
    "mixed": "the coin's second places: keep rate times draft, the rest what follows a PAD",
}  # fmt: skip


def summarise(session: Session, settings: LossinessSpec, rows: list[DistanceRecord]) -> dict[str, Any]:
    """The summary of a study; ``rows``: all its distances."""
    order = [(t.name, i.id) for t in session.tasks for i in t.items]
    rank = {key: i for i, key in enumerate(order)}
    rows = sorted(rows, key=lambda r: (rank[r.task, r.item], r.sample))
    methods = list(dict.fromkeys((r.method, r.model) for r in rows))
    found = {key: [r for r in rows if (r.method, r.model) == key] for key in methods}
    tasks = [t.name for t in session.tasks]
    head = head_of(session.run, session.records(), settings.k, session.pass_at)
    return {
        **head,
        "interval": f"{INTERVALS.split(';')[0]}",
        "base": settings.base,
        "others": settings.others,
        "models": settings.models,
        "thresholds": settings.thresholds,
        "match": settings.match,
        "texts": len({(r.task, r.item, r.sample) for r in rows}),
        "rows": [
            row
            for (method, model), records in found.items()
            for task in ([OVERALL, *tasks] if len(tasks) > 1 else tasks)
            for row in _rows(method, model, task, [r for r in records if task in (OVERALL, r.task)])
        ],
        "differences": _differences(settings, found),
        "lossless": _lossless(found.get(("eagle", settings.base), [])),
        "calibration": [{"model": m, **row} for m in settings.models for row in _calibration(found, m, settings.match)],
        "definitions": DEFINITIONS,
    }


def _rows(method: str, model: str, task: str, records: list[DistanceRecord]) -> list[dict[str, Any]]:
    out = []
    total = sum(len(r.sources) for r in records)
    for place, sources in PLACES.items():
        count = sum(s in sources for r in records for s in r.sources)
        if not count or (place in ("draft", "after PAD") and method in ("mtp", "eagle", "random")):
            continue
        row: dict[str, Any] = {"method": method, "model": model, "task": task, "place": place, "places": count,
                               "share": count / total}  # fmt: skip
        for name in VALUES:
            row[name] = estimate(_at(records, name, sources))
        for name in ("kl_reference", "kl_method"):
            lost = sum(
                v is None for r in records for s, v in zip(r.sources, getattr(r, name), strict=True) if s in sources
            )
            row[f"{name}_infinite"] = lost / count
        for name in DRAFTS:
            row[name] = estimate(_at(records, name, sources, least=0.0))
        out.append(row)
    return out


def _at(
    records: Sequence[DistanceRecord], name: str, sources: tuple[str, ...], least: float = -1e300
) -> dict[str, list[float]]:
    """Values of a field at the places of some sources, by item; without those that are None or below ``least``."""
    return by_item(
        (
            f"{r.task}/{r.item}",
            [
                v
                for s, v in zip(r.sources, getattr(r, name), strict=False)
                if s in sources and v is not None and v >= least
            ],
        )
        for r in records
    )


def _differences(settings: LossinessSpec, found: dict[tuple[str, str], list[DistanceRecord]]) -> list[dict[str, Any]]:
    """Total variation of one method minus that of another at the same places of the same texts."""
    wanted: list[tuple[tuple[str, str], tuple[str, str], str]] = []
    for model in settings.models:
        for other in settings.others:
            wanted.append((("pipo 1", model), ("regular", other), "what PIPO costs beyond training on"))
        for t in settings.thresholds:
            if t != 1:
                wanted.append(((f"pipo {t:g}", model), ("pipo 1", model), "what keeping drafts adds"))
        if settings.match is not None:
            gate = f"pipo {settings.match:g}"
            wanted.append((("random", model), (gate, model), "what the gate is worth over a coin"))
            wanted.append(((gate, model), ("mtp", settings.base), "against unverified drafts of the base model"))
    for other in settings.models[1:]:
        wanted += [
            ((f"pipo {t:g}", settings.models[0]), (f"pipo {t:g}", other), "between the models")
            for t in settings.thresholds
        ]
    out = []
    for one, two, says in wanted:
        gap = _gap(found.get(one, []), found.get(two, []), lambda r: r.tv)
        if gap:
            names = {"method": one[0], "model": one[1], "reference": two[0], "reference_model": two[1]}
            out.append({**names, "metric": "tv", "says": says, **gap})
    return out + [row for (method, model), records in found.items() for row in _rejected(method, model, records)]


def _rejected(method: str, model: str, records: list[DistanceRecord]) -> list[dict[str, Any]]:
    """What came out where a draft was rejected minus the rejected draft, at the same places; nothing elsewhere."""
    gap = estimate(
        by_item(
            (
                f"{r.task}/{r.item}",
                [
                    tv - (1 - accept)
                    for s, tv, accept in zip(r.sources, r.tv, r.accept_reference, strict=True)
                    if s == AFTER_PAD
                ],
            )
            for r in records
        )
    )
    if gap is None:
        return []
    names = {"method": method, "model": model, "reference": "its rejected drafts", "reference_model": model}
    return [{**names, "metric": "tv", "says": "what rejecting changes where it rejects", **gap}]


def _gap(
    ours: list[DistanceRecord], theirs: list[DistanceRecord], value: Callable[[DistanceRecord], list[float]]
) -> dict[str, Any] | None:
    other = {(r.task, r.item, r.sample): value(r) for r in theirs}
    pairs = [(r, other[r.task, r.item, r.sample]) for r in ours if (r.task, r.item, r.sample) in other]
    return estimate(
        by_item((f"{r.task}/{r.item}", [a - b for a, b in zip(value(r), v, strict=True)]) for r, v in pairs)
    )


def _lossless(records: list[DistanceRecord]) -> dict[str, Any]:
    """The verified method's largest distance over all places, and whether it is rounding alone."""
    most = max((v for r in records for v in r.tv), default=0.0)
    verified = sum(s == VERIFIED for r in records for s in r.sources)
    return {"method": "eagle", "places": verified, "largest_tv": most, "limit": LOSSLESS, "holds": most <= LOSSLESS}


def _calibration(
    found: dict[tuple[str, str], list[DistanceRecord]], model: str, match: float | None
) -> list[dict[str, Any]]:
    """Bins of confidence: kept and rejected drafts, and the mean chance that a verifier would accept them."""
    records = found.get((f"pipo {match:g}", model), []) if match is not None else []
    out = []
    for low, high in pairwise(EDGES):
        at = [
            [i for i, c in enumerate(r.confidence) if r.sources[i] in SECOND and low <= c and (c < high or high == 1)]
            for r in records
        ]
        chosen = list(zip(records, at, strict=True))
        names = [(f"{r.task}/{r.item}", r, where) for r, where in chosen]
        out.append({
            "low": low, "high": high,
            "drafts": sum(map(len, at)),
            "kept": sum(r.sources[i] == DRAFT for r, where in chosen for i in where),
            "confidence": estimate(by_item((n, [r.confidence[i] for i in where]) for n, r, where in names)),
            "accept": estimate(by_item((n, [r.accept[i] for i in where]) for n, r, where in names)),
            "accept_reference": estimate(by_item((n, [r.accept_reference[i] for i in where]) for n, r, where in names)),
        })  # fmt: skip
    return out
