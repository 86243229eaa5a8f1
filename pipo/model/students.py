"""From a backbone checkpoint to a model of ours: a PAD of its own, the heads that are missing, the tokenizer with it.

``open_student`` takes whatever a model's name may mean: a PIPO model, a regular model of ours, a plain backbone as it
was published. What had to be added is told in lines for the caller to log.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pipo.errors import BadModel
from pipo.model.checkpoint import (
    check_compressor,
    fill,
    load_model,
    load_tokenizer,
    read_config,
    read_text,
    read_tokenizer,
    read_weights,
)
from pipo.model.draft_vocab import eos_ids
from pipo.model.modeling import PipoForCausalLM
from pipo.model.modules import CompressorType, Start
from pipo.model.pads import Pad, choose_pad, make_rows

# whether the head starts fresh decides how it is trained, so callers look for this note
FRESH_MTP = "MTP head: the checkpoint has none; it starts fresh"


def open_student(
    source: str | Path, compressor: CompressorType | None = "mlp", start: Start = "sum", seed: int = 0
) -> tuple[PipoForCausalLM, Any, list[str]]:
    """The model to train, its tokenizer, and notes about what was added to the folder's own: a PAD, an MTP head.

    A PIPO model comes as it is (``compressor``, ``start`` and ``seed`` say nothing then), anything else through
    ``from_backbone``. Save the tokenizer with the model: it may know a PAD that the folder's does not.

    Raises:
        BadModel: no model folder, no tokenizer, or weights that do not fit the config.
    """
    folder = Path(source)
    if read_text(folder).get("compressor_type") is not None:
        return load_model(folder), load_tokenizer(folder), []
    tokenizer, pad = _prepare(folder)
    model, notes = _make(folder, pad, compressor, start, seed)
    return model, tokenizer, [*pad.notes, *notes]


def prepare_backbone(folder: str | Path) -> tuple[Any, list[str]]:
    """The tokenizer that goes with ``from_backbone(folder)``, and a line for everything that was done to get a PAD.

    The folder itself stays as it is. Raises BadModel where the tokenizer is missing or of another model.
    """
    tokenizer, pad = _prepare(Path(folder))
    return tokenizer, pad.notes


def from_backbone(
    folder: str | Path, compressor: CompressorType | None = "mlp", start: Start = "sum", seed: int = 0
) -> PipoForCausalLM:
    """Make a model from a plain backbone checkpoint (or a regular model of ours), in float32.

    Native ``mtp.*`` weights are taken where present, else the head starts fresh; compressor and confidence head start
    fresh (``start``: sum, identity, random); a draft vocabulary is left behind. ``compressor=None`` makes a regular
    model. Where the backbone has no PAD of its own, the model has the one that ``prepare_backbone`` gives its
    tokenizer; without a tokenizer in the folder, config.json must name one.
    """
    folder = Path(folder)
    pad = _prepare(folder)[1] if (folder / "tokenizer.json").exists() else None
    return _make(folder, pad, compressor, start, seed)[0]


def _prepare(folder: Path) -> tuple[Any, Pad]:
    text, tokenizer = read_text(folder), read_tokenizer(folder)
    named = eos_ids(SimpleNamespace(eos_token_id=text.get("eos_token_id")))
    more = [e for e in eos_ids(SimpleNamespace(eos_token_id=_generation_end(folder))) if e not in named]
    return tokenizer, choose_pad(tokenizer, text.get("pad_token_id"), named + more, text["vocab_size"], folder)


def _generation_end(folder: Path) -> Any:
    """EOS of generation_config.json, which for chat models names more ends than config.json."""
    path = folder / "generation_config.json"
    try:
        return json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    except (ValueError, AttributeError) as e:
        raise BadModel(f"{path} is not JSON ({e}); copy it again or take it away") from e


def _make(
    folder: Path, pad: Pad | None, compressor: CompressorType | None, start: Start, seed: int
) -> tuple[PipoForCausalLM, list[str]]:
    config, tensors = read_config(folder, pad), read_weights(folder)
    check_compressor(folder, config, tensors)
    config.compressor_type = compressor
    torch.manual_seed(seed)
    model = PipoForCausalLM(config)
    if model.compressor is not None:
        model.compressor.start(start)
    tensors = {n: t for n, t in tensors.items() if not n.startswith(("compressor.", "confidence_head."))}
    if pad is not None:
        make_rows(tensors, pad, read_text(folder)["vocab_size"])
    fresh, notes = ["compressor.", "confidence_head."], []
    if getattr(config, "fresh_mtp", False):  # a prepared backbone: what its file holds was never trained
        tensors = {n: t for n, t in tensors.items() if not n.startswith("mtp.")}
        config.fresh_mtp = False
    if not any(n.startswith("mtp.") for n in tensors):
        fresh.append("mtp.")
        model.mtp.start(trained=True)
        notes.append(FRESH_MTP)
    fill(model, tensors, folder, may_miss=tuple(fresh))
    return model.eval(), notes
