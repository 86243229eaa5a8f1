"""The engine's cached forward equals the Hugging Face forward: prefill, steps, both backbones, MTP cache included."""

import pytest
import torch

from pipo.engine import forward as fw
from pipo.engine.cache import Angles, Cache
from pipo.engine.weights import make_weights, rotary_order
from pipo.model.testing import tiny_model

KINDS = ("hybrid", "dense")


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    worst = (ours - theirs).abs().max().item()
    assert worst < 1e-4, f"largest difference {worst:.2e}"


def prefilled(model, ids: list[torch.Tensor]):
    """Weights, cache and hiddens after a ragged prefill of token rows."""
    w = make_weights(model)
    lens = [len(r) for r in ids]
    batch = torch.zeros(len(ids), max(lens), dtype=torch.long)
    for i, r in enumerate(ids):
        batch[i, : len(r)] = r
    cache = Cache(w, Angles(w), lens, max(lens))
    return w, cache, fw.prefill(w, cache, fw.embed(w, batch))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_ragged_prefill_then_steps_equal_one_forward(kind):
    model = tiny_model(kind, pipo=False)
    rows = [torch.randint(3, 64, (n,)) for n in (90, 70, 12)]
    cut = [80, 60, 2]
    want = [model.run_backbone(model.embed(r[None]))[0] for r in rows]
    w, cache, h = prefilled(model, [r[:c] for r, c in zip(rows, cut, strict=True)])
    for i, c in enumerate(cut):
        close(h[i, :c], want[i][:c])
    for S in (1, 1, 3, 1, 4):
        at = cache.lens
        new = torch.stack([r[a : a + S] for r, a in zip(rows, at, strict=True)])
        out = fw.step(w, cache, fw.embed(w, new).flatten(0, 1), cache.plan(at, S)).view(3, S, -1)
        for i, a in enumerate(at):
            close(out[i], want[i][a : a + S])
        cache.advance(S)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_rejected_tokens_leave_no_trace(kind):
    model = tiny_model(kind, pipo=False)
    rows = [torch.randint(3, 64, (n,)) for n in (30, 20)]
    want = [model.run_backbone(model.embed(r[None]))[0] for r in rows]
    w, cache, _ = prefilled(model, [rows[0][:20], rows[1][:9]])
    wrong = torch.randint(3, 64, (2, 4))
    for accepted in ([1, 3], [2, 2], [4, 1]):
        at = list(cache.lens)
        new = wrong.clone()
        for i, c in enumerate(accepted):
            new[i, :c] = rows[i][at[i] : at[i] + c]
        out = fw.step(w, cache, fw.embed(w, new).flatten(0, 1), cache.plan(at, 4)).view(2, 4, -1)
        for i, c in enumerate(accepted):
            close(out[i, :c], want[i][at[i] : at[i] + c])
        cache.accept(accepted)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_mtp_cache_filled_at_prefill_equals_the_full_mtp_forward(kind):
    model = tiny_model(kind, pipo=False)
    ids = torch.randint(3, 64, (1, 40))
    want = model.forward_regular(ids)
    w, cache, h = prefilled(model, [ids[0, :30]])
    fw.mtp_fill(w, cache, fw.embed(w, ids[:, 1:30]), h[:, :29])
    for place in range(29, 39):
        plan = cache.plan([place], 1)
        if place >= 30:
            h_place = fw.step(w, cache, fw.embed(w, ids[0, place : place + 1]), plan)
            cache.advance(1)
        else:
            h_place = h[:, 29]
        d = fw.mtp_step(w, cache, fw.embed(w, ids[0, place + 1 : place + 2]), h_place, plan)
        close(d, want.mtp_hidden[:, place])


@torch.inference_mode()
def test_rows_move_repeat_and_join_with_their_caches():
    model = tiny_model("hybrid", pipo=False)
    rows = [torch.randint(3, 64, (n,)) for n in (31, 21, 11, 26)]
    want = [model.run_backbone(model.embed(r[None]))[0, -1] for r in rows]
    w, cache, _ = prefilled(model, [r[:-1] for r in rows[:3]])
    _, late, _ = prefilled(model, [rows[3][:-1]])
    cache.keep([2, 1])
    cache.join(late.repeat([0, 0]))
    order = [2, 1, 3, 3]
    new = torch.stack([rows[i][-1] for i in order])
    out = fw.step(w, cache, fw.embed(w, new), cache.plan(cache.lens, 1))
    for i, r in enumerate(order):
        close(out[i], want[r])


def test_rotary_order_keeps_partners_half_a_head_apart():
    order = rotary_order(16, 4)
    assert sorted(order) == list(range(16))
    assert [order[i] for i in (0, 8, 1, 9)] == [0, 2, 1, 3], "rotary pairs (0, 2) and (1, 3) swap across the halves"
