"""Calibration of the confidence head: does a confidence of 0.9 mean that nine drafts in ten would be accepted?

Measured on rows kept out of training (SFT: chance that the draft is the gold token) or on fresh roll-outs (OPD: chance
that the teacher accepts it).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from pipo.train.objectives import KEPT_AT, Tally, totals_of

BINS = 10


class Collected(Tally):
    """A tally that also keeps every confidence and its target."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def gate(self, confidence_N: torch.Tensor, target_N: torch.Tensor) -> None:
        self.pairs.append((confidence_N.detach().float().sigmoid().cpu(), target_N.detach().float().cpu()))


@torch.no_grad()
def calibration(model: Any, objective: Any, batches: Iterable[Any], autocast: bool = False) -> dict[str, Any]:
    """Run the objective's forward pass over batches and summarise the gate (see ``reliability``)."""
    tally, objective.tally = objective.tally, Collected()
    training = model.training
    model.eval()
    try:
        for batch in batches:
            moved = batch.to(model.device)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
                objective.loss(model, moved, totals_of(objective, [moved]))
        pairs = objective.tally.pairs
    finally:
        objective.tally = tally
        model.train(training)
    if not pairs:
        return reliability(torch.zeros(0), torch.zeros(0))
    return reliability(torch.cat([c for c, _ in pairs]), torch.cat([t for _, t in pairs]))


def reliability(confidence_N: torch.Tensor, target_N: torch.Tensor, bins: int = BINS) -> dict[str, Any]:
    """A reliability diagram's numbers, from confidences and acceptance probabilities in [0, 1].

    Returns ``drafts``; ``ece``, the expected calibration error: the mean over drafts of |mean confidence - mean target|
    of their bin (None without drafts); ``brier``, the mean squared difference; ``bins`` of equal width, each with
    count, mean confidence and mean target; ``kept``: by threshold, the share that it keeps and their mean target.
    """
    n = len(confidence_N)
    index = (confidence_N * bins).long().clamp(max=bins - 1)
    rows, error = [], 0.0
    for b in range(bins):
        inside = index == b
        count = int(inside.sum())
        c = float(confidence_N[inside].mean()) if count else None
        t = float(target_N[inside].mean()) if count else None
        if c is not None and t is not None:
            error += count * abs(c - t)
        rows.append({"low": b / bins, "high": (b + 1) / bins, "count": count, "confidence": c, "target": t})
    kept = []
    for threshold in (0.0, *KEPT_AT):
        inside = confidence_N >= threshold
        count = int(inside.sum())
        kept.append({"threshold": threshold, "share": count / n if n else None,
                     "target": float(target_N[inside].mean()) if count else None})  # fmt: skip
    return {
        "drafts": n, "ece": error / n if n else None,
        "brier": float((confidence_N - target_N).square().mean()) if n else None, "bins": rows, "kept": kept,
    }  # fmt: skip


def write_calibration(folder: Path, stage: str, found: dict[str, Any]) -> dict[str, Any]:
    """Write ``calibration.json`` into a training's folder; returns what its result shows of it."""
    (folder / "calibration.json").write_text(json.dumps({"stage": stage, **found}, indent=1) + "\n")
    shown = {f"kept@{k['threshold']:g}": k["share"] for k in found["kept"] if k["threshold"] in (0.5, 0.95)}
    return {"ece": found["ece"], "calibration_drafts": found["drafts"], **shown}
