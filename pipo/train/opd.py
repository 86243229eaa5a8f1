"""On-policy distillation: roll out the student with its gate on, judge every place by a regular teacher.

The teacher has never seen PAD: it reads the real tokens only, and a draft is judged after x_2i+2, kept or not, by the
draft's own id. Shape legend: B roll-outs, T places, L = T/2 pairs, N supervised places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pipo.engine import TorchEngine
from pipo.engine.types import Event, Method, Request
from pipo.train.augment import compact, pad_prompt
from pipo.train.data import MicroBatch
from pipo.train.losses import KL, confidence_sum, opd_target, reverse_kl_sum


@dataclass
class OPDBatch(MicroBatch):
    """Roll-outs of one step. Places of supervised tokens as (row, pair) indices, and where the teacher judges them.

    ``first``/``draft`` [N, 2]: row and index of the pair whose hidden predicts the token. ``first_at``/``draft_at``
    [N]: the teacher's place (row of the compacted ids) that predicts the same token. ``first_ids``/``draft_ids`` [N].
    """

    teacher_ids: torch.Tensor
    first: torch.Tensor
    first_at: torch.Tensor
    first_ids: torch.Tensor
    draft: torch.Tensor
    draft_at: torch.Tensor
    draft_ids: torch.Tensor


def opd_batch(prompts: list[list[int]], events: list[list[Event]], pad: int) -> OPDBatch:
    """Lay out finished roll-outs for the loss. ``events``: each roll-out's events, in order."""
    rows, real, first, first_at, first_ids, draft, draft_at, draft_ids = ([] for _ in range(8))  # type: ignore[var-annotated]
    for row, (prompt, steps) in enumerate(zip(prompts, events, strict=True)):
        padded = pad_prompt(prompt, pad)
        places = [p for e in steps for p in e.places]
        ids = padded + places
        tokens, index = compact(ids, pad)
        rows.append(ids)
        real.append(tokens)
        pair = len(padded) // 2
        for event in (e for e in steps if e.slots):
            at = index[2 * pair]
            first.append((row, pair - 1))
            first_at.append((row, at - 1))
            first_ids.append(ids[2 * pair])
            if event.drafts:
                draft.append((row, pair - 1))
                draft_at.append((row, at))
                draft_ids.append(event.drafts[0].id)
            pair += 1
    ids_BT = _stack(rows, pad, even=True)

    def t(values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long)

    return OPDBatch(
        ids_BT, torch.empty(0), int((ids_BT != pad).sum()), _stack(real, pad), t(first).view(-1, 2),
        t(first_at).view(-1, 2), t(first_ids), t(draft).view(-1, 2), t(draft_at).view(-1, 2), t(draft_ids),
    )  # fmt: skip


def _stack(rows: list[list[int]], pad: int, even: bool = False) -> torch.Tensor:
    length = max(len(r) for r in rows)
    length += length % 2 if even else 0
    return torch.tensor([r + [pad] * (length - len(r)) for r in rows])


class OnPolicy:
    """Steps for the loop: each pool is one batch of roll-outs of the model as it is now.

    ``prompts(pool)`` gives the prompts of a step; the roll-outs' seeds follow from ``seed`` and the pool, so that a
    resumed run makes the same ones. ``engine``: what rolls out, default the torch engine (pipo.train.rollouts).
    """

    def __init__(
        self, model: Any, prompts: Callable[[int], list[list[int]]], thresholds: tuple[float, ...], max_slots: int,
        seed: int, engine: Any = None,
    ) -> None:  # fmt: skip
        self.model, self.prompts, self.thresholds, self.max_slots = model, prompts, thresholds, max_slots
        self.seed = seed
        self.engine = engine or TorchEngine(model, max_batch=64)
        self.slots = self.finished = self.samples = self.kept = self.offered = 0

    def pool(self, index: int, progress: float) -> list[list[MicroBatch]]:
        """One step: roll out, then lay out for the loss."""
        self.model.eval()
        self.engine.reload()
        prompts = self.prompts(index)
        method = Method(name="pipo", threshold=self.thresholds[index % len(self.thresholds)])
        requests = [
            Request(id=f"{index}/{i}", prompt=tuple(p), method=method, max_slots=self.max_slots,
                    seed=(self.seed * 1_000_003 + index) * 1_000_003 + i)
            for i, p in enumerate(prompts)
        ]  # fmt: skip
        events = self.engine.generate(requests)
        self.model.train()
        ordered = [events[r.id] for r in requests]
        drafts = [d for steps in ordered for e in steps for d in e.drafts]
        self.samples, self.finished = len(ordered), sum(steps[-1].finish == "eos" for steps in ordered)
        self.offered, self.kept = len(drafts), sum(d.kept for d in drafts)
        return [[opd_batch(prompts, ordered, self.model.config.pad_token_id)]]


class OPD:
    """Reverse KL of both heads towards the teacher, and confidence against the chance that a draft is accepted."""

    names = ("backbone_kl", "mtp_kl", "confidence_loss")

    def __init__(self, teacher: Any, kind: KL = "full", top: int = 32, confidence_weight: float = 1.0) -> None:
        self.teacher, self.kind, self.top, self.confidence_weight = teacher, kind, top, confidence_weight
        self.baselines = [0.0, 0.0]

    def counts(self, batch: OPDBatch) -> tuple[int, ...]:
        return len(batch.first), len(batch.draft), len(batch.draft)

    def loss(self, model: Any, batch: OPDBatch, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            teacher_h = self.teacher.run_backbone(self.teacher.embed(batch.teacher_ids))
            t1 = F.log_softmax(self.teacher.lm_head(teacher_h[tuple(batch.first_at.T)]).float(), -1)
            t2 = F.log_softmax(self.teacher.lm_head(teacher_h[tuple(batch.draft_at.T)]).float(), -1)
        h_BLH, d_BMH = model.hiddens(batch.ids)
        h = h_BLH[tuple(batch.draft.T)]
        # the last pair's hidden predicts no pair that was fed, so drafts all lie within d_BMH
        d = d_BMH[tuple(batch.draft.T)]
        s1 = F.log_softmax(model.lm_head(h_BLH[tuple(batch.first.T)]).float(), -1)
        s2 = F.log_softmax(model.lm_head(d).float(), -1)
        target = opd_target(s2, t2, None if self.kind == "full" else batch.draft_ids)
        confidence = confidence_sum(model.confidence_head(h.detach(), d.detach()), target)
        return (
            self._kl(0, s1, t1, batch.first_ids) / totals[0],
            self._kl(1, s2, t2, batch.draft_ids) / totals[1],
            self.confidence_weight * confidence / totals[2],
        )

    def _kl(self, head: int, student: torch.Tensor, teacher: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The chosen divergence; ``sampled`` keeps a running mean of the log ratio as its baseline."""
        total = reverse_kl_sum(student, teacher, ids, self.kind, self.top, self.baselines[head])
        if self.kind == "sampled" and len(ids):
            gap = (student.detach() - teacher).gather(-1, ids[:, None]).mean()
            self.baselines[head] = 0.9 * self.baselines[head] + 0.1 * float(gap)
        return total
