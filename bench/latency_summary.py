"""Trials of ``latency`` -> summary: times, times over the floor, ratios to regular decoding. Schema: bench/summary.py.

The protocol says which statistic of the trials counts (median or mean) and which time per token stands beside the
floor; both metrics and all statistics are in every row whatever it says. On a random model what EAGLE accepts means
nothing, so there is no ratio of its time per token there; floor and measurement beside each other share the acceptance.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bench import stats
from bench.latency_arms import Arm, LatencySpec
from bench.latency_floor import Floors
from bench.record import LatencyRecord, Run
from bench.stats import Estimate

METRICS = ("ttft", "first_pair", "tpot16", "tpot")
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
Cells = dict[tuple[str, int], list[LatencyRecord]]  # arm's name, input length -> trials in order


def summarise(
    settings: LatencySpec, header: Run, arms: list[Arm], records: list[LatencyRecord], floors: Floors
) -> dict[str, Any]:
    """Rows, ratios to the first variant with regular decoding, and what the floor allows beside what was measured."""
    cells: Cells = {}
    for r in sorted(records, key=lambda r: r.trial):
        cells.setdefault((r.variant, r.input_tokens), []).append(r)
    base = next((a for a in arms if a.method.name == "regular"), None)
    rows = {(a.name, n): _row(a, n, cells[a.name, n], settings, floors) for n in settings.lengths for a in arms}
    ratios: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for length, arm in ((n, a) for n in settings.lengths for a in arms):
        if base is not None and arm is not base:
            ours, theirs = cells[arm.name, length], cells[base.name, length]
            found = {m: _ratio(_values(theirs, m), _values(ours, m), settings.statistic) for m in METRICS}
            head = {"variant": arm.variant.name, "keep": arm.keep, "input_tokens": length}
            ratios += [
                {**head, "reference": base.name, "metric": m, "value": e.value, "low": e.low, "high": e.high}
                for m, e in found.items()
                if not (settings.shape and arm.method.name == "eagle" and m.startswith("tpot"))
            ]
            beside.append({**head, **_floor(rows[base.name, length], rows[arm.name, length], found, settings)})
    return {
        "schema": header.schema, "kind": "latency", "batch": 1, "tokens": settings.new_tokens,
        "trials": settings.trial_count, "input_lengths": settings.lengths, "protocol": settings.protocol,
        "statistic": settings.statistic, "tpot": settings.tpot, "shape": settings.shape,
        "reference": base.name if base else None, "threads": header.provenance.threads, "machine": floors.machine(),
        "variants": msgspec.to_builtins(header.variants), "interval": stats.INTERVALS,
        "rows": list(rows.values()), "ratios": ratios, "floor": beside,
    }  # fmt: skip


def _values(records: list[LatencyRecord], metric: str) -> list[float]:
    return [getattr(r, f"{metric}_s") for r in records]


def times(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and mean of trials."""
    return {q: stats.quantile(values, p) for q, p in QUANTILES} | {"mean": sum(values) / len(values)}


def kept_share(records: list[LatencyRecord]) -> float | None:
    """Drafts kept of drafts offered; None where none was."""
    offered = sum(r.offered for r in records)
    return sum(r.kept for r in records) / offered if offered else None


def tokens_per_step(records: list[LatencyRecord]) -> float:
    """Tokens a step after the first step."""
    after = sum(sum(t > r.prefill_s for t in r.token_times_s) for r in records)
    return after / max(1, sum(r.steps - 1 for r in records))


def step_seconds(r: LatencyRecord) -> float:
    """Mean seconds of a trial's steps after the first."""
    return (r.token_times_s[-1] - r.prefill_s) / max(1, r.steps - 1)


def _row(arm: Arm, length: int, records: list[LatencyRecord], settings: LatencySpec, floors: Floors) -> dict[str, Any]:
    measured = {f"{m}_s": times(_values(records, m)) for m in METRICS}
    per_step = tokens_per_step(records)
    kept = kept_share(records)
    first, step = floors.prefill_s(arm, length), floors.step_s(arm, length, kept=kept or 0.0, per_step=per_step)
    later = step / per_step
    return {
        "variant": arm.variant.name, "model": arm.variant.model, "method": msgspec.to_builtins(arm.method),
        "keep": arm.keep, "input_tokens": length, "trials": len(records), **measured,
        "step_s": times([step_seconds(r) for r in records]),
        "tokens_per_slot": sum(r.tokens for r in records) / sum(r.slots for r in records),
        "tokens_per_step": per_step, "kept_share": kept,
        "ttft_floor_s": first, "tpot_floor_s": later, "step_floor_s": step,
        "ttft_over_floor": measured["ttft_s"][settings.statistic] / first,
        "tpot_over_floor": measured[f"{settings.tpot}_s"][settings.statistic] / later,
    }  # fmt: skip


def _ratio(over: list[float], under: list[float], statistic: str) -> Estimate:
    """Reference over variant: of medians with a paired bootstrap, of means with the linearised error of a ratio."""
    return stats.bootstrap_ratio(over, under) if statistic == "p50" else stats.ratio(over, under)


def _floor(
    base: dict[str, Any], row: dict[str, Any], measured: dict[str, Estimate], settings: LatencySpec
) -> dict[str, Any]:
    """Regular over variant as the floor allows it, as it was measured, and how much of it there is."""
    out: dict[str, Any] = {}
    for name, metric in (("ttft", "ttft"), ("tpot", settings.tpot)):
        allowed, found = base[f"{name}_floor_s"] / row[f"{name}_floor_s"], measured[metric].value
        out |= {f"{name}_allowed": allowed, f"{name}_measured": found, f"{name}_reached": found / allowed}
    return out
