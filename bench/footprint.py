"""What a model takes: numbers of weights by part, and the memory that a method needs for them and for its rows.

Where a context counts *tokens*: n of them take n positions, or n / (1 + kept) pairs for the pair methods; the prompt's
part is dense, half as many pairs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipo.engine.types import Method
from pipo.errors import BadInput

STATE_BYTES = 4  # recurrent states are float32 whatever the weights are


class Shapes(msgspec.Struct, frozen=True):
    """Numbers of weights by part, and what attention and recurrent layers need.

    ``mtp_fill``: the part of the MTP layer that fills its cache (fused projection, keys, values). ``embed``: the input
    embedding where it is not the head itself. ``state``: numbers of one row's recurrent states, ``conv`` of its
    convolution tails. ``bytes``: of one weight, key or value.
    """

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
    hidden: int = 0
    embed: int = 0
    conv: int = 0

    def draft_head(self, draft_vocab: int | None) -> int:
        """Weights that the draft is projected with: the whole head, or its rows for so many tokens."""
        if draft_vocab is None:
            return self.head
        if not (self.hidden and 1 <= draft_vocab * self.hidden <= self.head):
            raise BadInput(
                f"draft_vocab {draft_vocab} must lie in [1, {self.head // max(1, self.hidden)}], the vocabulary's size"
            )
        return draft_vocab * self.hidden


def shapes_of(model: Any) -> Shapes:
    """Shapes of a PipoForCausalLM, on any device (meta too)."""
    config = model.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    linear = sum(kind == "linear_attention" for kind in kinds)
    state, conv = (linear * n for n in _recurrent(config)) if linear else (0, 0)
    attention = model.mtp.layers[0].self_attn
    tied = model.lm_head.weight is model.backbone.embed_tokens.weight
    return Shapes(
        layers=_weights(model.backbone.layers) + _weights(model.backbone.norm),
        head=_weights(model.lm_head),
        mtp=_weights(model.mtp),
        mtp_fill=_weights(model.mtp.fc) + _weights(attention.k_proj) + _weights(attention.v_proj),
        compressor=_weights(model.compressor) if model.is_pipo else 0,
        confidence=_weights(model.confidence_head) if model.is_pipo else 0,
        full_layers=len(kinds) - linear,
        query_width=config.num_attention_heads * config.head_dim,
        kv_width=config.num_key_value_heads * config.head_dim,
        state=state,
        bytes=model.lm_head.weight.element_size(),
        hidden=config.hidden_size,
        embed=0 if tied else _weights(model.backbone.embed_tokens),
        conv=conv,
    )


def shapes_of_config(config: Any, dtype: Any = None) -> Shapes:
    """Shapes of the model that a config describes, built on the meta device: no memory, no weights.

    ``dtype``: torch type of its weights; default bfloat16. ``config.compressor_type`` says whether it has pairs.
    """
    import torch

    from pipo.model import PipoForCausalLM

    with torch.device("meta"):
        return shapes_of(PipoForCausalLM(config).to(dtype or torch.bfloat16))


def _weights(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def _recurrent(config: Any) -> tuple[int, int]:
    """Numbers of one row's state and of its convolution tail, in one GatedDeltaNet layer."""
    key, value = config.linear_key_head_dim, config.linear_value_head_dim
    channels = 2 * config.linear_num_key_heads * key + config.linear_num_value_heads * value
    return config.linear_num_value_heads * key * value, channels * (config.linear_conv_kernel_dim - 1)


def places_of(method: Method, context: float, *, kept: float = 1.0, prompt: float = 0.0) -> float:
    """Backbone positions of ``context`` tokens, ``prompt`` of which are the prompt: dense for the pair methods."""
    if not method.pairs:
        return context
    dense = min(prompt, context)
    return dense / 2 + (context - dense) / (1 + kept)


# Memory


def weight_bytes(s: Shapes, method: Method, draft_vocab: int | None = None) -> int:
    """Bytes of the weights that a method needs; a draft vocabulary is a copy of rows of the head."""
    numbers = s.layers + s.head + s.embed
    if method.name != "regular":
        numbers += s.mtp + (0 if draft_vocab is None else s.draft_head(draft_vocab))
    if method.pairs:
        numbers += s.compressor + s.confidence
    return numbers * s.bytes


def row_bytes(s: Shapes, method: Method, context: float, *, kept: float = 1.0, prompt: float = 0.0) -> float:
    """Bytes that one row takes: keys and values (the draft layer's too where there is one) and recurrent states."""
    layers = s.full_layers + (method.name != "regular")
    places = places_of(method, context, kept=kept, prompt=prompt)
    return s.bytes * (layers * 2 * s.kv_width * places + s.conv) + STATE_BYTES * s.state


def memory_bytes(
    s: Shapes,
    method: Method,
    rows: int,
    context: float,
    *,
    kept: float = 1.0,
    prompt: float = 0.0,
    draft_vocab: int | None = None,
) -> float:
    """Bytes of weights, caches and states; activations and the runtime itself come on top."""
    return weight_bytes(s, method, draft_vocab) + rows * row_bytes(s, method, context, kept=kept, prompt=prompt)


def rows_that_fit(
    s: Shapes, method: Method, context: float, memory: float, *, kept: float = 1.0, prompt: float = 0.0
) -> int:
    """The most rows of this context that a memory of so many bytes holds; 0 where not even the weights fit."""
    left = memory - weight_bytes(s, method)
    return max(0, int(left // row_bytes(s, method, context, kept=kept, prompt=prompt)))
