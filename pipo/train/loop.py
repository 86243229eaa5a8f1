"""The training loop: steps of micro-batches until a token budget is spent, with checkpoints that resume exactly.

It knows nothing of objectives: an objective is ``counts(batch)`` and ``loss(model, batch, totals)``. The state file
is our own (torch.save) and is read with ``weights_only``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import torch
from torch import nn

from pipo.errors import BadInput, Cancelled
from pipo.jobs import JobContext
from pipo.train.data import MicroBatch
from pipo.train.optim import learning_rate, make_optimizers


class LoopSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the loop. ``tokens``: real tokens to train on; ``save_every``: steps between checkpoints."""

    tokens: int
    lr: float = 6e-3
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.01
    warmup: int = 40
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"tokens {self.tokens} must be at least 1: the real tokens to train on")
        if not 0 < self.lr < 1:
            raise BadInput(f"learning rate {self.lr} must lie in (0, 1)")
        if self.save_every < 1 or self.log_every < 1:
            raise BadInput("save_every and log_every count steps and must be at least 1")


class Steps(Protocol):
    """Where steps come from: pools of them, pool i the same for the same seed and progress (and, on policy, model)."""

    def pool(self, index: int, progress: float) -> list[list[MicroBatch]]:
        """All steps of pool ``index``, each a list of micro-batches."""


class Objective(Protocol):
    """What is minimised. ``names``: the parts of the loss, for logs."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def counts(self, batch: Any) -> tuple[int, ...]:
        """Supervised places of each part in a micro-batch."""

    def loss(self, model: Any, batch: Any, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """Each part's weighted sum over the micro-batch, divided by the step's total for that part."""


def gradients(model: nn.Module, objective: Objective, step: list[MicroBatch]) -> list[float]:
    """Back-propagate one step's loss, whatever the number of micro-batches; returns the parts of the loss."""
    counts = [objective.counts(b) for b in step]
    totals = tuple(max(1, sum(c)) for c in zip(*counts, strict=True))
    parts = [0.0] * len(totals)
    for batch in step:
        losses = objective.loss(model, batch, totals)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        parts = [p + float(x.detach()) for p, x in zip(parts, losses, strict=True)]
    return parts


class _Run:
    """State of one training run: what a checkpoint holds."""

    def __init__(self, model: nn.Module, settings: LoopSettings) -> None:
        self.model = model
        self.optimizers = make_optimizers(model, settings.optimizer, settings.weight_decay)
        self.step = self.tokens = self.pool = self.place = 0
        self.pool_progress = 0.0
        self.seconds = 0.0
        self.queue: list[list[MicroBatch]] = []

    def save(self, path: Path) -> None:
        state = {k: getattr(self, k) for k in ("step", "tokens", "pool", "place", "pool_progress", "seconds")}
        state["model"] = self.model.state_dict()
        state["optimizers"] = [o.state_dict() for o in self.optimizers]
        state["torch_rng"] = torch.get_rng_state()
        tmp = path.with_suffix(".tmp")
        torch.save(state, tmp)
        tmp.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for o, s in zip(self.optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)
        torch.set_rng_state(state["torch_rng"])
        for k in ("step", "tokens", "pool", "place", "pool_progress", "seconds"):
            setattr(self, k, state[k])

    def next_step(self, batches: Steps, progress: float) -> list[MicroBatch]:
        """The next step; a used-up pool is followed by one drawn at the present progress."""
        if not self.queue:
            self.queue = batches.pool(self.pool, self.pool_progress)
        if self.place == len(self.queue):
            self.pool, self.place, self.pool_progress = self.pool + 1, 0, progress
            self.queue = batches.pool(self.pool, progress)
        self.place += 1
        return self.queue[self.place - 1]


def train(
    model: nn.Module,
    batches: Steps,
    objective: Objective,
    settings: LoopSettings,
    folder: Path,
    ctx: JobContext,
    note: str = "training",
) -> dict[str, Any]:
    """Train in place until ``settings.tokens`` real tokens are spent; returns step, token and time counts.

    Writes ``metrics.jsonl`` and ``state.pt`` to ``folder``; a second call on the same folder goes on exactly where
    the last checkpoint was. A cancelled run saves a checkpoint first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "state.pt"
    torch.manual_seed(settings.seed)
    run = _Run(model, settings)
    if checkpoint.exists():
        run.load(checkpoint)
        _cut_metrics(folder / "metrics.jsonl", run.step)
        ctx.emit("log", text=f"{note}: goes on from step {run.step}")
    model.train()
    began, spent = time.monotonic(), run.seconds
    parts: list[float] = []
    while run.tokens < settings.tokens:
        progress = run.tokens / settings.tokens
        step = run.next_step(batches, progress)
        lr = learning_rate(progress, run.step, settings.lr, settings.warmup)
        parts = gradients(model, objective, step)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for o in run.optimizers:
            for group in o.param_groups:
                group["lr"] = lr
            o.step()
            o.zero_grad(set_to_none=True)
        run.step += 1
        run.tokens += sum(b.tokens for b in step)
        run.seconds = spent + time.monotonic() - began
        if run.step % settings.log_every == 0 or run.tokens >= settings.tokens:
            _report(run, objective, parts, lr, settings, folder, ctx, note)
        if run.step % settings.save_every == 0:
            run.save(checkpoint)
        _check(ctx, run, checkpoint)
    model.eval()
    run.save(checkpoint)
    named = {n: round(p, 5) for n, p in zip(objective.names, parts, strict=False)}
    return {"steps": run.step, "tokens": run.tokens, "seconds": round(run.seconds, 1), **named}


def _cut_metrics(path: Path, step: int) -> None:
    """Drop rows of steps that the checkpoint does not hold; they are about to be done again."""
    if path.exists():
        rows = [line for line in path.read_text().split("\n")[:-1] if json.loads(line)["step"] <= step]
        path.write_text("".join(row + "\n" for row in rows))


def _check(ctx: JobContext, run: _Run, checkpoint: Path) -> None:
    try:
        ctx.check()
    except Cancelled:
        run.save(checkpoint)
        raise


def _report(
    run: _Run, objective: Objective, parts: list[float], lr: float, settings: LoopSettings, folder: Path,
    ctx: JobContext, note: str,
) -> None:  # fmt: skip
    row = {"step": run.step, "tokens": run.tokens, "seconds": round(run.seconds, 1), "lr": round(lr, 6)}
    row.update({n: round(p, 5) for n, p in zip(objective.names, parts, strict=True)})
    with open(folder / "metrics.jsonl", "a") as f:
        f.write(json.dumps(row) + "\n")
    ctx.emit("metric", **row)
    ctx.emit("progress", done=min(run.tokens, settings.tokens), total=settings.tokens, note=note,
             tokens_s=round(run.tokens / max(run.seconds, 1e-9)), loss=row[objective.names[0]])  # fmt: skip
