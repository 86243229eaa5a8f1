"""Records of cells -> the summary of a map: floors, measured speeds, winners. Schema: bench/map.py."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench import footprint, roofline, stats
from bench.footprint import Shapes
from bench.machine import Machine
from bench.map_arms import BURST, Arm, arms_of, tokens_per_step
from bench.record import MapRecord, Run

DRAWS = 2000
INTERVAL = "95%: bootstrap over turns of a few steps that are drawn together, 2000 draws"
CONTEST = ("regular", "eagle", "pipo")
Row = dict[str, Any]
Steps = dict[tuple[str, float | None], list[float]]  # (method, keep) -> seconds of each step


def summarise(
    settings: Any, header: Run, where: Machine, memory: float, shapes: Shapes, records: list[MapRecord]
) -> dict[str, Any]:
    """The summary; ``settings``: a MapSpec, ``memory``: bytes that have to hold weights and caches."""
    found = {(r.batch, r.context, r.method, r.keep): r for r in records}
    rows: list[Row] = []
    cells: list[Row] = []
    for context in settings.contexts:
        for batch in settings.batches:
            own, steps = [], {}
            for arm in arms_of(settings.kept, settings.depth):
                r = found[batch, context, arm.method.name, arm.keep]
                steps[r.method, r.keep] = r.step_s
                for accepted in settings.accepted if arm.method.name == "eagle" else (None,):
                    own.append(_row(settings, where, memory, shapes, arm, r, accepted))
            _ratios(own, steps)
            rows += own
            cells += _cells(own, steps, settings)
    return {
        "schema": header.schema, "kind": "map", "shape": settings.shape, "dtype": header.spec["dtype"],
        "device": header.provenance.device, "batches": settings.batches, "contexts": settings.contexts,
        "kept": settings.kept, "accepted": settings.accepted, "depth": settings.depth, "prompt": settings.prompt,
        "steps": settings.steps, "measured": settings.measured, "memory_bytes": memory, "interval": INTERVAL,
        "machine": msgspec.to_builtins(where), "rows": rows, "cells": cells,
    }  # fmt: skip


def _row(
    settings: Any, where: Machine, memory: float, s: Shapes, arm: Arm, r: MapRecord, accepted: float | None
) -> Row:
    kept = 1.0 if arm.keep is None else arm.keep
    prompt = r.context if settings.prompt else 0
    floor = roofline.floor_step(
        where, s, arm.method, r.context, rows=r.batch, kept=kept, accepted=accepted or 1.0, prompt=prompt
    )
    tokens = tokens_per_step(arm.method.name, arm.keep, accepted)
    quantiles = {f"p{round(100 * q)}": stats.quantile(r.step_s, q) for q in (0.1, 0.5, 0.9)} if r.step_s else None
    own_machine = settings.machine == "measure"
    return {
        "batch": r.batch, "context": r.context, "method": arm.method.name, "keep": arm.keep, "accepted": accepted,
        "tokens_per_step": tokens, "places": r.places, "memory_bytes": r.memory_bytes, "fits": r.fits,
        "rows_that_fit": footprint.rows_that_fit(s, arm.method, r.context, memory, kept=kept, prompt=prompt),
        "floor_s": floor.seconds, "floor_tokens_s": floor.tokens_s, "floor_ratio": None,
        "prefill_floor_s": roofline.floor_prefill(where, s, arm.method, r.context, rows=r.batch).seconds,
        "calls": r.calls or None, "calls_floor_s": floor.seconds + r.calls * where.call_s, "step_s": quantiles,
        "tokens_s": r.batch * tokens / quantiles["p50"] if quantiles else None, "ratio": None,
        "over_floor": quantiles["p50"] / floor.seconds if quantiles and own_machine else None, "note": r.note,
    }  # fmt: skip


def _ratios(rows: list[Row], steps: Steps) -> None:
    """Set the ratios to regular of one cell's rows."""
    regular = next(r for r in rows if r["method"] == "regular")
    for row in rows:
        if regular["fits"] and row["fits"]:
            row["floor_ratio"] = row["floor_tokens_s"] / regular["floor_tokens_s"]
        if regular["tokens_s"] and row["tokens_s"]:
            row["ratio"] = _faster(row, regular, steps)


def _faster(row: Row, other: Row, steps: Steps) -> Row:
    """Tokens a second of a row over another one's, as measured, with a 95% interval (None with one turn).

    The bootstrap draws whole turns, the same ones on both sides: what disturbs the machine for a while disturbs
    neighbouring steps alike, so single steps are not independent.
    """
    over, under = (_turns(steps[r["method"], r["keep"]]) for r in (other, row))
    worth = row["tokens_per_step"] / other["tokens_per_step"]
    value = worth * float(np.nanmedian(over) / np.nanmedian(under))
    if len(over) < 2:
        return {"value": value, "low": None, "high": None}
    picks = np.random.default_rng(0).integers(0, len(over), size=(DRAWS, len(over)))
    medians = [np.nanmedian(side[picks].reshape(DRAWS, -1), axis=1) for side in (over, under)]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return {"value": value, "low": worth * float(low), "high": worth * float(high)}


def _turns(steps: list[float]) -> NDArray[np.float64]:
    """Steps as [turns, BURST], the last turn filled up with NaN."""
    full = -(-len(steps) // BURST) * BURST
    return np.array(steps + [np.nan] * (full - len(steps))).reshape(-1, BURST)


def _cells(rows: list[Row], steps: Steps, settings: Any) -> list[Row]:
    """Winners of one cell at each kept share and acceptance length, by floor and by what was measured."""
    contest = [r for r in rows if r["method"] in CONTEST]
    out = []
    for share in settings.kept:
        for length in settings.accepted:
            rivals = [r for r in contest if r["keep"] in (None, share) and r["accepted"] in (None, length)]
            out.append(
                {
                    "batch": rows[0]["batch"], "context": rows[0]["context"], "keep": share, "accepted": length,
                    "floor": _winner([r for r in rivals if r["fits"]], "floor_tokens_s", None),
                    "measured": _winner(rivals, "tokens_s", steps) if settings.measured else None,
                }
            )  # fmt: skip
    return out


def _winner(rows: list[Row], key: str, steps: Steps | None) -> Row:
    """Who has the most tokens a second, by how much over regular and over the second."""
    ranked = sorted((r for r in rows if r[key] is not None), key=lambda r: r[key], reverse=True)
    if not ranked:
        return {"winner": None, "ratio": None, "lead": None, "settled": True}
    base = next((r[key] for r in ranked if r["method"] == "regular"), None)
    low = None
    if steps is not None and len(ranked) > 1:
        low = _faster(ranked[0], ranked[1], steps)["low"]
    return {
        "winner": ranked[0]["method"],
        "ratio": ranked[0][key] / base if base else None,
        "lead": ranked[0][key] / ranked[1][key] if len(ranked) > 1 else None,
        "settled": steps is None or len(ranked) < 2 or (low is not None and low > 1),
    }
