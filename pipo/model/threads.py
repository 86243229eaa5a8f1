"""How many threads torch computes with, by the size of the model."""

from __future__ import annotations

import torch
from torch import nn

SMALL = 50_000_000  # parameters


def fit_threads(model: nn.Module) -> None:
    """One thread for a small model on the CPU: more gain little alone and cost much on a busy machine (docs/LOG.md)."""
    if next(model.parameters()).device.type == "cpu" and sum(p.numel() for p in model.parameters()) < SMALL:
        torch.set_num_threads(1)
