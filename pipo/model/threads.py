"""How many threads torch computes with, by the size of the model."""

from __future__ import annotations

import torch
from torch import nn

SMALL = 50_000_000  # parameters
ALL = torch.get_num_threads()  # what torch chose, or was told, before any model was here


def fit_threads(model: nn.Module) -> None:
    """One thread for a small model on the CPU, else as many as torch chose: call it before a model's work begins.

    More gain a small model little alone and cost much on a busy machine (docs/LOG.md).
    """
    if next(model.parameters()).device.type == "cpu":
        torch.set_num_threads(1 if sum(p.numel() for p in model.parameters()) < SMALL else ALL)
