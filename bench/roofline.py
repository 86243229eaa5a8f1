"""What shapes allow: bytes and operations of one decoding step and of one prefill, counted from a model. Thin version.

Counted: weights read once a step (the tied lm_head once a use), keys and values read by full-attention layers,
recurrent states read and written; two operations a weight and position. Not counted: activations, norms' work, launch
overhead, whatever a cache saves. So the ratios bound what a machine limited by memory (bytes) or arithmetic
(operations) can gain; a small model on a CPU is limited by neither.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipo.engine.types import Method


class Shapes(msgspec.Struct, frozen=True):
    """Numbers of weights by part, and what attention and recurrent layers need. ``bytes``: of one number."""

    layers: int
    head: int
    mtp: int
    mtp_fill: int
    compressor: int
    confidence: int
    full_layers: int
    query_width: int
    kv_width: int
    state: int
    bytes: int


class Cost(msgspec.Struct, frozen=True):
    """Cost of one step (or prefill): bytes moved, operations, tokens that come out."""

    bytes: float
    flops: float
    tokens: float


def shapes_of(model: Any) -> Shapes:
    """Shapes of a PipoForCausalLM."""
    config = model.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    full = sum(kind != "linear_attention" for kind in kinds)
    heads = getattr(config, "linear_num_value_heads", 0) or 0
    state = heads * getattr(config, "linear_key_head_dim", 0) * getattr(config, "linear_value_head_dim", 0)
    attention = model.mtp.layers[0].self_attn
    return Shapes(
        layers=_weights(model.backbone.layers) + _weights(model.backbone.norm),
        head=_weights(model.lm_head),
        mtp=_weights(model.mtp),
        mtp_fill=_weights(model.mtp.fc) + _weights(attention.k_proj) + _weights(attention.v_proj),
        compressor=_weights(model.compressor) if model.is_pipo else 0,
        confidence=_weights(model.confidence_head) if model.is_pipo else 0,
        full_layers=full,
        query_width=config.num_attention_heads * config.head_dim,
        kv_width=config.num_key_value_heads * config.head_dim,
        state=state * (len(kinds) - full),
        bytes=model.lm_head.weight.element_size(),
    )


def _weights(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def step_cost(s: Shapes, method: Method, context: int, *, kept: float = 1.0, accepted: float = 1.0) -> Cost:
    """Cost of one decoding step at batch 1.

    Args:
        context: real tokens before it; pair methods hold half as many positions (prompts are dense).
        kept: share of drafts kept (pair methods). accepted: tokens a step (eagle), 1 to depth + 1.
    """
    if method.pairs:
        weights = s.compressor + s.layers + s.head + s.mtp + s.head + s.confidence
        parts = _attend(s, s.full_layers + 1, context / 2, 1)
        return _cost(s, weights, weights, parts, 1, 1 + kept)
    draft = s.mtp + s.head
    if method.name == "mtp":  # both tokens of the last step pass the backbone and the draft layer
        read, work = s.layers + s.head + draft, 2 * s.layers + s.head + 2 * s.mtp + s.head
        return _cost(s, read, work, _attend(s, s.full_layers + 1, context, 2), 2, 2)
    if method.name == "eagle":  # a chain of drafts, then one pass over them and the token before
        n = method.depth + 1
        read = s.layers + s.head + method.depth * draft
        work = n * (s.layers + s.head) + method.depth * draft
        moved, flops = _attend(s, s.full_layers, context, n)
        more, other = _attend(s, 1, context, 1)
        parts = (moved + method.depth * more, flops + method.depth * other)
        return _cost(s, read, work, parts, n, accepted)
    weights = s.layers + s.head
    return _cost(s, weights, weights, _attend(s, s.full_layers, context, 1), 1, 1)


def _attend(s: Shapes, layers: int, context: float, positions: int) -> tuple[float, float]:
    """Numbers read and operations done by attention over a context, for some positions at once."""
    return layers * 2 * s.kv_width * context, layers * 4 * s.query_width * context * positions


def _cost(s: Shapes, read: float, work: float, attend: tuple[float, float], positions: int, tokens: float) -> Cost:
    moved = s.bytes * (read + attend[0] + 2 * s.state)
    return Cost(moved, 2 * work + attend[1] + 6 * s.state * positions, tokens)


def prefill_flops(s: Shapes, method: Method, tokens: int) -> float:
    """Operations until the first token is out, the draft layer's cache filled where the method needs it."""
    positions = tokens / 2 if method.pairs else float(tokens)
    attend = s.full_layers * 2 * s.query_width * positions**2  # causal: half of the square
    work = 2 * positions * (s.layers + s.compressor * method.pairs) + 2 * s.head + attend + 6 * s.state * positions
    if method.name != "regular":
        work += 2 * positions * s.mtp_fill
    return work


def ratios(
    base: Shapes, base_method: Method, other: Shapes, method: Method, context: int, *, kept: float, accepted: float
) -> dict[str, float]:
    """What shapes allow, base over other (above 1: other is faster): bytes and operations a token, and of a prefill."""
    one = step_cost(base, base_method, context)
    two = step_cost(other, method, context, kept=kept, accepted=accepted)
    return {
        "tpot_bytes_ratio": (one.bytes / one.tokens) / (two.bytes / two.tokens),
        "tpot_flops_ratio": (one.flops / one.tokens) / (two.flops / two.tokens),
        "ttft_flops_ratio": prefill_flops(base, base_method, context) / prefill_flops(other, method, context),
    }
