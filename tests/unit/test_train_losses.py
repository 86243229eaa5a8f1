"""Losses against hand-computed values, and the sampled KL's gradient against the exact one."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipo.errors import BadInput
from pipo.train.losses import confidence_sum, divergence_sum, nll, opd_target

P = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log()
Q = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]).log()


def test_reverse_kl_full_by_hand():
    by_hand = 0.5 * math.log(2) + 0.25 * math.log(0.5) + 0.2 * math.log(0.5) + 0.8 * math.log(0.8 / 0.6)
    assert divergence_sum(P, Q).item() == pytest.approx(by_hand, abs=1e-6)


def test_reverse_kl_is_zero_at_the_teacher_for_every_kind():
    ids = torch.tensor([0, 2])
    for kind in ("full", "topk", "sampled"):
        assert divergence_sum(P, P, ids, kind, top=2).item() == pytest.approx(0, abs=1e-6)


def test_topk_is_renormalised_over_the_union():
    ids = torch.tensor([0])
    s, t = P[:1], torch.tensor([[0.3, 0.1, 0.6]]).log()
    ps, pt = torch.tensor([0.5, 0.25]) / 0.75, torch.tensor([0.3, 0.6]) / 0.9  # union of the tops: tokens 0 and 2
    want = (ps * (ps / pt).log()).sum().item()
    assert divergence_sum(s, t, ids, "topk", top=1).item() == pytest.approx(want, abs=1e-6)
    assert divergence_sum(s, t, ids, "topk", top=3).item() == pytest.approx(divergence_sum(s, t).item(), abs=1e-6)


def test_topk_gradient_is_finite_and_exact_when_top_is_everything():
    logits = torch.randn(2, 6, requires_grad=True)
    teacher, ids = F.log_softmax(torch.randn(2, 6), -1), torch.tensor([0, 3])
    for top, exact in ((6, True), (2, False)):
        topk = torch.autograd.grad(divergence_sum(F.log_softmax(logits, -1), teacher, ids, "topk", top=top), logits)[0]
        full = torch.autograd.grad(divergence_sum(F.log_softmax(logits, -1), teacher), logits)[0]
        assert torch.isfinite(topk).all()
        assert torch.allclose(topk, full, atol=1e-6) == exact


def test_mean_gradient_of_the_sampled_kl_is_the_exact_gradient():
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    teacher = F.log_softmax(torch.randn(5, dtype=torch.float64), -1)[None]

    def gradient(loss):
        return torch.autograd.grad(loss, logits)[0]

    exact = gradient(divergence_sum(F.log_softmax(logits, -1)[None], teacher))
    p = F.softmax(logits.detach(), -1)
    for baseline in (0.0, 0.7):  # the expectation over y ~ p_s, computed exactly
        mean = sum(
            p[y] * gradient(divergence_sum(F.log_softmax(logits, -1)[None], teacher, torch.tensor([y]), "sampled",
                                           baseline=baseline))
            for y in range(5)
        )  # fmt: skip
        assert torch.allclose(mean, exact, atol=1e-10), f"baseline {baseline}: {mean} is not {exact}"
    naive = sum(p[y] * gradient((F.log_softmax(logits, -1) - teacher[0])[y]) for y in range(5))
    assert naive.norm() < 1e-10 < exact.norm(), "the reference's form carries no signal; this one must"


def test_sampled_kl_estimate_converges():
    torch.manual_seed(1)
    logits = torch.randn(4, requires_grad=True)
    teacher = F.log_softmax(torch.randn(4), -1)
    log_s = F.log_softmax(logits, -1)
    exact = torch.autograd.grad(divergence_sum(log_s[None], teacher[None]), logits, retain_graph=True)[0]
    ids = torch.multinomial(log_s.detach().exp(), 40_000, replacement=True)
    total = divergence_sum(log_s.expand(40_000, 4), teacher.expand(40_000, 4), ids, "sampled", baseline=0.3)
    mean = torch.autograd.grad(total / 40_000, logits)[0]
    assert (mean - exact).norm() < 0.03 * max(1.0, exact.norm().item())


def test_confidence_targets_by_hand():
    assert torch.allclose(opd_target(P, Q, None), torch.tensor([0.75, 0.8]))
    ids = torch.tensor([0, 2])
    assert torch.allclose(opd_target(P, Q, ids), torch.tensor([0.5, 0.75]))
    assert torch.allclose(opd_target(P, Q, torch.tensor([1, 0])), torch.tensor([1.0, 1.0]))
    assert torch.allclose((-nll(P, ids)).exp(), torch.tensor([0.5, 0.8]))


def test_confidence_loss_has_no_gradient_to_the_target():
    target = torch.tensor([0.3], requires_grad=True)
    logit = torch.zeros(1, requires_grad=True)
    loss = confidence_sum(logit, target)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2)) and target.grad is None
    assert logit.grad.item() == pytest.approx(0.5 - 0.3)


def test_beta_goes_from_forward_to_reverse_kl_by_hand():
    p, q = P.exp(), Q.exp()

    def kl(a, b):
        return float((a * (a / b).log()).sum())

    assert divergence_sum(P, Q, beta=1.0).item() == pytest.approx(kl(p, q), abs=1e-6)
    assert divergence_sum(P, Q, beta=0.0).item() == pytest.approx(kl(q, p), abs=1e-6)
    for beta in (0.25, 0.5):
        m = beta * q + (1 - beta) * p
        want = beta * kl(q, m) + (1 - beta) * kl(p, m)
        assert divergence_sum(P, Q, beta=beta).item() == pytest.approx(want, abs=1e-6)
    half = divergence_sum(P, Q, beta=0.5).item()
    assert half == pytest.approx(divergence_sum(Q, P, beta=0.5).item(), abs=1e-6) and 0 < half < 2 * math.log(2)


def test_divergence_over_the_top_keeps_its_gradient_finite_for_every_beta():
    logits = torch.randn(3, 7, requires_grad=True)
    teacher, ids = F.log_softmax(torch.randn(3, 7), -1), torch.tensor([0, 3, 6])
    for beta in (0.0, 0.5, 1.0):
        loss = divergence_sum(F.log_softmax(logits, -1), teacher, ids, "topk", top=2, beta=beta)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, beta


def test_unknown_kind_and_missing_samples_are_refused():
    with pytest.raises(BadInput, match="needs the sampled tokens"):
        divergence_sum(P, Q, None, "topk")
    with pytest.raises(BadInput, match="must be 'full', 'topk' or 'sampled'"):
        divergence_sum(P, Q, torch.tensor([0, 1]), "forward")
