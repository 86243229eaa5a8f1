"""The model in training: opened, put on its device, and given what trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.model import PipoForCausalLM, open_student
from pipo.model.checkpoint import read_config
from pipo.model.students import FRESH_MTP
from pipo.model.threads import fit_threads
from pipo.train.lora import add_lora, merged_weights, save_adapter
from pipo.train.settings import TrainSettings


@dataclass
class Student:
    """A model ready for the loop. ``dtype``: of what does not train, and of the saved model."""

    model: PipoForCausalLM
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    autocast: bool

    def merged(self) -> dict[str, torch.Tensor]:
        """Every weight under its plain name, adapters added in."""
        return merged_weights(self.model)

    def save_adapter(self, folder: Path, base: str) -> Path:
        """Write the adapters; returns their folder."""
        save_adapter(self.model, folder, base)
        return folder


def open_for_training(s: TrainSettings, compressor: Any, start: Any, ctx: JobContext) -> Student:
    """Load the model that training starts from; ``compressor`` None: it must be a PIPO model already.

    What trains is in float32. On a GPU what does not is in bfloat16, and products are computed there.
    """
    source = resolve_model(s.model)
    if compressor is None and getattr(read_config(source), "compressor_type", None) is None:
        raise BadInput(f"{s.model} is a regular model; OPD starts from a PIPO model, `pipo train sft` makes one")
    model, tokenizer, notes = open_student(source, compressor, start or "sum", s.seed)
    for note in notes:
        ctx.emit("log", text=note)
    device = device_of(s.device)
    half = s.dtype == "bfloat16" or (s.dtype == "auto" and device.type == "cuda")
    model = model.to(device)
    fit_threads(model)
    if s.tuner == "lora":
        add_lora(model, s.lora_rank, s.lora_alpha, s.lora_dropout, s.seed, fresh_mtp=FRESH_MTP in notes)
        for p in model.parameters():
            if half and not p.requires_grad:
                p.data = p.data.to(torch.bfloat16)
    if s.gradient_checkpointing:
        model.backbone.gradient_checkpointing_enable()
    return Student(model, tokenizer, device, torch.bfloat16 if half else torch.float32, half)


def device_of(name: str) -> torch.device:
    """The device of a settings value. Raises BadInput where there is none of that name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise BadInput(f"device {name!r} cannot be used here ({str(e).splitlines()[0]}); give auto, cpu or cuda") from e
    return device
