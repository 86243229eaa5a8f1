"""The engine's cached forward equals the Hugging Face forward: prefill, chunks, steps, roll-back, both backbones."""

import numpy as np
import pytest
import torch

from pipo.engine import delta
from pipo.engine import forward as fw
from pipo.engine.attention import attend_chunk, in_blocks
from pipo.engine.cache import Arena
from pipo.engine.layout import make_weights, rotary_order
from pipo.engine.linear import KEEP_BOTH, Linear
from pipo.engine.plan import make_plan
from pipo.model.testing import KINDS, tiny_model


def close(ours: torch.Tensor, theirs: torch.Tensor, limit: float = 1e-4) -> None:
    worst = (ours - theirs).abs().max().item()
    assert worst < limit, f"largest difference {worst:.2e}"


def arena_of(model, rows: int = 4) -> Arena:
    w = make_weights(model)
    return Arena(w, make_plan(w, 4096, rows, 128, None))


def prefilled(arena: Arena, ids: list[torch.Tensor], first: int = 0) -> torch.Tensor:
    """Hiddens after one ragged pass over token rows, into the rows from ``first`` on."""
    lens = [len(r) for r in ids]
    batch = torch.zeros(len(ids), max(lens), dtype=torch.long)
    for i, r in enumerate(ids):
        batch[i, : len(r)] = r
    arena.lens[first : first + len(ids)] = lens
    return fw.prefill(arena.w, arena, fw.embed(arena.w, batch), fw.make_chunk(arena, first, 0, lens))


def stepped(arena: Arena, first: int, new_nS: torch.Tensor) -> torch.Tensor:
    """Hiddens [n, S, H] of S new tokens a row; nothing is committed but what S = 1 writes."""
    n, S = new_nS.shape
    lens = arena.lens[first : first + n]
    plan = arena.place(first, torch.tensor(lens), S, int(lens.max()) + S, ragged=len(set(lens.tolist())) > 1)
    return fw.step(arena.w, arena, fw.embed(arena.w, new_nS).flatten(0, 1), plan).view(n, S, -1)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_ragged_prefill_then_steps_equal_one_forward(kind):
    model = tiny_model(kind, pipo=False)
    rows = [torch.randint(3, 64, (n,)) for n in (110, 90, 32)]
    cut = [80, 60, 2]
    want = [model.run_backbone(model.embed(r[None]))[0] for r in rows]
    arena = arena_of(model)
    h = prefilled(arena, [r[:c] for r, c in zip(rows, cut, strict=True)], first=1)
    for i, c in enumerate(cut):
        close(h[i, :c], want[i][:c])
    for S in (1, 1, 3, 1, 4, 2, 9):
        at = arena.lens[1:].tolist()
        out = stepped(arena, 1, torch.stack([r[a : a + S] for r, a in zip(rows, at, strict=True)]))
        for i, a in enumerate(at):
            close(out[i], want[i][a : a + S])
        if S > 1:
            arena.accept(1, torch.full((3,), S))
        arena.lens[1:] += S


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lens", [[5, 40, 1, 30], [64, 64], [3, 100]])
@torch.inference_mode()
def test_a_prompt_in_chunks_equals_one_forward(kind, lens):
    model = tiny_model(kind, pipo=False)
    ids = torch.randint(3, 64, (sum(lens) + 1,))
    want = model.run_backbone(model.embed(ids[None]))[0]
    arena, at = arena_of(model), 0
    for n in lens:
        chunk = fw.make_chunk(arena, 2, at, [n])
        h = fw.prefill(arena.w, arena, fw.embed(arena.w, ids[None, at : at + n]), chunk)[0]
        close(h, want[at : at + n], 3e-4)  # what float32 itself is off by here is 1e-4
        at += n
        arena.lens[2] = at
    close(stepped(arena, 2, ids[None, -1:])[0, 0], want[-1], 3e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_rejected_tokens_leave_no_trace(kind):
    model = tiny_model(kind, pipo=False)
    rows = [torch.randint(3, 64, (n,)) for n in (40, 30)]
    want = [model.run_backbone(model.embed(r[None]))[0] for r in rows]
    arena = arena_of(model)
    prefilled(arena, [rows[0][:20], rows[1][:9]])
    wrong = torch.randint(3, 64, (2, 4))
    for accepted in ([1, 3], [2, 2], [4, 1], [1, 1], [4, 4]):
        at = arena.lens[:2].tolist()
        new = wrong.clone()
        for i, c in enumerate(accepted):
            new[i, :c] = rows[i][at[i] : at[i] + c]
        out = stepped(arena, 0, new)
        for i, c in enumerate(accepted):
            close(out[i, :c], want[i][at[i] : at[i] + c])
        arena.accept(0, torch.tensor(accepted))
        arena.lens[:2] += np.array(accepted)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_mtp_cache_filled_at_prefill_equals_the_full_mtp_forward(kind):
    model = tiny_model(kind, pipo=False)
    ids = torch.randint(3, 64, (1, 40))
    want = model.forward_regular(ids)
    arena = arena_of(model)
    h = prefilled(arena, [ids[0, :30]])
    fw.mtp_fill(arena.w, arena, fw.embed(arena.w, ids[:, 1:31]), h, fw.make_chunk(arena, 0, 0, [30]))
    for place in range(29, 39):
        plan = arena.place(0, torch.tensor([place]), 1, place + 1, ragged=False)
        h_place = h[:, 29]
        if place >= 30:
            h_place = stepped(arena, 0, ids[:, place : place + 1])[:, 0]
            arena.lens[0] += 1
        d = fw.mtp_step(arena.w, arena, fw.embed(arena.w, ids[0, place + 1 : place + 2]), h_place, plan)
        close(d, want.mtp_hidden[:, place])


@torch.inference_mode()
def test_rows_are_copied_with_their_caches():
    model = tiny_model("hybrid", pipo=False)
    rows = [torch.randint(3, 64, (n,)) for n in (31, 21, 11)]
    want = [model.run_backbone(model.embed(r[None]))[0, -1] for r in rows]
    arena = arena_of(model)
    prefilled(arena, [r[:-1] for r in rows])
    arena.copy(2, 3)
    arena.copy(1, 0)
    order = [1, 1, 2, 2]
    out = stepped(arena, 0, torch.stack([rows[i][-1:] for i in order]))[:, 0]
    for i, r in enumerate(order):
        close(out[i], want[r])


@pytest.mark.parametrize("heads", [2, 6])
def test_a_chunk_attends_to_its_past_as_one_pass_would(heads):
    q, k, v = torch.randn(heads, 50, 8), torch.randn(2, 50, 8), torch.randn(2, 50, 8)
    want = torch.nn.functional.scaled_dot_product_attention(
        q[None], k[None], v[None], is_causal=True, scale=1.0, enable_gqa=True
    )[0]
    close(attend_chunk(q[:, 30:], k[:, :30], v[:, :30], k[:, 30:], v[:, 30:]), want[:, 30:], 1e-5)
    k, v = (t.repeat_interleave(heads // 2, 0)[None] for t in (k, v))
    for size in (7, 20, 64):
        close(in_blocks(q[None, :, 30:], k, v, size)[0], want[:, 30:], 1e-5)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("shape", [(24, 40), (300, 500), (1024, 600)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_packed_products_equal_plain_ones(rows, shape, bias):
    w, b = torch.randn(shape) / shape[0] ** 0.5, torch.randn(shape[1]) if bias else None
    x, residual = torch.randn(rows, shape[0]), torch.randn(rows, shape[1])
    linear = Linear(w, b)
    assert linear.packed is not None and (linear.w_t is None) == (w.numel() > KEEP_BOTH)
    want = x.double() @ w.double() + (0 if b is None else b.double())
    kept = residual.clone()
    close(linear(x).double(), want, 1e-5)
    close(linear(x, residual).double(), want + residual.double(), 1e-5)
    assert torch.equal(residual, kept), "the residual is not written to"
    wide = torch.randn(rows, 2 * shape[0])
    close(linear(wide[:, ::2]).double(), linear(wide[:, ::2].contiguous()).double(), 1e-5)


def test_rotary_order_keeps_partners_half_a_head_apart():
    order = rotary_order(16, 4)
    assert sorted(order) == list(range(16))
    assert [order[i] for i in (0, 8, 1, 9)] == [0, 2, 1, 3], "rotary pairs (0, 2) and (1, 3) swap across the halves"


@pytest.mark.parametrize("S", [1, 2, 3, 4, 5, 9])
@torch.inference_mode()
def test_the_delta_rules_forms_agree(S):
    """One token after the other, a few at once and then written, a prompt in blocks: the same outputs and states."""
    n, heads, D = 3, 2, 16
    qk = torch.nn.functional.normalize(torch.randn(n, S, heads, 2, D), dim=-1)
    v, g, beta = torch.randn(n, S, heads, D), -3 * torch.rand(n, S, heads), torch.rand(n, S, heads)
    before = torch.randn(n, heads, D, D)
    state = before.flatten(0, 1).clone()
    want = delta.in_turn(state, qk, v, g, beta)
    kept = before.flatten(0, 1).clone()
    got, k, u, G = delta.few(kept, qk, v, g, beta)
    assert torch.equal(kept, before.flatten(0, 1)), "the state is only read"
    close(got, want, 1e-5)
    written = before.flatten(0, 1) * G[:, -1:].exp() + (k * (G[:, -1:] - G).exp()).transpose(1, 2) @ u
    close(written, state, 1e-5)
    for size in (None, 2, 16):
        got, after = delta.many(before, qk, v, g, beta, size)
        close(got.flatten(0, 1), want, 1e-5)
        close(after.flatten(0, 1), state, 1e-5)
