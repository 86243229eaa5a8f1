"""Small random models for tests and speed studies: right in shape, meaningless in content."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3_5TextConfig, Qwen3Config

from pipo.model.modeling import PipoForCausalLM

Kind = Literal["hybrid", "dense", "llama", "llama3", "qwen2"]
KINDS = get_args(Kind)


def tiny_config(kind: Kind = "hybrid", hidden: int = 32, layers: int = 4, vocab: int = 64, **more: Any) -> Any:
    """Config of a tiny model; pad 0, bos 1, eos 2.

    hybrid: Qwen3.5 text, every 4th layer full attention. dense: Qwen3. llama: plain rotary. llama3: Llama with scaled
    rotary and biases in its attention. qwen2: biases in queries, keys and values.
    """
    common: dict[str, Any] = dict(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
        max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    if kind == "dense":
        return Qwen3Config(**{**common, **more})
    if kind == "qwen2":
        return Qwen2Config(**{**common, **more})
    if kind == "llama":
        return LlamaConfig(**{**common, **more})
    if kind == "llama3":
        rope = dict(
            rope_type="llama3", rope_theta=500_000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64,
        )  # fmt: skip
        return LlamaConfig(**{**common, "rope_parameters": rope, "attention_bias": True, **more})
    linear = dict(
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    )  # fmt: skip
    return Qwen3_5TextConfig(**{**common, **linear, **more})


@torch.no_grad()
def tiny_model(
    kind: Kind = "hybrid",
    pipo: bool = True,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 4,
    vocab: int = 64,
    compressor: str = "mlp",
    std: float = 0.15,
    tied: bool = True,
) -> PipoForCausalLM:
    """A random model in eval mode. ``std`` of its matrices is large, so that its distributions are not uniform."""
    config = tiny_config(kind, hidden, layers, vocab, tie_word_embeddings=tied)
    config.compressor_type = compressor if pipo else None
    torch.manual_seed(seed)
    model = PipoForCausalLM(config)
    for name, p in model.named_parameters():
        if p.ndim >= 2 and not name.startswith("compressor"):
            p.normal_(std=std)
        elif name.startswith("compressor"):
            p.add_(torch.randn_like(p) * 0.05)
        elif name.endswith("_proj.bias"):
            p.normal_(std=std)
    return model.eval()
