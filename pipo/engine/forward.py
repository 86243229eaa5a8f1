"""Forward passes over the arena's rows: a chunk of prompts, and a step of a few tokens a row.

Exact to float32 rounding against the Hugging Face layers whose weights they use (tests/unit/test_engine_forward.py).
Written for few torch calls: at the sizes of the lab the calls, not the arithmetic, take the time.

Shape legend: n rows, S new tokens a row, N = n*S, T places of a chunk, H hidden, D head size, C conv channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipo.engine import delta
from pipo.engine.attention import attend, attend_chunk, attend_fresh, flash
from pipo.engine.cache import KV, Arena, Pending, Plan, State
from pipo.engine.weights import Attention, Layer, LinearAttention, Weights


def f32(x: Tensor) -> Tensor:
    """``x.float()``, which takes most of a microsecond even where it does nothing."""
    return x if x.dtype is torch.float32 else x.float()


def embed(w: Weights, ids: Tensor) -> Tensor:
    """Token embeddings, [...] -> [..., H]; an id that marks a failed row (the vocabulary's size) reads the last."""
    return F.embedding(ids.clamp(max=w.vocab - 1), w.embed)


def fold(w: Weights, ids_nT: Tensor) -> Tensor:
    """Pair latents [n, T/2, H] of token ids [n, T], T even."""
    n = len(ids_nT)
    x = embed(w, ids_nT).view(-1, 2 * w.embed.shape[1])
    for i, linear in enumerate(w.pair_in):
        x = linear(x if i == 0 else F.silu(x))
    return x.view(n, -1, w.embed.shape[1])


def logits(w: Weights, h_NH: Tensor) -> Tensor:
    """Float32 logits [N, V] of the backbone's hiddens [N, H]; -inf at PAD."""
    return f32(w.head(h_NH))


def draft_logits(w: Weights, d_NH: Tensor) -> Tensor:
    """Float32 logits of draft hiddens over the draft vocabulary, [N, len(w.mtp.ids)], or as ``logits`` without one."""
    return f32(w.mtp.head(d_NH))


def confidence(w: Weights, h_NH: Tensor, d_NH: Tensor) -> Tensor:
    """Confidence in the drafts, [N], float32 in [0, 1]."""
    c = w.confidence
    assert c is not None
    x = F.silu(c.fc1(c.unit(torch.cat([h_NH, d_NH], 1))))
    return c.fc2(x).squeeze(1).float().sigmoid()


def _mlp(layer: Layer, x_NH: Tensor) -> Tensor:
    gate, up = layer.up(layer.unit(x_NH)).chunk(2, 1)
    return layer.down(layer.act(gate) * up, x_NH)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary over the last dimension, whose halves swap (layout.rotary_order); the table's sine carries the sign."""
    half = x.shape[-1] // 2
    swapped = x.unflatten(-1, (2, half)).flip(-2).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin)


def _out(a: Attention, x_NH: Tensor, o: Tensor, gate: Tensor | None) -> Tensor:
    """Output gate, output projection and residual."""
    return a.out(o if gate is None else o * gate.sigmoid(), x_NH)


def _qkv(a: Attention, x_NH: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rotated queries and keys [N, heads + kv_heads, D], values [N, kv_heads * D], and the gate if there is one."""
    qk, v, *gate = a.proj(a.unit(x_NH)).split_with_sizes(a.sizes, 1)
    qk = qk.view(-1, a.heads + a.kv_heads, a.head_dim)
    if a.qk_unit is not None:
        qk = a.qk_unit(qk) * a.qk_scale
    return _rotate(qk, cos, sin), v, gate[0] if gate else None


def _attention_step(a: Attention, kv: KV, layer: int, x_NH: Tensor, plan: Plan) -> Tensor:
    qk, v, gate = _qkv(a, x_NH, plan.cos, plan.sin)
    q, k = qk.split_with_sizes((a.heads, a.kv_heads), 1)
    kv.k_flat.index_copy_(0, plan.write, k.flatten(1))
    kv.v_flat.index_copy_(0, plan.write, v)
    return _out(a, x_NH, attend(q, layer, plan, a.kv_heads), gate)


def _gates(a: LinearAttention, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split a projection into conv input, output gate z, beta and the log of the decay g (both float32)."""
    qkv, z, b, dt = p.split_with_sizes(a.sizes, -1)
    return qkv, z, f32(b).sigmoid(), F.softplus(f32(dt)) * a.decay


def _linear_out(a: LinearAttention, x_NH: Tensor, o: Tensor, z: Tensor) -> Tensor:
    """Norm before gate, output projection and residual; ``o`` [N, Hv, Dv] float32."""
    o = a.out_unit(o).flatten(1) * F.silu(f32(z))
    return a.out(o if x_NH.dtype is o.dtype else o.to(x_NH.dtype), x_NH)


def _linear_step(a: LinearAttention, state: State, layer: int, x_NH: Tensor, plan: Plan) -> Tensor:
    n, S = plan.n, plan.S
    qkv, z, beta, g = _gates(a, a.proj(a.unit(x_NH)))
    taps, C = a.conv_KC.shape
    conv, rec = plan.views.conv[layer], plan.views.state[layer]
    window = torch.cat([conv, qkv.view(n, S, C)], 1)
    if S == 1:
        mixed = (window * a.conv_KC).sum(1)
        conv.copy_(window.narrow(1, 1, taps - 1))
    else:
        mixed = (window.unfold(1, taps, 1) * a.conv_KC.t()).sum(-1).view(n * S, C)
    qk, v = _heads(a, F.silu(mixed))
    if S == 1:
        o = delta.one(rec, qk.view(-1, 2, a.key_dim), v.reshape(-1, 1, a.value_dim), g.exp().view(-1, 1, 1),
                      beta.view(-1, 1, 1))  # fmt: skip
        return _linear_out(a, x_NH, o.view(n, -1, a.value_dim), z)
    qk, v, g, beta = (t.unflatten(0, (n, S)) for t in (qk, v, g, beta))
    if plan.keep and rec.numel() <= delta.SMALL:
        conv.copy_(window.narrow(1, S, taps - 1))
        return _linear_out(a, x_NH, delta.in_turn(rec, qk, v, g, beta), z)
    o, k, u, G = delta.few(rec, qk, v, g, beta)
    state.pending = Pending(window, k, u, G)
    return _linear_out(a, x_NH, o, z)


def _heads(a: LinearAttention, mixed_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Unit queries and keys [N, Hv, 2, Dk] and values [N, Hv, Dv] of the convolution's output, float32."""
    qk, v = f32(mixed_NC).split_with_sizes((2 * a.key_heads * a.key_dim, a.value_heads * a.value_dim), 1)
    qk = a.qk_unit(qk.view(-1, a.key_heads, 2, a.key_dim))
    if a.value_heads > a.key_heads:
        qk = qk.repeat_interleave(a.value_heads // a.key_heads, 1)
    return qk, v.unflatten(1, (-1, a.value_dim))


def step(w: Weights, arena: Arena, x_NH: Tensor, plan: Plan) -> Tensor:
    """Backbone hiddens [N, H] after the final norm for S new inputs a row, [n*S, H], placed by ``plan``.

    Keys and values are written, with S = 1 the states as well; with more, ``arena.accept`` writes them, unless the plan
    says that all tokens stay and a layer's states are small.
    """
    full = linear = 0
    for layer in w.layers:
        if isinstance(layer.mixer, LinearAttention):
            x_NH = _linear_step(layer.mixer, arena.states[linear], linear, x_NH, plan)
            linear += 1
        else:
            x_NH = _attention_step(layer.mixer, arena.kv[full], full, x_NH, plan)
            full += 1
        x_NH = _mlp(layer, x_NH)
    return w.unit(x_NH) * w.norm


def _fuse(w: Weights, embed_NH: Tensor, hidden_NH: Tensor) -> Tensor:
    return w.mtp.fc(torch.cat([w.mtp.embed_unit(embed_NH), w.mtp.hidden_unit(hidden_NH)], 1))


def mtp_step(w: Weights, arena: Arena, embed_NH: Tensor, hidden_NH: Tensor, plan: Plan) -> Tensor:
    """Draft hiddens d [N, H] from the embeddings of the next tokens and the hiddens; writes the MTP cache."""
    layer = w.mtp.layer
    assert isinstance(layer.mixer, Attention)
    x = _attention_step(layer.mixer, arena.kv[-1], -1, _fuse(w, embed_NH, hidden_NH), plan)
    return w.mtp.unit(_mlp(layer, x)) * w.mtp.norm


class Chunk(NamedTuple):
    """Places start .. start+T-1 of the n prompts in the rows from ``first`` on; more than one row only at start 0.

    ``lens``: real places of each row within the chunk (right padding beyond). ``real``: [n, T, 1]; None: no padding.
    """

    first: int
    start: int
    T: int
    lens: list[int]
    lens_n: Tensor
    real: Tensor | None
    cos: Tensor
    sin: Tensor


def make_chunk(arena: Arena, first: int, start: int, lens: list[int]) -> Chunk:
    """Plan a prefill pass; ``lens``: real places of each row."""
    T, device = max(lens), arena.w.device
    lens_n = torch.tensor(lens, device=device)
    real = None
    if min(lens) < T:
        real = (torch.arange(T, device=device) < lens_n[:, None])[:, :, None]
    cos, sin = (t[start : start + T, None] for t in (arena.cos_PD, arena.sin_PD))
    return Chunk(first, start, T, lens, lens_n, real, cos, sin)


def _write(kv: KV, c: Chunk, k_NE: Tensor, v_NE: Tensor) -> None:
    rows, places = slice(c.first, c.first + len(c.lens)), slice(c.start, c.start + c.T)
    kv.k[rows, places] = k_NE.view(len(c.lens), c.T, -1)
    kv.v[rows, places] = v_NE.view(len(c.lens), c.T, -1)


def _attention_prefill(a: Attention, kv: KV, x_NH: Tensor, c: Chunk) -> Tensor:
    n, T, D = len(c.lens), c.T, a.head_dim
    cos, sin = (t if n == 1 else t.repeat(n, 1, 1) for t in (c.cos, c.sin))
    qk, v, gate = _qkv(a, x_NH, cos, sin)
    q, k = qk.split_with_sizes((a.heads, a.kv_heads), 1)
    _write(kv, c, k.flatten(1), v)
    q, k, v = (t.reshape(n, T, -1, D).transpose(1, 2) for t in (q, k, v))
    if c.start == 0:
        o = attend_fresh(q, k, v)
    elif (kernel := flash(x_NH.device, x_NH.dtype)) is not None:
        rows = (t[None, c.first].unflatten(2, (a.kv_heads, D)) for t in (kv.k, kv.v))
        ends = torch.full((1,), c.start + T, dtype=torch.int32, device=x_NH.device)
        o = kernel(q.transpose(1, 2), *rows, cache_seqlens=ends, softmax_scale=1.0, causal=True).transpose(1, 2)
    else:
        k_old, v_old = (t[c.first, : c.start].unflatten(1, (a.kv_heads, -1)).transpose(0, 1) for t in (kv.k, kv.v))
        o = attend_chunk(q[0], k_old, v_old, k[0], v[0])[None]
    return _out(a, x_NH, o.transpose(1, 2).reshape(n * T, -1), gate)


def _linear_prefill(a: LinearAttention, state: State, x_NH: Tensor, c: Chunk) -> Tensor:
    n, T, rows = len(c.lens), c.T, slice(c.first, c.first + len(c.lens))
    qkv, z, beta, g = _gates(a, a.proj(a.unit(x_NH)))
    taps, C = a.conv_KC.shape
    qkv = qkv.reshape(n, T, C)
    padded = F.pad(qkv, (0, 0, taps - 1, 0)) if c.start == 0 else torch.cat([state.conv[rows], qkv], 1)
    mixed = padded[:, :T] * a.conv_KC[0]
    for i in range(1, taps):
        mixed = mixed.addcmul_(padded[:, i : i + T], a.conv_KC[i])
    qk, v = (t.unflatten(0, (n, T)) for t in _heads(a, F.silu(mixed).view(n * T, C)))
    g, beta = g.view(n, T, -1), beta.view(n, T, -1)
    if c.real is not None:  # padding leaves the state as it is: no decay, no update
        g, beta = g * c.real, beta * c.real
    o, rec = delta.over_prompt(None if c.start == 0 else state.rec[rows], qk, v, g, beta, x_NH.dtype)
    o = o.reshape(n * T, a.value_heads, a.value_dim)
    at = c.lens_n[:, None] + torch.arange(taps - 1, device=x_NH.device)
    state.conv[rows] = padded[torch.arange(n, device=x_NH.device)[:, None], at]
    state.rec[rows] = rec
    return _linear_out(a, x_NH, o, z)


def prefill(w: Weights, arena: Arena, x_nTH: Tensor, c: Chunk) -> Tensor:
    """Backbone hiddens [n, T, H] of one chunk of right-padded inputs; writes the rows' keys, values and states."""
    n, T, H = x_nTH.shape
    x, full, linear = x_nTH.reshape(n * T, H), 0, 0
    for layer in w.layers:
        if isinstance(layer.mixer, LinearAttention):
            x = _linear_prefill(layer.mixer, arena.states[linear], x, c)
            linear += 1
        else:
            x = _attention_prefill(layer.mixer, arena.kv[full], x, c)
            full += 1
        x = _mlp(layer, x)
    return (w.unit(x) * w.norm).view(n, T, H)


def mtp_fill(w: Weights, arena: Arena, embed_nTH: Tensor, hidden_nTH: Tensor, c: Chunk) -> None:
    """Write the MTP cache at a chunk's places without running the rest of the layer.

    ``embed``: of the token after each place. Where none is known yet (the prompt's last place) what is written is
    overwritten before it is read.
    """
    a = w.mtp.layer.mixer
    assert isinstance(a, Attention) and a.kv is not None
    p = a.kv(a.unit(_fuse(w, embed_nTH.flatten(0, 1), hidden_nTH.flatten(0, 1))))
    k, v = p.view(-1, 2 * a.kv_heads, a.head_dim).chunk(2, 1)
    n = len(c.lens)
    cos, sin = (t if n == 1 else t.repeat(n, 1, 1) for t in (c.cos, c.sin))
    if a.qk_unit is not None and a.qk_scale is not None:
        k = a.qk_unit(k) * a.qk_scale[a.heads :]
    _write(arena.kv[-1], c, _rotate(k, cos, sin).flatten(1), v.flatten(1))
