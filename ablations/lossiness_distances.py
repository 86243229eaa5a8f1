"""Distances between the distributions of a method and a reference, and the records that keep them, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor

from ablations.looks import short
from ablations.lossiness_walk import Place


class DistanceRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="distance"):
    """One method over one text: a number for each place of the text, in order.

    ``tv``: total variation to the reference, ``kl_reference``: KL(reference || method) in nats, ``kl_method``:
    KL(method || reference); None where infinite. ``twin_*``: the same to the PIPO model at threshold 1; empty for
    models without one. ``draft_tv``, ``accept``: total variation between the draft and what would follow a PAD there,
    and the chance that a verifier would accept the draft, the sum of min; -1 at places that no draft is offered for.
    ``accept_reference``: that chance with the reference as verifier. ``confidence``: the gate's, -1 where none is.
    """

    method: str
    model: str
    task: str
    item: str
    sample: int
    sources: list[str]
    tv: list[float]
    kl_reference: list[float | None]
    kl_method: list[float | None]
    twin_tv: list[float] = []
    twin_kl_reference: list[float | None] = []
    twin_kl_method: list[float | None] = []
    draft_tv: list[float] = []
    accept: list[float] = []
    accept_reference: list[float] = []
    confidence: list[float] = []


def total_variation(p_nV: Tensor, q_nV: Tensor) -> Tensor:
    """Half the sum of absolute differences, [n] in [0, 1]: the share of draws that must differ."""
    return 0.5 * (p_nV - q_nV).abs().sum(-1)


def kl(p_nV: Tensor, q_nV: Tensor) -> Tensor:
    """KL(p || q) in nats, [n]; infinite where q lacks something that p has."""
    ratio = torch.where(p_nV > 0, p_nV.log() - q_nV.log(), torch.zeros_like(p_nV))
    return torch.where(p_nV > 0, p_nV * ratio, torch.zeros_like(p_nV)).sum(-1).clamp(min=0)


def distances(
    places: Sequence[Place], reference: Sequence[Tensor], twin: Sequence[Tensor] | None = None
) -> dict[str, Any]:
    """The fields of a record from a method's places and the references' distributions [V] at the same places."""
    p_nV, r_nV = torch.stack([x.p for x in places]), torch.stack(list(reference))
    out: dict[str, Any] = {"sources": [x.source for x in places], **_between(p_nV, r_nV, "")}
    if twin is not None:
        out |= _between(p_nV, torch.stack(list(twin)), "twin_")
    found: dict[str, list[float]] = {"draft_tv": [], "accept": [], "accept_reference": [], "confidence": []}
    for x, r_V in zip(places, r_nV, strict=True):
        q, other = x.draft, x.instead
        gap = -1.0 if q is None or other is None else float(total_variation(q, other))
        found["draft_tv"].append(gap)
        found["accept"].append(-1.0 if q is None else 1 - gap)
        found["accept_reference"].append(-1.0 if q is None else 1 - float(total_variation(q, r_V)))
        found["confidence"].append(-1.0 if x.confidence is None else x.confidence)
    return out | {name: short(values) for name, values in found.items()}


def _between(p_nV: Tensor, r_nV: Tensor, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}tv": short(total_variation(p_nV, r_nV).tolist()),
        f"{prefix}kl_reference": short(kl(r_nV, p_nV).tolist()),
        f"{prefix}kl_method": short(kl(p_nV, r_nV).tolist()),
    }
