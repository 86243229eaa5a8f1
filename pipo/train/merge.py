"""Adapters into a model: what ``pipo train merge`` does, from our training or from any that writes peft's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors import safe_open

from pipo.errors import BadModel
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.model import open_student
from pipo.model.checkpoint import read_text, save_model
from pipo.model.students import FRESH_MTP
from pipo.train.lora import apply_adapter, read_adapter
from pipo.train.settings import convert


class MergeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``adapter``: its folder. ``model``: what it was trained on. ``layout``: ours, or the published one.

    ``dtype``: of the merged weights; ``auto`` is what the model's own file has.
    """

    adapter: str
    model: str
    out: str
    layout: Literal["pipo", "published"] = "pipo"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-merge``: the model with the adapter added in, in a new folder.

    Raises BadModel where the adapter does not fit, or lacks a part that the model does not have either.
    """
    s = convert(spec, MergeSettings)
    folder = Path(s.adapter)
    config, tensors = read_adapter(folder)
    kind = "linear" if any(n.startswith("compressor.linear.") for n in tensors) else "mlp"
    source = resolve_model(s.model)
    model, tokenizer, notes = open_student(source, kind)  # type: ignore[arg-type]
    needed: tuple[str, ...] = ("compressor.", "confidence_head.")
    if read_text(source).get("compressor_type") is not None:
        needed = ()
    needed += ("mtp.",) if FRESH_MTP in notes else ()
    missing = [n for n, _ in model.named_parameters() if n.startswith(needed) and n not in tensors]
    if needed and missing:
        raise BadModel(f"{folder}: the adapter has no {missing[0]} and {s.model} brings none; copy the adapter again")
    apply_adapter(model, config, tensors, folder)
    dtype = stored_dtype(source) if s.dtype == "auto" else getattr(torch, s.dtype)
    save_model(model, Path(s.out), tokenizer, dtype, layout=s.layout)
    parts = sum(n.endswith(".lora_A.weight") for n in tensors)
    ctx.emit("log", text=f"merged {parts} adapters and {len(tensors) - 2 * parts} tensors trained in full")
    return {"model": s.out, "layout": s.layout, "adapters": parts, "dtype": str(dtype).removeprefix("torch.")}


def stored_dtype(folder: Path) -> torch.dtype:
    """bfloat16 where a model folder's first weight is stored so, else float32."""
    file = sorted(folder.glob("*.safetensors"))[0]
    with safe_open(file, framework="pt") as f:
        return torch.bfloat16 if f.get_slice(next(iter(f.keys()))).get_dtype() == "BF16" else torch.float32
