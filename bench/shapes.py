"""Model shapes by name, and random models of them: speed depends on shapes alone, so it is measured without weights.

A shape is a text config of a backbone, made a PIPO model by ``compressor_type``. Qwen3.5's figures are those of its
published configs (32 layers, every 4th with full attention). ``158m`` is a small sibling for a CPU or a first look at a
GPU: about 158 million numbers in backbone and embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3_5TextConfig

from pipo.errors import BadInput
from pipo.lab.recipe import student_config
from pipo.model import PipoForCausalLM
from pipo.model.checkpoint import read_config

POSITIONS = 262_144  # 128K tokens of regular decoding, and room to go on
STD = 0.02


def lab() -> Any:
    """The lab student's shape, with room for long prompts."""
    config = student_config()
    config.max_position_embeddings = POSITIONS
    return config


def small() -> Any:
    """158 M parameters: 12 layers of 1024, 9 of them recurrent."""
    return qwen3_5(
        vocab_size=8192, hidden_size=1024, intermediate_size=2496, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=2, head_dim=128, linear_num_key_heads=8, linear_num_value_heads=8, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def qwen3_5_4b() -> Any:
    """Qwen3.5-4B: hidden 2560, tied head."""
    return qwen3_5(hidden_size=2560, intermediate_size=9216, tie_word_embeddings=True)


def qwen3_5_9b() -> Any:
    """Qwen3.5-9B: hidden 4096, a head of its own."""
    return qwen3_5(hidden_size=4096, intermediate_size=12288, tie_word_embeddings=False)


def qwen3_5(**changes: Any) -> Any:
    """A Qwen3.5 text config; what is not given is as in the published models of 4B and 9B."""
    facts: dict[str, Any] = dict(
        vocab_size=248_320, num_hidden_layers=32, num_attention_heads=16, num_key_value_heads=4, head_dim=256,
        linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128,
        linear_conv_kernel_dim=4, max_position_embeddings=POSITIONS, pad_token_id=248_044, eos_token_id=248_046,
        rope_parameters={"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
    )  # fmt: skip
    facts.update(changes)
    kinds = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(facts["num_hidden_layers"])]
    return Qwen3_5TextConfig(**facts, layer_types=kinds)


SHAPES: dict[str, Callable[[], Any]] = {
    "lab": lab,
    "158m": small,
    "qwen3.5-4b": qwen3_5_4b,
    "qwen3.5-9b": qwen3_5_9b,
}


def shape_config(name_or_path: str) -> Any:
    """The config of a shape by name, or of a ``config.json`` (its path, or its folder's), as a PIPO model's.

    Raises:
        BadInput: neither a known name nor such a path.
        BadModel: a config that the models here cannot be built from (pipo.model.checkpoint.read_config).
    """
    if name_or_path in SHAPES:
        config = SHAPES[name_or_path]()
    else:
        path = Path(name_or_path).expanduser()
        folder = path.parent if path.name == "config.json" else path
        if not (folder / "config.json").is_file():
            raise BadInput(
                f"unknown shape {name_or_path!r}; shapes are {', '.join(SHAPES)}, or the path of a config.json"
            )
        config = read_config(folder)
    if getattr(config, "compressor_type", None) is None:
        config.compressor_type = "mlp"
    return config


@torch.no_grad()
def random_model(config: Any, device: str, dtype: torch.dtype, seed: int = 0) -> PipoForCausalLM:
    """A model of this config with random weights, in eval mode, drawn on the device in ``dtype``.

    Matrices are normal with std 0.02; norms, biases, decays and rotary frequencies are a fresh model's, and the
    compressor starts as the sum of its pair, so that hiddens stay finite. Sets torch's seed.
    """
    with torch.device("meta"):
        model = PipoForCausalLM(config).to(dtype)
    model.to_empty(device=device)
    if config.tie_word_embeddings:  # to_empty gives every place a tensor of its own
        model.lm_head.weight = model.backbone.embed_tokens.weight
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        _start(name, p, norm=0.0 if config.model_type == "qwen3_5_text" else 1.0)
    model.mtp.start()
    if model.compressor is not None and model.confidence_head is not None:
        model.compressor.start("sum")
        model.confidence_head.start()
    for rotary in (model.backbone.rotary_emb, model.mtp.rotary_emb):
        with torch.device(device):
            fresh = type(rotary)(config=rotary.config)
        for name, buffer in fresh.named_buffers():  # float32 whatever the weights are
            setattr(rotary, name, buffer)
    return model.eval()


def _start(name: str, p: torch.Tensor, norm: float) -> None:
    """The start of one parameter by its name; ``norm``: what a norm's weight starts from (Qwen3.5 adds 1 to it)."""
    if p.ndim >= 2:
        # a short filter sums four terms only: its start is wider, or what passes it would all but vanish
        p.normal_(std=1 / math.sqrt(p.shape[-1]) if "conv1d" in name else STD)
    elif name.endswith("A_log"):
        p.uniform_(1.0, 16.0).log_()
    elif name.endswith(("dt_bias", "linear_attn.norm.weight")):
        p.fill_(1.0)
    elif name.endswith(".bias"):
        p.zero_()
    else:
        p.fill_(norm)
