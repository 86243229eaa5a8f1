"""A GGUF file of a small Llama to a plain backbone's folder: config.json, safetensors, tokenizer.

Quantised blocks become the float32 numbers that they stand for. Only what SmolLM2's files hold is read: architecture
``llama``, a byte-level BPE tokenizer that splits digits. Needs the package gguf (extra ``rig``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipo.errors import BadInput, BadModel

CONTROL = 3  # token type of special tokens
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model in ``file`` to ``folder``, in float32.

    Raises:
        BadInput: the package gguf is not installed.
        BadModel: not a GGUF file, or one of another architecture or tokenizer (named).
    """
    try:
        from gguf import GGUFReader
    except ImportError as e:
        raise BadInput(f"reading {file.name} needs the package gguf ({e}); `pip install gguf`") from e
    try:
        reader = GGUFReader(file)
        facts = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, KeyError, IndexError) as e:
        raise BadModel(f"{file} cannot be read as GGUF ({e}); fetch it again") from e
    kinds = tuple(facts.get(k) for k in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if kinds != ("llama", "gpt2", "smollm"):
        raise BadModel(f"{file} holds {kinds}; only ('llama', 'gpt2', 'smollm') is read: architecture and tokenizer")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(reader, facts["llama.attention.head_count"], facts["llama.attention.head_count_kv"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(facts, "lm_head.weight" not in tensors), indent=1) + "\n")
    _tokenizer(facts).save_pretrained(folder)


def _tensors(reader: Any, heads: int, kv_heads: int) -> dict[str, torch.Tensor]:
    from gguf import dequantize

    out = {}
    for t in reader.tensors:
        name, _, kind = t.name.rpartition(".")
        values = torch.from_numpy(dequantize(t.data, t.tensor_type).copy()).float()
        if name in OUTER:
            out[f"{OUTER[name]}.{kind}"] = values
            continue
        try:
            _, number, part = name.split(".")
            target = f"model.layers.{int(number)}.{INNER[part]}.{kind}"
        except (ValueError, KeyError) as e:
            raise BadModel(f"tensor {t.name} in the GGUF file is none of a Llama's") from e
        if part in ("attn_q", "attn_k"):
            values = _halves(values, heads if part == "attn_q" else kv_heads)
        out[target] = values.contiguous()
    return out


def _halves(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary pairs from neighbours, as llama.cpp has them, to the two halves of a head, as transformers has them."""
    return matrix.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _config(facts: dict[str, Any], tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": facts["llama.rope.dimension_count"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": round(facts["llama.attention.layer_norm_rms_epsilon"], 12),  # stored as float32
        "rope_parameters": {"rope_type": "default", "rope_theta": facts["llama.rope.freq_base"]},
        "tie_word_embeddings": tied,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts.get("tokenizer.ggml.padding_token_id"),
    }


def _tokenizer(facts: dict[str, Any]) -> PreTrainedTokenizerFast:
    words, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ")) for m in facts["tokenizer.ggml.merges"]]
    tok = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tok.decoder = decoders.ByteLevel()
    named = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
    ids = {f"{k}_token": facts.get(f"tokenizer.ggml.{v}") for k, v in named.items()}
    special = [w for w, kind in zip(words, kinds, strict=True) if kind == CONTROL]
    tok.add_special_tokens(special)
    out = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        **{name: words[i] for name, i in ids.items() if i is not None},
        model_max_length=facts["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    out.chat_template = facts.get("tokenizer.chat_template")
    return out
