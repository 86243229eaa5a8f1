"""The job ``ablate-threshold``: quality against the gate's threshold, beside random gating at the same pad ratio.

At each threshold and task the confidence gate runs first; then a coin keeps as many drafts as it kept *on that task*
(keep_rate = its kept share there). Where the gate kept all drafts or none, a coin at 1 or 0 is the same decoding:
those points are not generated again but reused, and marked so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ablations.study import load_study
from bench import compared
from bench.loading import read_spec
from bench.record import Record, SampleRecord, Variant
from bench.session import SampleSpec, Session
from bench.summary import OVERALL, differences, head_of, rows_of
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext

GATES = ("confidence", "random")


class ThresholdSpec(SampleSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``ablate-threshold``, defaults in studies/threshold.toml. ``random``: run the coin flips too."""

    model: str
    thresholds: list[float]
    random: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.thresholds:
            raise BadInput("no thresholds; name at least one in [0, 1]")
        if len(set(self.thresholds)) < len(self.thresholds):
            raise BadInput(f"thresholds {self.thresholds} name one twice; name each once")
        if self.on_sglang and self.random:
            raise BadInput("the coin flips run in the torch engine only; switch them off (--no-random), or use it")
        for value in self.thresholds:
            Method("pipo", threshold=value)


class Point(msgspec.Struct, frozen=True):
    """One threshold: the gate's variant and the name of the coin's."""

    threshold: float
    gate: Variant
    coin: str


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Run the study; returns the summary (schema in bench/summary.py), which lies in summary.json too."""
    settings = read_spec({**load_study("threshold"), **spec}, ThresholdSpec, "ablate-threshold")
    points = [
        Point(t, Variant(f"tau={t:g}", settings.model, Method("pipo", threshold=t)), f"random@{t:g}")
        for t in settings.thresholds
    ]
    gates = len(points) * (1 + settings.random)
    session = Session("ablate-threshold", settings, [p.gate for p in points], ctx)
    session.progress.total = gates * sum(len(t.items) for t in session.tasks) * settings.k
    rates: dict[tuple[str, str], float] = {}
    for point in points:
        for task in session.tasks:
            session.generate(point.gate, task)
            if not settings.random:
                continue
            rate = rates[point.coin, task.name] = kept_share(session.records(), point.gate.name, task.name)
            if rate in (0.0, 1.0):
                session.progress.skip(
                    len(task.items) * settings.k, f"{point.coin} on {task.name}: as {point.gate.name}"
                )
            else:
                session.generate(Variant(point.coin, settings.model, Method("random", keep_rate=rate)), task)
    return session.finish(summarise(session, points, rates))


def kept_share(records: Sequence[Record], variant: str, task: str) -> float:
    """Share of the offered drafts that a variant kept on a task; 0 where none was offered."""
    drafts = [
        d for r in records if isinstance(r, SampleRecord) and (r.variant, r.task) == (variant, task) for d in r.drafts
    ]
    return sum(d.kept for d in drafts) / len(drafts) if drafts else 0.0


def summarise(session: Session, points: list[Point], rates: dict[tuple[str, str], float]) -> dict[str, Any]:
    """Points and paired differences, confidence gate minus coin."""
    made = session.records()
    reused = {key for key, rate in rates.items() if rate in (0.0, 1.0)}
    records = made + _borrowed(made, points, reused)
    run, pass_at = session.run, session.pass_at
    out: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    for point in points:
        coin = Variant(point.coin, point.gate.model, Method("random"))
        for gate, variant in zip(GATES, (point.gate, coin), strict=True):
            for row in rows_of(run, variant, records, pass_at):
                out.append(_point(row, point, gate, rates, reused))
        for row in differences(run, records, [(point.gate.name, point.coin)], pass_at):
            if not _is_reused(point, row["task"], rates, reused):
                gaps.append({"threshold": point.threshold, **row})
    compared.correct(gaps, run.budgets)  # over all thresholds where the two gates decide differently, and both budgets
    gaps = [{key: value for key, value in row.items() if key not in ("variant", "reference")} for row in gaps]
    head = head_of(run, made, session.spec.k, pass_at)
    model, thresholds = points[0].gate.model, [p.threshold for p in points]
    return {**head, "model": model, "thresholds": thresholds, "matched": "per task", "points": out, "differences": gaps}


def _borrowed(records: list[Record], points: list[Point], reused: set[tuple[str, str]]) -> list[Record]:
    """The gate's records once more under the coin's name, where the coin would decode the same way."""
    coins = {p.gate.name: p.coin for p in points}
    return [
        msgspec.structs.replace(r, variant=coins[r.variant])
        for r in records
        if isinstance(r, SampleRecord) and (coins.get(r.variant, ""), r.task) in reused
    ]


def _is_reused(point: Point, task: str, rates: dict[tuple[str, str], float], reused: set[tuple[str, str]]) -> bool:
    if task != OVERALL:
        return (point.coin, task) in reused
    return all(key in reused for key in rates if key[0] == point.coin)


def _point(
    row: dict[str, Any], point: Point, gate: str, rates: dict[tuple[str, str], float], reused: set[tuple[str, str]]
) -> dict[str, Any]:
    random = gate == "random"
    rate = rates.get((point.coin, row["task"])) if random else None
    share = row["kept_share"]
    pads = share and {
        **share, "value": 1 - share["value"],
        "low": None if share["high"] is None else 1 - share["high"],
        "high": None if share["low"] is None else 1 - share["low"],
    }  # fmt: skip
    return {
        **row, "method": {**row["method"], "keep_rate": rate} if random else row["method"],
        "threshold": point.threshold, "gate": gate, "keep_rate": rate, "pad_ratio": pads,
        "reused": random and _is_reused(point, row["task"], rates, reused),
    }  # fmt: skip
