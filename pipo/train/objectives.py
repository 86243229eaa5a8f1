"""Objectives for the loop: regular next-token training with the native MTP head, and PIPO-SFT."""

from __future__ import annotations

from typing import Any

import torch

from pipo.train.data import MicroBatch
from pipo.train.losses import confidence_sum, nll_sum, sft_target


class Regular:
    """Next-token cross entropy of the backbone plus ``mtp_weight`` times that of the native MTP head."""

    names = ("backbone_loss", "mtp_loss")

    def __init__(self, mtp_weight: float = 0.3) -> None:
        self.mtp_weight = mtp_weight

    def counts(self, batch: MicroBatch) -> tuple[int, ...]:
        return int((batch.labels[:, 1:] >= 0).sum()), int((batch.labels[:, 2:] >= 0).sum())

    def loss(self, model: Any, batch: MicroBatch, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        h_BTH = model.run_backbone(model.embed(batch.ids))
        d_BSH = model.mtp(model.embed(batch.ids[:, 1:-1]), h_BTH[:, :-2])
        first, second = batch.labels[:, 1:], batch.labels[:, 2:]
        ok1, ok2 = first >= 0, second >= 0
        return (
            nll_sum(model.lm_head(h_BTH[:, :-1][ok1]), first[ok1]) / totals[0],
            self.mtp_weight * nll_sum(model.lm_head(d_BSH[ok2]), second[ok2]) / totals[1],
        )


class PipoSFT:
    """Next-pair prediction: backbone token, draft, and confidence against p_d(gold) (arXiv 2605.27255, section 3.3)."""

    names = ("backbone_loss", "mtp_loss", "confidence_loss")

    def __init__(self, mtp_weight: float = 1.0, confidence_weight: float = 1.0) -> None:
        self.mtp_weight = mtp_weight
        self.confidence_weight = confidence_weight

    def counts(self, batch: MicroBatch) -> tuple[int, ...]:
        drafts = int((batch.labels[:, 3::2] >= 0).sum())
        return int((batch.labels[:, 2::2] >= 0).sum()), drafts, drafts

    def loss(self, model: Any, batch: MicroBatch, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        h_BLH, d_BMH = model.hiddens(batch.ids)
        first, second = batch.labels[:, 2::2], batch.labels[:, 3::2]
        ok1, ok2 = first >= 0, second >= 0
        h, d, gold = h_BLH[:, :-1], d_BMH[ok2], second[ok2]
        logits_NV = model.lm_head(d)
        confidence = model.confidence_head(h[ok2].detach(), d.detach())
        return (
            nll_sum(model.lm_head(h[ok1]), first[ok1]) / totals[0],
            self.mtp_weight * nll_sum(logits_NV, gold) / totals[1],
            self.confidence_weight * confidence_sum(confidence, sft_target(logits_NV, gold)) / totals[2],
        )
