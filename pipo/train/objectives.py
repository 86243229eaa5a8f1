"""Objectives for the loop: regular next-token training with the native MTP head, and PIPO-SFT."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pipo.train.chunked import chunk_places, head_loss
from pipo.train.data import MicroBatch
from pipo.train.losses import confidence_sum, nll

KEPT_AT = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Tally:
    """Means over the places of one step, for logs: what goes in is summed, ``drain`` divides and starts anew."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.whole: dict[str, float] = {}

    def total(self, name: str, value: float) -> None:
        """Something that is summed and not divided, such as seconds."""
        self.whole[name] = self.whole.get(name, 0.0) + value

    def add(self, name: str, total: float, count: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.counts[name] = self.counts.get(name, 0.0) + count

    def most(self, name: str, value: float) -> None:
        """Something of which the largest counts."""
        self.whole[name] = max(self.whole.get(name, value), value)

    def gate(self, confidence_N: torch.Tensor, target_N: torch.Tensor) -> None:
        """Confidence against its target, and the share of drafts that each threshold would keep."""
        c = confidence_N.detach().sigmoid()
        self.add("confidence", float(c.sum()), len(c))
        self.add("confidence_target", float(target_N.sum()), len(c))
        for t in KEPT_AT:
            self.add(f"kept@{t:g}", float((c >= t).sum()), len(c))

    def drain(self) -> dict[str, float]:
        """Name -> mean, or sum, since the last call."""
        out = {n: s / self.counts[n] for n, s in self.sums.items() if self.counts[n]} | self.whole
        self.sums, self.counts, self.whole = {}, {}, {}
        return out


def summed_nll(
    model: Any, hidden_NH: torch.Tensor, gold_N: torch.Tensor, scale: float, chunk: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """``scale`` times the summed cross entropy of the head at these places, and each place's own, detached [N]."""

    def loss(logits_nV: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        each = nll(logits_nV, gold_N[part])
        return each.sum() * scale, each.detach()

    weight = model.lm_head.weight
    total, each = head_loss(hidden_NH, weight, loss, chunk_places(len(weight), chunk))
    return total, torch.cat(each) if each else hidden_NH.new_zeros(0)


class Regular:
    """Next-token cross entropy of the backbone plus ``mtp_weight`` times that of the native MTP head."""

    names: tuple[str, ...] = ("backbone_loss", "mtp_loss")

    def __init__(self, mtp_weight: float = 0.3, chunk: int | None = None) -> None:
        self.mtp_weight, self.chunk = mtp_weight, chunk
        self.memory: list[float] = []

    def counts(self, batch: MicroBatch) -> tuple[int, ...]:
        return int((batch.labels[:, 1:] >= 0).sum()), int((batch.labels[:, 2:] >= 0).sum())

    def loss(self, model: Any, batch: MicroBatch, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        h_BTH = model.run_backbone(model.embed(batch.ids))
        d_BSH = model.mtp(model.embed(batch.ids[:, 1:-1]), h_BTH[:, :-2])
        first, second = batch.labels[:, 1:], batch.labels[:, 2:]
        ok1, ok2 = first >= 0, second >= 0
        return (
            summed_nll(model, h_BTH[:, :-1][ok1], first[ok1], 1 / totals[0], self.chunk)[0],
            summed_nll(model, d_BSH[ok2], second[ok2], self.mtp_weight / totals[1], self.chunk)[0],
        )

    def metrics(self) -> dict[str, float]:
        """Nothing beside the losses."""
        return {}


class PipoSFT:
    """Next-pair prediction: backbone token, draft, and confidence against p_d(gold) (arXiv 2605.27255, section 3.3)."""

    names: tuple[str, ...] = ("backbone_loss", "mtp_loss", "confidence_loss")

    def __init__(self, mtp_weight: float = 1.0, confidence_weight: float = 1.0, chunk: int | None = None) -> None:
        self.mtp_weight, self.confidence_weight, self.chunk = mtp_weight, confidence_weight, chunk
        self.tally = Tally()
        self.memory: list[float] = []

    def counts(self, batch: MicroBatch) -> tuple[int, ...]:
        drafts = int((batch.labels[:, 3::2] >= 0).sum())
        return int((batch.labels[:, 2::2] >= 0).sum()), drafts, drafts

    def loss(self, model: Any, batch: MicroBatch, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        h_BLH, d_BMH = model.hiddens(batch.ids)
        first, second = batch.labels[:, 2::2], batch.labels[:, 3::2]
        ok1, ok2 = first >= 0, second >= 0
        h_NH, d_NH = h_BLH[:, :-1], d_BMH[ok2]
        backbone, _ = summed_nll(model, h_NH[ok1], first[ok1], 1 / totals[0], self.chunk)
        mtp, each = summed_nll(model, d_NH, second[ok2], self.mtp_weight / totals[1], self.chunk)
        target = (-each).exp()
        confidence = model.confidence_head(h_NH[ok2].detach(), d_NH.detach())
        self.tally.gate(confidence, target)
        self.tally.add("pad_ratio", int(ok1.sum()) - int(ok2.sum()), int(ok1.sum()))
        return backbone, mtp, self.confidence_weight * confidence_sum(confidence, target) / totals[2]

    def metrics(self) -> dict[str, float]:
        """Means of the step: ``confidence``, its target, ``kept@t`` by threshold, ``pad_ratio`` of the pairs."""
        return self.tally.drain()


def totals_of(objective: Any, step: Iterable[Any]) -> tuple[int, ...]:
    """The supervised places of each part of the loss over a step's micro-batches, at least 1."""
    counts = [objective.counts(b) for b in step]
    return tuple(max(1, sum(c)) for c in zip(*counts, strict=True))
