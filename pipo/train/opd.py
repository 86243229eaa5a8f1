"""On-policy distillation: roll out the student with its gate on, judge every place by a regular teacher.

The teacher has never seen PAD: it reads the real tokens only, and a draft is judged after x_2i+2, kept or not, by the
draft's own id. PAD, which no engine samples, is left out of both distributions, and the temperature of the roll-outs
is that of the loss: what is in the loss is what was sampled from. Shape legend: B roll-outs, T places, L = T/2 pairs,
N supervised places, n of one chunk, V vocabulary.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pipo.engine.types import Event
from pipo.train.augment import compact, pad_prompt
from pipo.train.chunked import chunk_places, head_loss
from pipo.train.data import MicroBatch
from pipo.train.losses import KL, confidence_sum, divergence_sum, opd_target
from pipo.train.objectives import Tally


@dataclass
class Places:
    """N supervised places of one head. ``at`` [N, 2]: row and index of the pair whose hidden predicts the token.

    ``teacher_at`` [N, 2]: row and place of the compacted ids that predict it. ``ids`` [N]: the token.
    ``logprobs`` [N]: what the engine gave it, NaN where it did not say.
    """

    at: torch.Tensor
    teacher_at: torch.Tensor
    ids: torch.Tensor
    logprobs: torch.Tensor

    def to(self, device: torch.device) -> Places:
        return Places(*(t.to(device) for t in (self.at, self.teacher_at, self.ids, self.logprobs)))


@dataclass
class OPDBatch(MicroBatch):
    """Roll-outs for one forward pass: the compacted ids that the teacher reads, and the places of both heads."""

    teacher_ids: torch.Tensor = None  # type: ignore[assignment]
    first: Places = None  # type: ignore[assignment]
    draft: Places = None  # type: ignore[assignment]


def opd_batch(prompts: list[list[int]], events: list[list[Event]], pad: int, sources: list[str]) -> OPDBatch:
    """Lay out finished roll-outs for the loss. ``events``: each roll-out's events, in order."""
    rows, real = [], []
    first: list[tuple[Any, ...]] = []
    draft: list[tuple[Any, ...]] = []
    for row, (prompt, steps) in enumerate(zip(prompts, events, strict=True)):
        ids = pad_prompt(prompt, pad) + [p for e in steps for p in e.places]
        tokens, index = compact(ids, pad)
        rows.append(ids)
        real.append(tokens)
        # by token, not by event: the first token of all comes out before its pair is complete
        said = [p.logprob for e in steps for p in e.logprobs]
        pair = (len(prompt) + 1) // 2
        for event in (e for e in steps if e.slots):
            at = index[2 * pair]
            out = at - len(prompt)
            first.append((row, pair - 1, at - 1, ids[2 * pair], said[out] if out < len(said) else float("nan")))
            for d in event.drafts[:1]:
                draft.append((row, pair - 1, at, d.id, float("nan") if d.logprob is None else d.logprob))
            pair += 1
    ids_BT = _stack(rows, pad, even=True)
    return OPDBatch(
        ids_BT, torch.empty(0), int((ids_BT != pad).sum()), sources, _stack(real, pad), _places(first), _places(draft)
    )


def _places(found: list[tuple[Any, ...]]) -> Places:
    whole = torch.tensor([f[:4] for f in found], dtype=torch.long).view(-1, 4)
    return Places(whole[:, :2], whole[:, [0, 2]], whole[:, 3], torch.tensor([float(f[4]) for f in found]))


def _stack(rows: list[list[int]], pad: int, even: bool = False) -> torch.Tensor:
    length = max(len(r) for r in rows)
    length += length % 2 if even else 0
    return torch.tensor([r + [pad] * (length - len(r)) for r in rows])


class OPD:
    """Divergence of both heads from the teacher, and confidence against the chance that a draft is accepted.

    ``teacher``: a regular model with the student's vocabulary. Rejected drafts count in the MTP loss and in the
    confidence target by their own ids, from the same log-probabilities, without a further forward pass.
    """

    names: tuple[str, ...] = ("backbone_kl", "mtp_kl", "confidence_loss")

    def __init__(
        self, teacher: Any, kind: KL = "full", top: int = 32, confidence_weight: float = 1.0, mtp_weight: float = 1.0,
        beta: float = 1.0, temperature: float = 1.0, chunk: int | None = None,
    ) -> None:  # fmt: skip
        self.teacher, self.kind, self.top, self.beta = teacher, kind, top, beta
        self.confidence_weight, self.mtp_weight, self.temperature, self.chunk = (
            confidence_weight, mtp_weight, temperature, chunk,
        )  # fmt: skip
        self.memory = [0.0, 0.0]  # running means of the log ratio of both heads: baselines of ``sampled``
        self.tally = Tally()

    def counts(self, batch: OPDBatch) -> tuple[int, ...]:
        drafts = len(batch.draft.ids)
        return len(batch.first.ids), drafts, drafts

    def loss(self, model: Any, batch: OPDBatch, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        began = _now(model)
        with torch.no_grad():
            teacher_h = self.teacher.run_backbone(self.teacher.embed(batch.teacher_ids))
        self.tally.total("teacher_s", _now(model) - began)
        h_BLH, d_BMH = model.hiddens(batch.ids)
        h_NH = h_BLH[tuple(batch.draft.at.T)]
        # the last pair's hidden predicts no pair that was fed, so drafts all lie within d_BMH
        d_NH = d_BMH[tuple(batch.draft.at.T)]
        backbone, _ = self._head(0, model, h_BLH[tuple(batch.first.at.T)], teacher_h, batch.first, 1 / totals[0])
        mtp, target = self._head(1, model, d_NH, teacher_h, batch.draft, self.mtp_weight / totals[1])
        confidence = model.confidence_head(h_NH.detach(), d_NH.detach())
        self.tally.gate(confidence, target)
        return backbone, mtp, self.confidence_weight * confidence_sum(confidence, target) / totals[2]

    def _head(
        self, head: int, model: Any, hidden_NH: torch.Tensor, teacher_h: torch.Tensor, places: Places, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One head's scaled divergence, and each place's chance that the teacher would accept its token [N]."""
        teacher_NH = teacher_h[tuple(places.teacher_at.T)]
        pad, chunk = model.config.pad_token_id, chunk_places(len(model.lm_head.weight), self.chunk)
        sampled = self.kind != "full"

        def log_p(logits_nV: torch.Tensor) -> torch.Tensor:
            logits_nV = logits_nV.index_fill(-1, torch.tensor(pad, device=logits_nV.device), -1e9)
            return F.log_softmax(logits_nV / self.temperature, -1)

        def loss(logits_nV: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            ids = places.ids[part]
            s, t = log_p(logits_nV), log_p(self.teacher.lm_head(teacher_NH[part]).float())
            value = divergence_sum(s, t, ids, self.kind, self.top, self.memory[head], self.beta)
            at = ids[:, None]
            said = s if self.temperature == 1 else log_p(logits_nV * self.temperature)
            extra = (opd_target(s, t, ids if sampled else None), said.gather(-1, at), (s - t).gather(-1, at))
            return value * scale, torch.cat([e.detach().view(-1, 1) for e in extra], 1)

        total, extras = head_loss(hidden_NH, model.lm_head.weight, loss, chunk)
        target, said, ratio = torch.cat(extras).T if extras else hidden_NH.new_zeros(3, 0)
        self._compare(head, said, places.logprobs.to(said.device))
        if self.kind == "sampled" and len(ratio):
            self.memory[head] = 0.9 * self.memory[head] + 0.1 * float(ratio.mean())
        return total, target

    def _compare(self, head: int, mine_N: torch.Tensor, engine_N: torch.Tensor) -> None:
        """The gap between the trainer's log-probabilities and the engine's, over places that the engine spoke of."""
        gap = (mine_N - engine_N)[~engine_N.isnan()].abs()
        self.tally.add("logprob_gap", float(gap.sum()), len(gap))
        if len(gap):
            self.tally.most("logprob_gap_max", float(gap.max()))

    def metrics(self) -> dict[str, float]:
        """Means of the step: confidence, its target, ``kept@t``, the gap to the engine; ``teacher_s`` seconds."""
        return self.tally.drain()


def _now(model: Any) -> float:
    """Seconds, after what a GPU still has to do."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
