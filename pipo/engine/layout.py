"""From a model's modules to the engine's weights: what reads the same input becomes one matrix, norms fold into it.

What is read once a layer and step is one matrix, because at small batches the number of torch calls sets the pace. The
fused matrices are copies: after training a model further, call the engine's ``reload``.

Shape legend: H hidden, V vocabulary, D head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipo.engine.linear import Linear
from pipo.engine.weights import Attention, Confidence, Layer, LinearAttention, Mtp, Unit, Weights
from pipo.errors import BadModel

ROPE_TYPES = ("default", "linear", "yarn", "llama3")  # types whose angles do not depend on the sequence's length


def _scale(norm: nn.Module) -> Tensor:
    """What a norm multiplies by, times sqrt(dim) (see ``Unit``), in float32."""
    w = norm.weight.detach().float()  # type: ignore[operator, union-attr]
    if type(norm).__name__ == "Qwen3_5RMSNorm":
        w = 1 + w
    return w * math.sqrt(len(w))


def _eps(norm: Any) -> float:
    return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)


def _fold(matrices: list[Tensor], norm_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Matrices [out, in] that read the same normed input, as one [in, sum of outs] with the norm's scale folded in.

    ``dtype``: of the result; by default that of the matrices.
    """
    fused = torch.cat([m.detach().float() for m in matrices]) * norm_scale
    return fused.t().contiguous().to(dtype or matrices[0].dtype)


def rotary_order(head_dim: int, rotary_dim: int) -> list[int]:
    """Order of head dimensions in which rotary swaps the two halves of the whole head, also where it is partial."""
    r, p = rotary_dim // 2, (head_dim - rotary_dim) // 2
    first = [*range(r), *range(rotary_dim, rotary_dim + p)]
    second = [*range(r, rotary_dim), *range(rotary_dim + p, head_dim)]
    return first + second


def channel_order(key_heads: int, key_dim: int, values: int) -> list[int]:
    """Order of the convolution's channels in which each head's query and key stand side by side, then the values."""
    keys = key_heads * key_dim
    pairs = [side * keys + h * key_dim + d for h in range(key_heads) for side in (0, 1) for d in range(key_dim)]
    return pairs + list(range(2 * keys, 2 * keys + values))


def _linear_attention(m: Any, norm: Any) -> LinearAttention:
    order = torch.tensor(channel_order(m.num_k_heads, m.head_k_dim, m.num_v_heads * m.head_v_dim))
    w = m.in_proj_qkv.weight.detach()[order]
    z, b, a = m.in_proj_z.weight, m.in_proj_b.weight, m.in_proj_a.weight
    sizes = (len(w), len(z), len(b), len(a))
    bias = torch.zeros(sum(sizes), device=w.device, dtype=w.dtype)
    bias[-len(a) :] = m.dt_bias.detach()
    # the query's factor key_dim^-0.5 only scales the output, which a norm follows: it moves into that norm's eps
    out_eps = _eps(m.norm) * m.head_k_dim
    gain = (m.norm.weight.detach().float() * math.sqrt(m.head_v_dim)).repeat(m.num_v_heads)
    return LinearAttention(
        unit=Unit(w.shape[1], _eps(norm), w),
        proj=Linear(_fold([w, z, b, a], _scale(norm)), bias),
        sizes=sizes,
        conv_KC=m.conv1d.weight.detach().squeeze(1)[order].t().contiguous(),
        decay=-m.A_log.detach().float().exp(),
        key_heads=m.num_k_heads,
        value_heads=m.num_v_heads,
        key_dim=m.head_k_dim,
        value_dim=m.head_v_dim,
        qk_unit=Unit(m.head_k_dim, 1e-6 / m.head_k_dim, torch.empty(0, device=w.device)),
        out_unit=Unit(m.head_v_dim, out_eps, torch.empty(0, device=w.device)),
        out=Linear(_fold([m.out_proj.weight], gain)),
    )


def _attention(m: Any, norm: Any, rotary_dim: int, keys_alone: bool = False) -> Attention:
    D = m.head_dim
    q, k = m.q_proj.weight, m.k_proj.weight
    gated = type(m).__name__ == "Qwen3_5Attention"
    heads, kv_heads = q.shape[0] // (2 * D if gated else D), k.shape[0] // D
    order = torch.tensor(rotary_order(D, rotary_dim), device=q.device)
    normed = hasattr(m, "q_norm")  # then the queries' factor moves into that norm's scale, else into their projection

    def rows(lin: nn.Linear, part: str) -> list[Tensor]:
        """Pieces of one projection, weight and bias, in the engine's order."""
        out = []
        for t in (lin.weight, lin.bias):
            if t is None:
                continue
            t = t.detach() if normed or part != "q" else t.detach().float() * m.scaling
            if part == "v":
                out.append(t)
            elif part == "k" or not gated:
                out.append(t.unflatten(0, (-1, D))[:, order].flatten(0, 1))
            else:
                halves = t.unflatten(0, (heads, 2, D))
                out.append((halves[:, 0][:, order] if part == "q" else halves[:, 1]).flatten(0, 1))
        return out

    parts = [rows(m.q_proj, "q"), rows(m.k_proj, "k"), rows(m.v_proj, "v")]
    if gated:
        parts.append(rows(m.q_proj, "gate"))
    proj_t = _fold([p[0] for p in parts], _scale(norm), q.dtype)
    bias = torch.cat([p[1] for p in parts]).to(q.dtype) if len(parts[0]) > 1 else None
    qk_unit = qk_scale = None
    if normed:
        qk_unit = Unit(D, _eps(m.q_norm), q)
        q_scale, k_scale = _scale(m.q_norm)[order] * m.scaling, _scale(m.k_norm)[order]
        qk_scale = torch.cat([q_scale.expand(heads, D), k_scale.expand(kv_heads, D)]).to(q.dtype)
    keys = slice(heads * D, (heads + 2 * kv_heads) * D)
    out_bias = None if m.o_proj.bias is None else m.o_proj.bias.detach()
    return Attention(
        unit=Unit(q.shape[1], _eps(norm), q),
        proj=Linear(proj_t, bias),
        kv=Linear(proj_t[:, keys], None if bias is None else bias[keys]) if keys_alone else None,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=D,
        qk_unit=qk_unit,
        qk_scale=qk_scale,
        sizes=((heads + kv_heads) * D, kv_heads * D, *([heads * D] if gated else [])),
        out=Linear(m.o_proj.weight.detach().t(), out_bias),
    )


def _layer(layer: Any, rotary_dim: int, keys_alone: bool = False) -> Layer:
    norm, mlp = layer.input_layernorm, layer.mlp
    linear = hasattr(layer, "linear_attn")
    after = layer.post_attention_layernorm
    gate = mlp.gate_proj.weight
    return Layer(
        mixer=_linear_attention(layer.linear_attn, norm)
        if linear
        else _attention(layer.self_attn, norm, rotary_dim, keys_alone),
        unit=Unit(gate.shape[1], _eps(after), gate),
        up=Linear(_fold([gate, mlp.up_proj.weight], _scale(after))),
        down=Linear(mlp.down_proj.weight.detach().t()),
        act=F.silu if "silu" in type(mlp.act_fn).__name__.lower() else mlp.act_fn,
    )


def _mtp(model: Any, rotary_dim: int, head: Linear) -> Mtp:
    m, ids = model.mtp, getattr(model, "draft_ids", None)
    scale = torch.cat([_scale(m.pre_fc_norm_embedding), _scale(m.pre_fc_norm_hidden)])
    w = m.fc.weight
    return Mtp(
        embed_unit=Unit(w.shape[0], _eps(m.pre_fc_norm_embedding), w),
        hidden_unit=Unit(w.shape[0], _eps(m.pre_fc_norm_hidden), w),
        fc=Linear(_fold([w], scale)),
        layer=_layer(m.layers[0], rotary_dim, keys_alone=True),
        unit=Unit(w.shape[0], _eps(m.norm), w),
        norm=_scale(m.norm).to(w.dtype),
        head=head if ids is None else Linear(model.lm_head.weight.detach()[ids].t()),
        ids=None if ids is None else torch.cat([ids, ids.new_tensor([len(model.lm_head.weight)])]),
    )


def _pair_in(compressor: nn.Module | None) -> list[Linear]:
    found = [] if compressor is None else [m for m in compressor.modules() if isinstance(m, nn.Linear)]
    return [Linear(m.weight.detach().t(), m.bias.detach()) for m in found]


def _confidence(m: Any, like: Tensor) -> Confidence | None:
    if m is None:
        return None
    return Confidence(
        Unit(m.fc1.in_features, _eps(m.norm), like),
        Linear(_fold([m.fc1.weight], _scale(m.norm))),
        Linear(m.fc2.weight.detach().t()),
    )


@torch.no_grad()
def make_weights(model: Any) -> Weights:
    """Lay out the weights of a ``PipoForCausalLM`` ; BadModel for layer or rope types that the engine lacks."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if unknown := kinds - {"full_attention", "linear_attention"}:
        raise BadModel(f"layer types {sorted(unknown)} are not supported by the torch engine; use full_attention")
    rope = model.backbone.rotary_emb
    if rope.rope_type not in ROPE_TYPES:
        raise BadModel(f"rope_type {rope.rope_type!r} is not supported by the torch engine; it has {ROPE_TYPES}")
    rotary_dim = 2 * len(rope.inv_freq)
    w = model.lm_head.weight.detach()
    bias = torch.zeros(len(w), device=w.device, dtype=w.dtype)
    bias[config.pad_token_id] = -math.inf
    head = Linear(w.t(), bias)
    mtp = _mtp(model, rotary_dim, head)
    attention = mtp.layer.mixer
    assert isinstance(attention, Attention)
    return Weights(
        embed=model.backbone.embed_tokens.weight.detach(),
        layers=[_layer(layer, rotary_dim) for layer in model.backbone.layers],
        unit=Unit(config.hidden_size, _eps(model.backbone.norm), w),
        norm=_scale(model.backbone.norm).to(w.dtype),
        head=head,
        vocab=len(w),
        pad=config.pad_token_id,
        mtp=mtp,
        pair_in=_pair_in(model.compressor),
        confidence=_confidence(model.confidence_head, w),
        rotary=rope,
        rotary_dim=rotary_dim,
        kv_heads=attention.kv_heads,
        heads=attention.heads,
        head_dim=attention.head_dim,
    )
