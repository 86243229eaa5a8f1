"""What a model folder is, from config.json and the safetensors headers alone; what its server needs. Loads no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipo.errors import BadModel
from pipo.sglang.pairs import MOST_TOKENS

HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit for its header
KNOWN = ("qwen3_5_text", "qwen3")
HEADS = ("compressor.", "confidence_head.", "mtp.")
OUTSIDE = ("model.visual.", "visual.")


class Config(msgspec.Struct, frozen=True):
    """The part of a config that requests are checked against, under the names that Hugging Face gives it."""

    vocab_size: int
    pad_token_id: int
    eos_token_id: list[int]
    max_position_embeddings: int


class Facts(msgspec.Struct, frozen=True):
    """A model folder; stands in for an engine's ``model``.

    ``parameters``: in its weights, a vision tower left out. ``has_mtp``: whether there is an MTP head among them.
    """

    folder: Path
    is_pipo: bool
    parameters: int
    config: Config
    has_mtp: bool = True

    @property
    def has_tokenizer(self) -> bool:
        """Whether text can be asked for, not only ids."""
        return (self.folder / "tokenizer.json").exists()

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer says how a chat is written."""
        settings = self.folder / "tokenizer_config.json"
        return (self.folder / "chat_template.jinja").exists() or (
            settings.exists() and "chat_template" in settings.read_text()
        )


def read_facts(folder: Path) -> Facts:
    """Read a model folder. Raises BadModel: no usable config.json, no safetensors, heads that do not fit the config."""
    raw, text = _read_config(folder)
    kind = text.get("model_type")
    if kind not in KNOWN:
        raise BadModel(
            f"{folder / 'config.json'}: model_type {kind!r} is not supported by the SGLang engine, which has "
            f"{', '.join(KNOWN)}; use the torch engine (`pipo generate`, `pipo eval`)"
        )
    is_pipo = raw.get("compressor_type", text.get("compressor_type")) is not None
    pad = raw.get("pad_token_id", text.get("pad_token_id"))
    eos = text.get("eos_token_id", raw.get("eos_token_id"))
    eos = [] if eos is None else eos if isinstance(eos, list) else [eos]
    try:
        config = msgspec.convert(
            {**text, "pad_token_id": -1 if pad is None else pad, "eos_token_id": eos}, Config
        )  # fmt: skip
    except msgspec.ValidationError as e:
        raise BadModel(f"{folder / 'config.json'}: {e}; copy the model's config.json again") from e
    names: dict[str, int] = {}
    for file in _weight_files(folder):
        names |= dict(_tensors(file))
    if is_pipo:
        _check_pairs(folder, config, names)
    elif any(n.startswith("compressor.") for n in names):
        raise BadModel(f"{folder}: weights hold a compressor, config.json has no compressor_type ('mlp' or 'linear')")
    count = sum(size for name, size in names.items() if not name.startswith(OUTSIDE))
    return Facts(folder, is_pipo, count, config, any(n.startswith("mtp.") for n in names))


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
        text = raw.get("text_config", raw)
        text.get("model_type")
    except (FileNotFoundError, NotADirectoryError) as e:
        raise BadModel(f"{folder} has no config.json; name a model folder, or see `pipo models`") from e
    except (OSError, ValueError, AttributeError) as e:
        raise BadModel(f"{path} is not a model's config ({e}); copy it again") from e
    return raw, text


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise BadModel(f"{folder} has no model.safetensors; SGLang is given safetensors only, never pickled weights")
    return files


def _tensors(file: Path) -> Iterator[tuple[str, int]]:
    """Name and number of elements of each tensor in a safetensors file."""
    try:
        with open(file, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            if size > HEADER_LIMIT:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(f.read(size))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, math.prod(tensor["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadModel(f"{file} cannot be read as safetensors ({e}); copy or build it again") from e


def _check_pairs(folder: Path, config: Config, names: dict[str, int]) -> None:
    absent = [head for head in HEADS if not any(n.startswith(head) for n in names)]
    if absent:
        raise BadModel(
            f"{folder}: config.json has a compressor_type, but the weights have no {' and no '.join(absent)}* tensors; "
            "a PIPO model has all three heads, `pipo train sft` makes them"
        )
    if config.vocab_size > MOST_TOKENS:
        raise BadModel(
            f"{folder}: a vocabulary of {config.vocab_size} does not fit a pair of the SGLang engine, whose ids must "
            f"be below {MOST_TOKENS}; use --engine torch"
        )
    if config.pad_token_id < 0:
        raise BadModel(f"{folder}: config.json has no pad_token_id; PIPO needs a PAD of its own: name its id there")
    if config.pad_token_id >= config.vocab_size:
        raise BadModel(f"{folder}: pad_token_id {config.pad_token_id} is outside the vocabulary of {config.vocab_size}")
    if config.pad_token_id in config.eos_token_id:
        raise BadModel(f"{folder}: PAD and EOS share id {config.pad_token_id}; they must be two tokens")
