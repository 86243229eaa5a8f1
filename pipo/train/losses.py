"""Losses as pure functions of log-probabilities. No model, no state.

Every loss is a sum over places and comes with the number of places, so that a step may be cut into any number of
micro-batches: the parts are added and divided by the step's total. N places, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from pipo.errors import BadInput

KL = Literal["full", "topk", "sampled"]


def nll_sum(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Summed cross entropy of labels >= 0."""
    return F.cross_entropy(logits_NV.float(), labels_N, ignore_index=-100, reduction="sum")


def confidence_sum(confidence_N: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """Summed binary cross entropy of confidence logits against acceptance probabilities (no gradient to these)."""
    return F.binary_cross_entropy_with_logits(confidence_N.float(), target_N.detach().float(), reduction="sum")


def sft_target(mtp_logits_NV: torch.Tensor, gold_N: torch.Tensor) -> torch.Tensor:
    """Confidence target of SFT: p_d(gold), the acceptance probability when the teacher is a point mass on gold."""
    return F.log_softmax(mtp_logits_NV.detach().float(), -1).gather(-1, gold_N[:, None]).squeeze(-1).exp()


def opd_target(student_NV: torch.Tensor, teacher_NV: torch.Tensor, sampled_N: torch.Tensor | None) -> torch.Tensor:
    """Confidence target of OPD from log-probabilities.

    Without ``sampled_N``: sum_y min(p_s, p_t), the chance that a speculative test keeps a draft; with it:
    min(1, p_t(y) / p_s(y)) at the draft y that was sampled.
    """
    if sampled_N is None:
        return torch.minimum(student_NV.detach().exp(), teacher_NV.exp()).sum(-1)
    at = sampled_N[:, None]
    return (teacher_NV.gather(-1, at) - student_NV.detach().gather(-1, at)).squeeze(-1).clamp(max=0).exp()


def reverse_kl_sum(
    student_NV: torch.Tensor,
    teacher_NV: torch.Tensor,
    sampled_N: torch.Tensor | None = None,
    kind: KL = "full",
    top: int = 32,
    baseline: float | torch.Tensor = 0.0,
) -> torch.Tensor:
    """Summed reverse KL(student || teacher) over places, from log-probabilities [N, V].

    ``full``: exact. ``topk``: over the union of both top sets and the sampled token, both renormalised there.
    ``sampled``: the score-function estimator at ``sampled_N``: its value is (log p_s - log p_t - baseline) detached
    times log p_s, and the mean of its gradient over y ~ p_s is the exact gradient.
    """
    if kind == "full":
        return (student_NV.exp() * (student_NV - teacher_NV)).sum()
    if sampled_N is None:
        raise BadInput(f"reverse KL {kind!r} needs the sampled tokens; 'full' does not")
    at = sampled_N[:, None]
    if kind == "sampled":
        log_s = student_NV.gather(-1, at).squeeze(-1)
        gap = (log_s - teacher_NV.gather(-1, at).squeeze(-1)).detach()
        return ((gap - baseline) * log_s).sum()
    if kind == "topk":
        k = min(top, student_NV.shape[-1])
        chosen = torch.zeros_like(student_NV, dtype=torch.bool)
        chosen.scatter_(-1, student_NV.detach().topk(k).indices, True)
        chosen.scatter_(-1, teacher_NV.topk(k).indices, True)
        chosen.scatter_(-1, at, True)
        s = F.log_softmax(student_NV.masked_fill(~chosen, -torch.inf), -1).masked_fill(~chosen, 0.0)
        t = F.log_softmax(teacher_NV.masked_fill(~chosen, -torch.inf), -1).masked_fill(~chosen, 0.0)
        return (s.exp() * (s - t)).sum()
    raise BadInput(f"reverse KL {kind!r} must be 'full', 'topk' or 'sampled'")
