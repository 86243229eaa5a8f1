"""Where a training stands, on disk: written by rename, so that a kill or a full disk never costs the last good one.

The file is our own (torch.save) and is read with ``weights_only``.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipo.errors import BadInput, JobFailed

COUNTERS = ("step", "tokens", "pool", "place", "pool_size", "pool_progress", "seconds")


class TrainState:
    """A model in training with its optimizers and counters: what a checkpoint holds.

    Only parameters that train are kept; the others are where training started from. ``memory``: numbers that the
    objective carries from step to step, changed in place.
    """

    def __init__(
        self, model: nn.Module, optimizers: list[torch.optim.Optimizer], memory: list[float] | None = None
    ) -> None:
        self.model, self.optimizers, self.memory = model, optimizers, memory if memory is not None else []
        self.step = self.tokens = self.pool = self.place = self.pool_size = 0
        self.pool_progress = self.seconds = 0.0
        self.saved_step = -1

    def _trained(self) -> dict[str, torch.Tensor]:
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def save(self, path: Path) -> None:
        """Write a checkpoint. Raises JobFailed where the disk will not take it; the one before stays."""
        state: dict[str, Any] = {k: getattr(self, k) for k in COUNTERS}
        state["model"] = {n: p.detach() for n, p in self._trained().items()}
        state["optimizers"] = [o.state_dict() for o in self.optimizers]
        state["memory"] = list(self.memory)
        state["torch_rng"] = torch.get_rng_state()
        state["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        tmp = path.with_suffix(".tmp")
        try:
            with open(tmp, "wb") as f:
                torch.save(state, f)
                f.flush()
                os.fsync(f.fileno())
            tmp.replace(path)
        except (OSError, RuntimeError) as e:  # torch reports a short write as a RuntimeError
            with contextlib.suppress(OSError):
                tmp.unlink(missing_ok=True)
            kept = f"the checkpoint of step {self.saved_step} is kept" if path.exists() else "there is none yet"
            raise JobFailed(
                f"the checkpoint of step {self.step} could not be written to {path} ({_first_line(e)}); {kept}. Make "
                "room and run the same command with --resume"
            ) from e
        self.saved_step = self.step

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises BadInput that names the tensor where it is of another model."""
        try:
            if not zipfile.is_zipfile(path):  # what is no whole file of torch.save would go to an older reader
                raise ValueError("not a whole file of torch.save")
            state = torch.load(path, weights_only=True, map_location="cpu")
            trained = state["model"]
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            TypeError,
            torch.serialization.pickle.UnpicklingError,
        ) as e:
            raise BadInput(f"{path} is no checkpoint of a training ({_first_line(e)}); remove it to start anew") from e
        mine = self._trained()
        for name in sorted(mine.keys() ^ trained.keys()):
            here, there = ("trains here", "is not in it") if name in mine else ("does not train here", "is in it")
            raise BadInput(f"{path} is a checkpoint of another model: {name} {here} and {there}; remove it, or resume "
                           "with the settings that it was made with")  # fmt: skip
        for name, tensor in trained.items():
            if tensor.shape != mine[name].shape:
                raise BadInput(
                    f"{path} is a checkpoint of another model: {name} is {list(tensor.shape)} there and "
                    f"{list(mine[name].shape)} here"
                )
        with torch.no_grad():
            for name, tensor in trained.items():
                mine[name].copy_(tensor)
        for o, s in zip(self.optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)
        self.memory[:] = state["memory"]
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        for k in COUNTERS:
            setattr(self, k, state[k])
        self.saved_step = self.step


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [repr(e)])[0]
