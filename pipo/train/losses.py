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
MIN_LOG = -1e8  # below it a token counts as left out


def confidence_sum(confidence_N: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """Summed binary cross entropy of confidence logits against acceptance probabilities (no gradient to these)."""
    return F.binary_cross_entropy_with_logits(confidence_N.float(), target_N.detach().float(), reduction="sum")


def nll(logits_NV: torch.Tensor, gold_N: torch.Tensor) -> torch.Tensor:
    """Cross entropy at each place, [N]. exp(-nll) of a draft is SFT's confidence target: its chance to be gold."""
    return F.cross_entropy(logits_NV.float(), gold_N, reduction="none")


def opd_target(student_NV: torch.Tensor, teacher_NV: torch.Tensor, sampled_N: torch.Tensor | None) -> torch.Tensor:
    """Confidence target of OPD from log-probabilities.

    Without ``sampled_N``: sum_y min(p_s, p_t), the chance that a speculative test keeps a draft; with it:
    min(1, p_t(y) / p_s(y)) at the draft y that was sampled.
    """
    if sampled_N is None:
        return torch.minimum(student_NV.detach().exp(), teacher_NV.exp()).sum(-1)
    at = sampled_N[:, None]
    return (teacher_NV.gather(-1, at) - student_NV.detach().gather(-1, at)).squeeze(-1).clamp(max=0).exp()


def divergence_sum(
    student_NV: torch.Tensor,
    teacher_NV: torch.Tensor,
    sampled_N: torch.Tensor | None = None,
    kind: KL = "full",
    top: int = 32,
    baseline: float | torch.Tensor = 0.0,
    beta: float = 1.0,
) -> torch.Tensor:
    """Summed divergence of the student from the teacher over places, from log-probabilities [N, V].

    ``full``: over the vocabulary. ``topk``: over the union of both top sets and the sampled token, both renormalised
    there. ``beta`` 1 is reverse KL(student || teacher), 0 forward KL, in between the Jensen-Shannon divergence
    beta KL(teacher || m) + (1 - beta) KL(student || m) with m = beta teacher + (1 - beta) student (arXiv 2306.13649).
    ``sampled``: the score-function estimator of reverse KL at ``sampled_N``: its value is (log p_s - log p_t -
    baseline) detached times log p_s, and the mean of its gradient over y ~ p_s is the exact gradient.
    """
    if kind == "full":
        return _divergence(student_NV, teacher_NV, beta)
    if sampled_N is None:
        raise BadInput(f"divergence {kind!r} needs the sampled tokens; 'full' does not")
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
        return _divergence(_renormalised(student_NV, chosen), _renormalised(teacher_NV, chosen), beta)
    raise BadInput(f"divergence {kind!r} must be 'full', 'topk' or 'sampled'")


def _renormalised(log_p_NV: torch.Tensor, chosen_NV: torch.Tensor) -> torch.Tensor:
    """Log-probabilities over the chosen tokens alone; the others get so little that they add nothing."""
    return F.log_softmax(log_p_NV.masked_fill(~chosen_NV, -1e9), -1)


def _kl(p_NV: torch.Tensor, q_NV: torch.Tensor) -> torch.Tensor:
    """Summed KL(p || q) of log-probabilities; a token that p never gives adds nothing."""
    return torch.where(p_NV > MIN_LOG, p_NV.exp() * (p_NV - q_NV), 0.0).sum()


def _divergence(student_NV: torch.Tensor, teacher_NV: torch.Tensor, beta: float) -> torch.Tensor:
    if beta == 1:
        return _kl(student_NV, teacher_NV)
    if beta == 0:
        return _kl(teacher_NV, student_NV)
    weights = torch.tensor([1 - beta, beta], device=student_NV.device).log()
    mixed = torch.logsumexp(torch.stack([student_NV + weights[0], teacher_NV + weights[1]]), 0)
    return beta * _kl(teacher_NV, mixed) + (1 - beta) * _kl(student_NV, mixed)
