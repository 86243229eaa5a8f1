"""Model folders: config.json, safetensors weights, tokenizer. No pickle is ever read.

Two layouts load: ours (``model.*`` for the backbone, as transformers writes a text model) and the published one
(``model.language_model.*``, vision tower beside it left out). Every tensor must be accounted for, by name. A draft
vocabulary is a file of its own beside the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3_5TextConfig, Qwen3Config

from pipo.errors import BadModel
from pipo.model.draft_vocab import eos_ids, read_draft_vocab, write_draft_vocab
from pipo.model.modeling import PipoForCausalLM
from pipo.model.pads import Pad

CONFIGS: dict[str, Any] = {
    "qwen3_5_text": Qwen3_5TextConfig,
    "qwen3": Qwen3Config,
    "qwen2": Qwen2Config,
    "llama": LlamaConfig,
}
OURS = ("compressor_type", "mtp_loss_weight", "confidence_loss_weight", "fresh_mtp")
OUTSIDE = ("model.visual.", "visual.")  # the vision tower of a vision-language checkpoint: not ours to load
COMPUTED = ".rotary_emb.inv_freq"  # old checkpoints store what the config gives
WAY_OUT = "`python -m pipo.model.sources prepare FOLDER OUT` adds one, and `pipo train sft` does so by itself"
LAYOUTS = {"pipo": ("model.", "PipoForCausalLM"), "published": ("model.language_model.", "Qwen3_5ForCausalPIPO")}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_text(folder: Path) -> dict[str, Any]:
    """The text part of a model folder's config.json, with our keys in it, PAD unchecked. Raises BadModel."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise BadModel(f"{folder} is not a model folder; name a folder with config.json and model.safetensors")
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError as e:
        raise BadModel(f"{folder} has no config.json; a model folder holds config.json and model.safetensors") from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise BadModel(f"{path} is not JSON ({e})") from e
    text: dict[str, Any] = raw.get("text_config", raw)
    if text.get("model_type") not in CONFIGS:
        raise BadModel(f"{path}: model_type {text.get('model_type')!r} is not supported; known: {', '.join(CONFIGS)}")
    for key in (*OURS, "pad_token_id", "tie_word_embeddings"):
        if key in raw:
            text[key] = raw[key]
    text.setdefault("vocab_size", CONFIGS[text["model_type"]]().vocab_size)
    return text


def read_config(folder: Path, pad: Pad | None = None) -> Any:
    """The text config of a model folder, with our keys on it, and with another PAD where one was made for it.

    Raises BadModel with the file and the rule.
    """
    path, text = folder / "config.json", read_text(folder)
    if pad is not None:
        text |= {"pad_token_id": pad.id, "vocab_size": pad.rows}
        if pad.ends != eos_ids(SimpleNamespace(eos_token_id=text.get("eos_token_id"))):
            text["eos_token_id"] = pad.ends[0] if len(pad.ends) == 1 else pad.ends or None
    if text.get("pad_token_id") is None:
        raise BadModel(f"{path} has no pad_token_id; PIPO needs a PAD of its own: {WAY_OUT}")
    eos = text.get("eos_token_id")
    if text["pad_token_id"] in (eos if isinstance(eos, list) else [eos]):
        raise BadModel(f"{path}: PAD and EOS share id {text['pad_token_id']}; they must be two tokens: {WAY_OUT}")
    if not 0 <= text["pad_token_id"] < text["vocab_size"]:
        raise BadModel(f"{path}: pad_token_id {text['pad_token_id']} is outside the vocabulary of {text['vocab_size']}")
    if text.get("mlp_bias"):
        raise BadModel(f"{path}: mlp_bias {text['mlp_bias']} is not supported; backbones have MLPs without biases here")
    config = CONFIGS[text["model_type"]](**text)
    for key in OURS:
        if key in text:
            setattr(config, key, text[key])
    return config


def check_compressor(folder: Path, config: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Raise BadModel where the weights hold a compressor that the config knows nothing about."""
    if getattr(config, "compressor_type", None) is None and any(n.startswith("compressor.") for n in tensors):
        raise BadModel(f"{folder}: weights hold a compressor, config.json has no compressor_type ('mlp' or 'linear')")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files under the names of PipoForCausalLM. Raises BadModel."""
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    except (json.JSONDecodeError, KeyError, AttributeError) as e:
        raise BadModel(f"{index} is no index of safetensors shards ({e!r}); copy it again") from e
    files = sorted(folder / s for s in shards)
    absent = [f.name for f in files if not f.is_file()]
    if absent:
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        if pickles:
            raise BadModel(f"{folder} holds pickled weights ({pickles[0]}), which can run code; convert to safetensors")
        raise BadModel(f"{folder} has no {absent[0]}; a model folder holds config.json and model.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            loaded = load_file(file)
        except (SafetensorError, OSError) as e:
            raise BadModel(f"{file} cannot be read as safetensors ({e}); copy or build it again") from e
        for name, tensor in loaded.items():
            if not name.startswith(OUTSIDE) and not name.endswith(COMPUTED):
                tensors[_our_name(name)] = tensor
    return tensors


def _our_name(name: str) -> str:
    for prefix in ("model.language_model.", "language_model.model.", "model."):
        if name.startswith(prefix):
            return "backbone." + name[len(prefix) :]
    return name


def load_model(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PipoForCausalLM:
    """Load a regular or PIPO model folder, in eval mode, with its draft vocabulary where it has one.

    Raises:
        BadModel: no config, no PAD, pickled weights, tensors missing, unexpected or of another shape (named), or a
            draft vocabulary that does not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = read_weights(folder)
    check_compressor(folder, config, tensors)
    model = PipoForCausalLM(config)
    fill(model, tensors, folder, may_miss=())
    model.draft_ids = read_draft_vocab(folder, config)
    check_tokenizer_fits(folder, config)
    return model.to(device=device, dtype=dtype).eval()


@torch.no_grad()
def fill(model: PipoForCausalLM, tensors: dict[str, torch.Tensor], folder: Path, may_miss: tuple[str, ...]) -> None:
    """Copy ``tensors`` into the model; parameters whose names begin with ``may_miss`` may keep what they have.

    Raises BadModel where others are missing, some are unexpected, or shapes differ.
    """
    want = dict(model.named_parameters())
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    missing = [n for n in want if n not in tensors and not n.startswith(may_miss)]
    extra = [n for n in tensors if n not in want]
    if missing or extra:
        raise BadModel(
            f"{folder}: "
            + "; ".join(
                f"{word} tensor{'s'[: len(names) > 1]} {', '.join(sorted(names)[:4])}"
                + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                for word, names in (("missing", missing), ("unexpected", extra))
                if names
            )
            + "; config.json and weights must describe the same model"
        )
    for name, tensor in tensors.items():
        if tensor.shape != want[name].shape:
            raise BadModel(f"{folder}: {name} is {list(tensor.shape)}, config.json asks for {list(want[name].shape)}")
        want[name].copy_(tensor)


def save_model(
    model: PipoForCausalLM, folder: str | Path, tokenizer: Any = None, dtype: torch.dtype | None = None,
    weights: dict[str, torch.Tensor] | None = None, layout: Literal["pipo", "published"] = "pipo",
) -> None:  # fmt: skip
    """Write config.json, model.safetensors by rename (``dtype``: None keeps), draft vocabulary and tokenizer.

    ``weights``: tensors to write instead of the model's own parameters, such as merged ones. ``layout``: ``published``
    writes the names of the paper's checkpoints, which exist for Qwen3.5 alone (BadModel for others).
    """
    if layout == "published" and model.config.model_type != "qwen3_5_text":
        raise BadModel(
            f"the published layout is that of Qwen3.5, this is {model.config.model_type!r}; write it with layout pipo"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prefix, architecture = LAYOUTS[layout]
    out = {}
    for name, p in (weights or dict(model.named_parameters())).items():
        our = prefix + name[len("backbone.") :] if name.startswith("backbone.") else name
        out[our] = p.detach().to("cpu", dtype or p.dtype).contiguous().clone()
    tmp = folder / "model.safetensors.tmp"
    save_file(out, tmp, metadata={"format": "pt"})
    tmp.replace(folder / "model.safetensors")
    write_draft_vocab(model.draft_ids, folder)
    config = model.config.to_dict()
    config.update({k: getattr(model.config, k) for k in OURS if hasattr(model.config, k)})
    config["architectures"] = [architecture]
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder (tokenizer.json), checked against the model's PAD and vocabulary."""
    folder = Path(folder)
    tokenizer = read_tokenizer(folder)
    check_tokenizer_fits(folder, read_config(folder))
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder as it is, unchecked. Raises BadModel where it is missing or broken."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise BadModel(f"{folder} has no tokenizer.json; copy the tokenizer that the model was trained with")
    _read_vocab(path)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def _read_vocab(path: Path) -> dict[str, int]:
    """Token -> id of a tokenizer.json, added tokens included. Raises BadModel."""
    try:
        raw = json.loads(path.read_text())
        pieces = raw["model"]["vocab"]
        vocab = dict(pieces) if isinstance(pieces, dict) else {p[0]: i for i, p in enumerate(pieces)}
        vocab.update({t["content"]: t["id"] for t in raw.get("added_tokens", [])})
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as e:
        raise BadModel(f"{path} is not a tokenizer of the tokenizers library ({e!r})") from e
    return vocab


def check_tokenizer_fits(folder: Path, config: Any) -> None:
    """Raise BadModel where a tokenizer is present that knows other ids than the model, or names another PAD."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return
    vocab = _read_vocab(path)
    if max(vocab.values()) >= config.vocab_size:
        raise BadModel(
            f"{path} knows ids up to {max(vocab.values())}, the model's vocabulary ends at {config.vocab_size - 1}; "
            "it is the tokenizer of another model"
        )
    settings = folder / "tokenizer_config.json"
    pad = json.loads(settings.read_text()).get("pad_token") if settings.exists() else None
    pad = pad["content"] if isinstance(pad, dict) else pad
    if pad is None or vocab.get(pad) != config.pad_token_id:
        raise BadModel(
            f"{folder}: the tokenizer's PAD is {pad!r} (id {vocab.get(pad) if pad else None}), config.json says id "
            f"{config.pad_token_id}; it is the tokenizer of another model, or has no PAD"
        )
