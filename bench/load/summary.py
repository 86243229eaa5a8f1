"""Records of a load run -> summary.json. Torch-free.

Estimates and percentiles as in bench/summary.py and bench/load/numbers.py; times in seconds, from when a request was
due. A *times* is ``{"n", "mean", "p50": {"value", "low", "high"}, "p90", "p95", "p99"}`` or None::

    schema 1, kind, target ("torch" | "sglang" | url), mode ("rate" | "concurrency" | "trace" | "find_rate"), arrivals,
    burstiness, trace, speedup, scale, task, slo {name: seconds}, target_share, seed, variants, reference, interval,
    rows      [one a point: variant, model, method, mode, load (requests a second, at once, or a trace's speed-up),
               point, requests, ok, failed, timeout, cut (ended by a budget though it might have gone on), reasons
               [{"error", "count"}, at most 5], wall_s, offered_s (requests a second as due), achieved_s (answered, over
               all of wall_s), in_window_s (answered until the last was due, over that time), backlog (in flight then),
               most (in flight at the peak), tokens_s, prompt_tokens_s (None where not told), tokens, counted,
               ttft, first_pair, tpot, gap (all gaps between chunks), longest_gap (of each request), itl, e2e, queue,
               send_delay: times, of requests that ended well (send_delay: of all),
               together (correlation of neighbours' first tokens), tokens_per_chunk, kept_share,
               goodput {"share": estimate, "rate_s"} or None without slo,
               avg (estimate: right answers of all requests, a failed one is wrong) or None,
               energy {"source", "joules", "watts", "why", "joules_token"}, warnings,
               client {"own_share", "waited_share" (ready without a CPU), "lag_p99_s"}]
    series    [{"point", "variant", "t", "due", "ended", "in_flight", "ttft"}: every point over time, in 60 steps]
    ratios    [{"variant", "reference", "load", "point", "metric", "value", "low", "high", "n"}: median over requests of
               the reference's time over the variant's: above 1 is faster]
    found     [{"variant", "rate" (None: none of those tried), "share", "next" (the least rate tried that failed),
               "probes" [{"rate", "share": estimate, "met"}]}]: the search's answer
    client    [ClientRecord], notes [text]
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from bench import stats
from bench.load import metrics, overhead
from bench.load.numbers import percentiles, pooled, ratio, share, together
from bench.load.records import ClientRecord, LoadRecord, PointRecord, RequestRecord, points
from bench.load.spec import LoadSpec
from bench.record import Run, Variant

INTERVAL = (
    "95%: bootstrap over requests in blocks of neighbours, which share a queue; shares: that or Wilson's, the wider; "
    "ratios: median over the same requests; right answers: clustered by question"
)
BUCKETS = 60
TIED = (
    "first tokens of neighbours move together (correlation {:.2f}): intervals are too narrow, repeat with other seeds"
)
RATIOS = ("ttft", "first_pair", "tpot", "e2e")
Row = dict[str, Any]


def summarise(run: Run, settings: LoadSpec, records: Sequence[LoadRecord], found: list[Row], head: Row) -> Row:
    """The summary of all points there are."""
    clients = [r for r in records if isinstance(r, ClientRecord)]
    variants = {v.name: v for v in run.variants}
    order = list(variants)
    measured = sorted(
        points(records),
        key=lambda m: (order.index(m[0].variant) if m[0].mode == "probe" else 0, m[0].load, order.index(m[0].variant)),
    )
    rows = [row(p, requests, variants[p.variant], settings, clients) for p, requests in measured]
    reference = reference_of(run.variants)
    return {
        "schema": run.schema, "kind": "load", **head, "arrivals": settings.arrivals,
        "burstiness": settings.burstiness, "trace": settings.trace, "speedup": settings.speedup, "task": settings.task,
        "slo": settings.slo, "target_share": settings.target, "seed": settings.seed,
        "variants": msgspec.to_builtins(run.variants), "reference": reference, "interval": INTERVAL, "rows": rows,
        "ratios": ratios(measured, reference), "series": [x for p, requests in measured for x in series(p, requests)],
        "found": found, "client": msgspec.to_builtins(clients),
        "notes": list(dict.fromkeys(n for p, _ in measured for n in p.notes)),
    }  # fmt: skip


def reference_of(variants: Sequence[Variant]) -> str | None:
    """What others are compared with: the first regular variant, else the first; None where there is only one."""
    if len(variants) < 2:
        return None
    return next((v.name for v in variants if v.method.name == "regular"), variants[0].name)


def row(
    p: PointRecord, requests: list[RequestRecord], variant: Variant, settings: LoadSpec, clients: list[ClientRecord]
) -> Row:
    """One point."""
    good = [r for r in requests if r.status == "ok"]
    errors = Counter(r.error for r in requests if r.status != "ok")
    times = _times(good)
    medians = {name: (times[name] or {}).get("p50") for name in ("ttft", "gap")}
    plain = {name: None if m is None else m["value"] for name, m in medians.items()}
    client = next((c for c in clients if (c.side == "engine") == (p.own_s is not None)), None)
    offered, tied = sum(r.offered for r in good), together([r.first_s for r in good if r.first_s > 0])
    return {
        "variant": p.variant, "model": variant.model, "method": msgspec.to_builtins(variant.method), "mode": p.mode,
        "load": p.load, "point": p.point, "requests": len(requests), "ok": len(good),
        "failed": sum(r.status == "failed" for r in requests), "timeout": sum(r.status == "timeout" for r in requests),
        "cut": sum(r.finish in ("tokens", "slots") for r in good) if settings.task else 0,
        "reasons": [{"error": e, "count": n} for e, n in errors.most_common(5)],
        **_rates(p, requests, good), **times, "send_delay": percentiles([r.sent_s - r.due_s for r in requests]),
        "tokens_per_chunk": _over(sum(r.tokens for r in good), sum(len(r.chunk_s) for r in good)),
        "kept_share": _over(sum(r.kept for r in good), offered),
        "counted": next((r.counted for r in requests if r.counted == "chunks"), good[0].counted if good else None),
        "goodput": goodput(p, requests, settings.slo), "avg": _quality(requests),
        "energy": {**p.energy, "joules_token": _over(p.energy.get("joules"), sum(r.tokens for r in requests))},
        "client": {
            "own_share": None if p.own_s is None else _over(p.own_s, p.wall_s),
            "waited_share": None if p.waited_s is None else _over(p.waited_s, p.wall_s),
            "lag_p99_s": (p.lag_s or {}).get("p99"),
        },
        "together": tied,
        "warnings": (overhead.warnings(client, p, plain) if client else []) + [TIED.format(tied)] * (tied > 0.5),
    }  # fmt: skip


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _rates(p: PointRecord, requests: list[RequestRecord], good: list[RequestRecord]) -> Row:
    last = max((r.due_s for r in requests), default=0.0)
    inside = sum(r.ended_s <= last for r in good)
    told = all(r.prompt_tokens >= 0 for r in good)
    tokens = sum(r.tokens for r in requests)
    return {
        "wall_s": p.wall_s, "offered_s": _over(len(requests) - 1, last), "achieved_s": _over(len(good), p.wall_s),
        "in_window_s": _over(inside, last), "backlog": sum(r.ended_s > last for r in requests), "most": p.most,
        "tokens": tokens, "tokens_s": _over(tokens, p.wall_s),
        "prompt_tokens_s": _over(sum(r.prompt_tokens for r in good), p.wall_s) if told else None,
    }  # fmt: skip


def _times(good: list[RequestRecord]) -> Row:
    def each(value: metrics.Value) -> Row | None:
        return percentiles([v for r in good if (v := value(r)) >= 0])

    return {
        "ttft": each(metrics.VALUES["ttft"]), "first_pair": each(metrics.VALUES["first_pair"]),
        "tpot": each(metrics.tpot), "gap": pooled([metrics.gaps(r) for r in good]),
        "longest_gap": each(metrics.longest_gap), "itl": pooled([metrics.itl(r) for r in good]),
        "e2e": each(metrics.e2e), "queue": each(lambda r: r.queue_s),
    }  # fmt: skip


def goodput(p: PointRecord, requests: Sequence[RequestRecord], slo: dict[str, float]) -> Row | None:
    """Share of all requests that met all limits, and how many of these a second."""
    if not slo or not requests:
        return None
    flags = [metrics.meets(r, slo) for r in requests]
    return {"share": share(flags).plain(), "rate_s": _over(sum(flags), p.wall_s)}


def _quality(requests: list[RequestRecord]) -> Row | None:
    """Share of right answers, a failed request counting as wrong; clustered by question."""
    asked = [r for r in requests if r.item]
    if not asked or all(r.correct is None for r in asked):
        return None
    items: dict[str, list[float]] = {}
    for r in asked:
        items.setdefault(r.item, []).append(float(bool(r.correct)))
    return stats.clustered(list(items.values())).plain()


def series(p: PointRecord, requests: list[RequestRecord]) -> list[Row]:
    """The point over time, in buckets by when requests were due; ``ttft`` is the median of those due in a bucket."""
    if not requests or p.wall_s <= 0:
        return []
    width = p.wall_s / BUCKETS
    edges = np.arange(BUCKETS + 1) * width
    due, ended = np.array([r.due_s for r in requests]), np.array([r.ended_s for r in requests])
    out = []
    for start, end in itertools.pairwise(edges):
        firsts = [r.first_s for r in requests if start <= r.due_s < end and r.status == "ok" and r.first_s >= 0]
        out.append(
            {
                "point": p.point, "variant": p.variant, "t": float(start),
                "due": int(((due >= start) & (due < end)).sum()),
                "ended": int(((ended > start) & (ended <= end)).sum()),
                "in_flight": int(((due < end) & (ended > end)).sum()),
                "ttft": float(np.median(firsts)) if firsts else None,
            }
        )  # fmt: skip
    return out


def ratios(measured: Sequence[tuple[PointRecord, list[RequestRecord]]], reference: str | None) -> list[Row]:
    """How many times faster each variant is than the reference at the same load, by the requests that both answered."""
    base = {(p.mode, p.load): requests for p, requests in measured if p.variant == reference}
    out = []
    for p, requests in measured:
        other = base.get((p.mode, p.load))
        if p.variant == reference or other is None:
            continue
        theirs = {r.index: r for r in other if r.status == "ok"}
        both = [(theirs[r.index], r) for r in requests if r.status == "ok" and r.index in theirs]
        for name in RATIOS:
            value = metrics.VALUES[name]
            pairs = [(a, b) for one, two in both if (a := value(one)) > 0 and (b := value(two)) > 0]
            if pairs:
                e = ratio([a for a, _ in pairs], [b for _, b in pairs])
                head = {"variant": p.variant, "reference": reference, "load": p.load, "point": p.point, "metric": name}
                out.append({**head, "value": e.value, "low": e.low, "high": e.high, "n": e.n})
    return out
