"""Chunked losses equal the plain ones: values, gradients to hiddens and head, whatever the chunk."""

import pytest
import torch
import torch.nn.functional as F

from pipo.model.testing import tiny_model
from pipo.train.chunked import CHUNK_ELEMENTS, chunk_places, head_loss
from pipo.train.data import collate_pairs
from pipo.train.losses import nll
from pipo.train.objectives import PipoSFT


def inputs(seed=0, n=11, hidden=5, vocab=17):
    torch.manual_seed(seed)
    gold = torch.randint(vocab, (n,))
    return torch.randn(n, hidden, requires_grad=True), torch.randn(vocab, hidden, requires_grad=True), gold


def loss_of(gold):
    def loss(logits, part):
        each = nll(logits, gold[part])
        return each.sum() / 3, each.detach()

    return loss


@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
def test_value_and_both_gradients_equal_the_plain_loss(chunk):
    h, w, gold = inputs()
    total, each = head_loss(h, w, loss_of(gold), chunk)
    (2 * total).backward()
    h2, w2, _ = inputs()
    plain = F.cross_entropy(h2 @ w2.T, gold, reduction="sum") / 3
    (2 * plain).backward()
    assert torch.allclose(total, plain, atol=1e-5)
    assert torch.allclose(h.grad, h2.grad, atol=1e-6) and torch.allclose(w.grad, w2.grad, atol=1e-6)
    assert torch.allclose(torch.cat(each), F.cross_entropy(h2 @ w2.T, gold, reduction="none"), atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_costs_none():
    h, w, gold = inputs()
    total, _ = head_loss(h, w.detach(), loss_of(gold), 4)
    total.backward()
    assert h.grad is not None and w.grad is None


def test_without_gradients_nothing_is_kept():
    h, w, gold = inputs()
    with torch.no_grad():
        total, _ = head_loss(h, w, loss_of(gold), 4)
    assert not total.requires_grad


def test_no_places_are_a_loss_of_zero():
    h, w, gold = inputs(n=0)
    total, each = head_loss(h, w, loss_of(gold), 4)
    total.backward()
    assert total.item() == 0 and each == [] and not w.grad.any()


def test_chunks_follow_the_vocabulary():
    assert chunk_places(248_320) == CHUNK_ELEMENTS // 248_320 < 300
    assert chunk_places(128) > 100_000 and chunk_places(128, 7) == 7 and chunk_places(2**40) == 1


@pytest.mark.parametrize("kind", ["hybrid", "dense"])
def test_sft_gradients_do_not_depend_on_the_chunk(kind):
    import random

    from pipo.data.rows import Row

    rows = [Row([1, 5, 6], [7, 8, 9, 10, 2]), Row([1, 4], [11, 12, 2])]
    batch = collate_pairs(0, "shift", 0.5, 0.0)(rows, random.Random(1))
    found = []
    for chunk in (2, None):
        model = tiny_model(kind, layers=2)
        objective = PipoSFT(chunk=chunk)
        torch.stack(objective.loss(model, batch, objective.counts(batch))).sum().backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, g in found[0].items():
        assert torch.allclose(g, found[1][name], atol=1e-5), name
