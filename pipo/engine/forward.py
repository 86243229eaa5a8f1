"""Forward passes over cached rows: a ragged prefill, and a step of a few tokens a row.

Exact to float32 rounding against the Hugging Face layers whose weights they use (tests/unit/test_engine_forward.py).
Written for few torch calls: at the sizes of the lab the calls, not the arithmetic, take the time.

Shape legend: n rows, S new tokens a row, N = n*S, T padded prompt length, H hidden, D head size, C conv channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

from pipo.engine.cache import KV, Cache, Plan, State
from pipo.engine.weights import Attention, Layer, LinearAttention, Weights


def embed(w: Weights, ids: Tensor) -> Tensor:
    """Token embeddings, [...] -> [..., H]."""
    return F.embedding(ids, w.embed)


def logits(w: Weights, h_NH: Tensor) -> Tensor:
    """Float32 logits [N, V] of hiddens [N, H]; -inf at PAD."""
    return F.linear(h_NH, w.head, w.head_bias).float()


def confidence(w: Weights, h_NH: Tensor, d_NH: Tensor) -> Tensor:
    """Confidence in the drafts, [N], float32 in [0, 1]."""
    c = w.confidence
    assert c is not None
    x = F.silu(torch.mm(c.unit(torch.cat([h_NH, d_NH], 1)), c.fc1_t))
    return torch.mm(x, c.fc2_t).squeeze(1).float().sigmoid()


def _mlp(layer: Layer, x_NH: Tensor) -> Tensor:
    gate, up = torch.mm(layer.unit(x_NH), layer.up_t).chunk(2, 1)
    return torch.addmm(x_NH, layer.act(gate) * up, layer.down_t)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary over the last dimension, whose halves swap (weights.rotary_order); the table's sine carries the sign."""
    half = x.shape[-1] // 2
    swapped = x.unflatten(-1, (2, half)).flip(-2).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin)


def _out(a: Attention, x_NH: Tensor, o: Tensor, p: Tensor) -> Tensor:
    """Output gate, output projection and residual."""
    if a.gated:
        o = o * p.narrow(1, p.shape[1] - o.shape[1], o.shape[1]).sigmoid()
    x_NH = x_NH if a.out_bias is None else x_NH + a.out_bias
    return torch.addmm(x_NH, o, a.out_t)


def _project(a: Attention, y_NH: Tensor) -> Tensor:
    return torch.mm(y_NH, a.proj_t) if a.bias is None else torch.addmm(a.bias, y_NH, a.proj_t)


def _attention_step(a: Attention, kv: KV, x_NH: Tensor, plan: Plan) -> Tensor:
    p = _project(a, a.unit(x_NH))
    n, S, N, D, G = plan.n, plan.S, len(x_NH), a.head_dim, a.heads // a.kv_heads
    both = a.heads + a.kv_heads
    qk = a.qk_unit(p.narrow(1, 0, both * D).view(N, both, D)) * a.qk_scale
    qk = _rotate(qk, plan.cos, plan.sin)
    kv.k_flat.index_copy_(0, plan.write, qk.narrow(1, a.heads, a.kv_heads).reshape(-1, D))
    kv.v_flat.index_copy_(0, plan.write, p.narrow(1, both * D, a.kv_heads * D).reshape(-1, D))
    k = kv.k.narrow(0, 0, n).narrow(2, 0, plan.length)
    v = kv.v.narrow(0, 0, n).narrow(2, 0, plan.length)
    q = qk.narrow(1, 0, a.heads)
    if S == 1:
        o = F.scaled_dot_product_attention(q.reshape(n, a.kv_heads, G, D), k, v, attn_mask=plan.mask, scale=1.0)
        return _out(a, x_NH, o.reshape(N, -1), p)
    q = q.reshape(n, S, a.kv_heads, G, D).transpose(1, 2).reshape(n, a.kv_heads, S * G, D)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=plan.mask, scale=1.0)
    return _out(a, x_NH, o.view(n, a.kv_heads, S, G, D).transpose(1, 2).reshape(N, -1), p)


def _gates(a: LinearAttention, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split a projection into conv input, output gate z, beta and the log of the decay g (both float32)."""
    qkv, z, b, dt = p.split_with_sizes(a.sizes, -1)
    return qkv, z, b.float().sigmoid(), F.softplus(dt.float()) * a.decay


def _linear_out(a: LinearAttention, x_NH: Tensor, o: Tensor, z: Tensor) -> Tensor:
    """Norm before gate, output projection and residual; ``o`` [N, Hv, Dv] float32."""
    o = a.out_unit(o).flatten(1) * F.silu(z.float())
    return torch.addmm(x_NH, o.to(x_NH.dtype), a.out_t)


def _linear_step(a: LinearAttention, state: State, x_NH: Tensor, n: int, S: int) -> Tensor:
    qkv, z, beta, g = _gates(a, torch.addmm(a.bias, a.unit(x_NH), a.proj_t))
    taps, C = a.conv_KC.shape
    window = torch.cat([state.conv, qkv.view(n, S, C)], 1)
    if S == 1:
        mixed = (window * a.conv_KC).sum(1)
        state.conv = window.narrow(1, 1, taps - 1)
    else:
        mixed = (window.unfold(1, taps, 1) * a.conv_KC.t()).sum(-1).view(n * S, C)
        state.window, state.recs = window, []
    mixed = F.silu(mixed)
    qk = a.qk_unit(mixed.narrow(1, 0, 2 * a.key_heads * a.key_dim).view(-1, 2 * a.key_heads, a.key_dim).float())
    if a.value_heads > a.key_heads:
        qk = qk.repeat_interleave(a.value_heads // a.key_heads, 1)
    v = mixed.narrow(1, 2 * a.key_heads * a.key_dim, a.value_heads * a.value_dim).float()
    decay = g.exp()
    if S == 1:
        state.rec, o = _delta(a, state.rec, qk, v, decay, beta)
        return _linear_out(a, x_NH, o, z)
    outs, rec = [], state.rec
    parts = [t.unflatten(0, (n, S)).unbind(1) for t in (qk, v, decay, beta)]
    for qk_t, v_t, decay_t, beta_t in zip(*parts, strict=True):
        rec, o = _delta(a, rec, qk_t, v_t, decay_t, beta_t)
        state.recs.append(rec)
        outs.append(o)
    return _linear_out(a, x_NH, torch.stack(outs, 1).flatten(0, 1), z)


def _delta(
    a: LinearAttention, rec: Tensor, qk: Tensor, v: Tensor, decay: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of the gated delta rule: the new state [n, Hv, Dk, Dv] and the output [n, Hv, Dv] (unscaled query).

    ``qk`` [n, 2 Hv, Dk] unit vectors, ``v`` [n, Hv Dv], ``decay`` and ``beta`` [n, Hv].
    """
    q, k = qk.view(-1, 2, a.value_heads, a.key_dim).unbind(1)
    k = k.reshape(-1, 1, a.key_dim)
    new = rec.view(-1, a.key_dim, a.value_dim) * decay.reshape(-1, 1, 1)
    change = (v.reshape(-1, 1, a.value_dim) - torch.bmm(k, new)) * beta.reshape(-1, 1, 1)
    new.baddbmm_(k.transpose(1, 2), change)
    o = torch.bmm(q.reshape(-1, 1, a.key_dim), new)
    return new.view(rec.shape), o.view(-1, a.value_heads, a.value_dim)


def step(w: Weights, cache: Cache, x_NH: Tensor, plan: Plan) -> Tensor:
    """Backbone hiddens [N, H] after the final norm for S new inputs a row, [n*S, H], placed by ``plan``.

    Keys, values and states are written; the caller says with ``cache.advance`` or ``accept`` how many stay.
    """
    full = linear = 0
    for layer in w.layers:
        if isinstance(layer.mixer, LinearAttention):
            x_NH = _linear_step(layer.mixer, cache.states[linear], x_NH, plan.n, plan.S)
            linear += 1
        else:
            x_NH = _attention_step(layer.mixer, cache.kv[full], x_NH, plan)
            full += 1
        x_NH = _mlp(layer, x_NH)
    return w.unit(x_NH) * w.norm


def _fuse(w: Weights, embed_NH: Tensor, hidden_NH: Tensor) -> Tensor:
    both = torch.cat([w.mtp.embed_unit(embed_NH), w.mtp.hidden_unit(hidden_NH)], 1)
    return torch.mm(both, w.mtp.fc_t)


def mtp_step(w: Weights, cache: Cache, embed_NH: Tensor, hidden_NH: Tensor, plan: Plan) -> Tensor:
    """Draft hiddens d [N, H] from the embeddings of the next tokens and the hiddens; writes the MTP cache."""
    layer = w.mtp.layer
    assert isinstance(layer.mixer, Attention)
    x = _attention_step(layer.mixer, cache.kv[-1], _fuse(w, embed_NH, hidden_NH), plan)
    return w.mtp.unit(_mlp(layer, x)) * w.mtp.norm


def _keys(w: Weights, a: Attention, p: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [N, kv_heads, D] alone, from the k and v columns of the projection."""
    k, v = p.view(-1, 2 * a.kv_heads, a.head_dim).chunk(2, 1)
    return _rotate(a.qk_unit(k) * a.qk_scale[a.heads :], cos, sin), v


def mtp_keys(w: Weights, embed_NH: Tensor, hidden_NH: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the MTP layer that later places read: fused projection, k, k-norm, rotary and v."""
    a = w.mtp.layer.mixer
    assert isinstance(a, Attention)
    lo, hi = a.heads * a.head_dim, (a.heads + 2 * a.kv_heads) * a.head_dim
    p = torch.mm(a.unit(_fuse(w, embed_NH, hidden_NH)), a.proj_t[:, lo:hi])
    return _keys(w, a, p if a.bias is None else p + a.bias[lo:hi], cos, sin)


def mtp_write(w: Weights, cache: Cache, embed_NH: Tensor, hidden_NH: Tensor, plan: Plan) -> None:
    """Write the MTP cache at the plan's places without running the rest of the layer."""
    k, v = mtp_keys(w, embed_NH, hidden_NH, plan.cos, plan.sin)
    cache.kv[-1].k_flat.index_copy_(0, plan.write, k.reshape(-1, w.head_dim))
    cache.kv[-1].v_flat.index_copy_(0, plan.write, v.reshape(-1, w.head_dim))


def mtp_fill(w: Weights, cache: Cache, embed_nLH: Tensor, hidden_nLH: Tensor) -> None:
    """Fill the MTP cache of freshly prefilled rows at places 0 .. L-1 (ragged rows: what is beyond is overwritten)."""
    n, L, _ = embed_nLH.shape
    cos = cache.angles.cos_PD[:L].repeat(n, 1)[:, None]
    sin = cache.angles.sin_PD[:L].repeat(n, 1)[:, None]
    k, v = mtp_keys(w, embed_nLH.flatten(0, 1), hidden_nLH.flatten(0, 1), cos, sin)
    kv = cache.kv[-1]
    kv.k[:n, :, :L] = k.view(n, L, -1, w.head_dim).transpose(1, 2)
    kv.v[:n, :, :L] = v.view(n, L, -1, w.head_dim).transpose(1, 2)


def _attention_prefill(a: Attention, kv: KV, x_NH: Tensor, n: int, cos: Tensor, sin: Tensor) -> Tensor:
    p = _project(a, a.unit(x_NH))
    T, D, both = len(x_NH) // n, a.head_dim, a.heads + a.kv_heads
    qk = a.qk_unit(p.narrow(1, 0, both * D).view(-1, both, D)) * a.qk_scale
    qk = _rotate(qk.view(n, T, both, D), cos, sin).transpose(1, 2)
    v = p.narrow(1, both * D, a.kv_heads * D).reshape(n, T, a.kv_heads, D).transpose(1, 2)
    q, k = qk.narrow(1, 0, a.heads), qk.narrow(1, a.heads, a.kv_heads)
    kv.k[:n, :, :T] = k
    kv.v[:n, :, :T] = v
    gqa = a.heads != a.kv_heads
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=gqa)
    return _out(a, x_NH, o.transpose(1, 2).reshape(n * T, -1), p)


def _linear_prefill(
    a: LinearAttention, x_NH: Tensor, n: int, lens_n: Tensor, real_nT1: Tensor | None
) -> tuple[Tensor, State]:
    p = torch.addmm(a.bias, a.unit(x_NH), a.proj_t)
    T = len(x_NH) // n
    qkv, z, beta, g = _gates(a, p)
    taps, C = a.conv_KC.shape
    padded = F.pad(qkv.reshape(n, T, C), (0, 0, taps - 1, 0))
    mixed = padded[:, :T] * a.conv_KC[0]
    for i in range(1, taps):
        mixed = mixed.addcmul_(padded[:, i : i + T], a.conv_KC[i])
    q, k, v = F.silu(mixed).split_with_sizes(
        (a.key_heads * a.key_dim, a.key_heads * a.key_dim, a.value_heads * a.value_dim), -1
    )
    q, k = q.unflatten(-1, (-1, a.key_dim)), k.unflatten(-1, (-1, a.key_dim))
    if a.value_heads > a.key_heads:
        q, k = (t.repeat_interleave(a.value_heads // a.key_heads, 2) for t in (q, k))
    g, beta = g.view(n, T, -1), beta.view(n, T, -1)
    if real_nT1 is not None:  # padding leaves the state as it is: no decay, no update
        g, beta = g * real_nT1, beta * real_nT1
    o, rec = torch_chunk_gated_delta_rule(
        q, k, v.unflatten(-1, (-1, a.value_dim)), g=g, beta=beta,
        output_final_state=True, use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    o = (o.float() * a.key_dim**0.5).reshape(n * T, a.value_heads, a.value_dim)
    last = lens_n[:, None] + torch.arange(taps - 1, device=x_NH.device)
    conv = padded[torch.arange(n, device=x_NH.device)[:, None], last]
    return _linear_out(a, x_NH, o, z), State(conv, rec.float())


def prefill(w: Weights, cache: Cache, x_nTH: Tensor) -> Tensor:
    """Backbone hiddens [n, T, H] of right-padded inputs; fills a fresh cache whose ``lens`` are the real lengths."""
    n, T, H = x_nTH.shape
    cache.angles.reserve(T)
    cos, sin = cache.angles.cos_PD[:T, None], cache.angles.sin_PD[:T, None]
    lens_n = torch.tensor(cache.lens, device=x_nTH.device)
    real = None
    if min(cache.lens) < T:
        real = (torch.arange(T, device=x_nTH.device) < lens_n[:, None])[:, :, None]
    x, full = x_nTH.reshape(n * T, H), 0
    for layer in w.layers:
        if isinstance(layer.mixer, LinearAttention):
            x, state = _linear_prefill(layer.mixer, x, n, lens_n, real)
            cache.states.append(state)
        else:
            x = _attention_prefill(layer.mixer, cache.kv[full], x, n, cos, sin)
            full += 1
        x = _mlp(layer, x)
    return (w.unit(x) * w.norm).view(n, T, H)
