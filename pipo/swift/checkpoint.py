"""Checkpoints of ms-swift that we read: what trains, our counters, and a mark that they are whole. Torch, not swift."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from pipo.errors import BadInput
from pipo.model.checkpoint import read_weights
from pipo.train.lora import ADAPTER, layers, read_adapter

MARK = "pipo.json"  # written last: a checkpoint without it was cut short


def complete(folder: Path, counters: dict[str, Any]) -> None:
    """Mark a checkpoint as whole, with the counters that training goes on from."""
    tmp = folder / (MARK + ".tmp")
    tmp.write_text(json.dumps(counters) + "\n")
    tmp.replace(folder / MARK)


def counters(folder: Path) -> dict[str, Any]:
    """The counters of a checkpoint. Raises BadInput where it is none of ours, or was cut short."""
    try:
        found: dict[str, Any] = json.loads((folder / MARK).read_text())
        whole = {"step": int(found["step"]), "tokens": int(found["tokens"]), "seconds": float(found["seconds"])}
        return {**whole, "memory": [float(v) for v in found["memory"]]}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{folder} is no whole checkpoint of a PIPO training ({e}); name another, or start anew") from e


def latest(output: Path) -> Path | None:
    """The newest whole checkpoint in ms-swift's output folder."""
    found = [p for p in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name) and (p / MARK).exists()]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


@torch.no_grad()
def load(model: Any, folder: Path) -> None:
    """Read what trains back into a model, in place. Raises BadInput that names the first tensor that does not fit."""
    tensors = read_adapter(folder)[1] if layers(model) else read_weights(folder)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        found = tensors.get(name.replace(f".{ADAPTER}.", "."))
        if found is None or found.shape != p.shape:
            have = "nothing" if found is None else list(found.shape)
            raise BadInput(f"{folder} is a checkpoint of another training: {name} is {list(p.shape)}, it has {have}")
        p.copy_(found)
