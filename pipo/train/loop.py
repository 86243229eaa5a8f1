"""The training loop: steps of micro-batches until the plan or a token budget ends; checkpoints resume exactly.

It knows nothing of objectives: an objective is ``counts(batch)`` and ``loss(model, batch, totals)``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import torch
from torch import nn

from pipo.errors import BadInput, Cancelled, JobFailed
from pipo.jobs import JobContext
from pipo.train.data import MicroBatch
from pipo.train.logs import TrainLog
from pipo.train.objectives import totals_of
from pipo.train.optim import learning_rate, make_optimizers
from pipo.train.state import TrainState


class LoopSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the loop. ``tokens``: real tokens to train on (None: as many steps as there are).

    ``save_every``, ``log_every``, ``sample_every``: in steps; the last one may be 0 for never. ``autocast``: compute in
    bfloat16 where that is safe.
    """

    tokens: int | None = None
    lr: float = 6e-3
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.01
    warmup: float = 0.04
    min_lr: float = 0.05
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100
    log_every: int = 20
    sample_every: int = 0
    autocast: bool = False

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise BadInput(f"tokens {self.tokens} must be at least 1: the real tokens to train on")
        if not 0 < self.lr < 1:
            raise BadInput(f"learning rate {self.lr} must lie in (0, 1)")
        if self.save_every < 1 or self.log_every < 1:
            raise BadInput("save_every and log_every count steps and must be at least 1")


class Steps(Protocol):
    """Where steps come from: pools of them, pool i the same for the same seed and progress (and, on policy, model).

    ``total``: how many steps there are in all, None where only a token budget ends them.
    """

    total: int | None

    def pool(self, index: int, progress: float) -> Sequence[Sequence[MicroBatch]]:
        """All steps of pool ``index``, each a list of micro-batches."""

    def metrics(self) -> dict[str, float]:
        """What is to be logged beside the losses."""


class Objective(Protocol):
    """What is minimised. ``names``: the parts of the loss, for logs. ``memory``: numbers it carries between steps."""

    memory: list[float]

    @property
    def names(self) -> tuple[str, ...]: ...

    def counts(self, batch: Any) -> tuple[int, ...]:
        """Supervised places of each part in a micro-batch."""

    def loss(self, model: Any, batch: Any, totals: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """Each part's weighted sum over the micro-batch, divided by the step's total for that part."""

    def metrics(self) -> dict[str, float]:
        """Means since the last call, to be logged beside the losses."""


def gradients(
    model: nn.Module, objective: Objective, step: Sequence[MicroBatch], autocast: bool = False
) -> list[float]:
    """Back-propagate one step's loss, whatever the number of micro-batches; returns the parts of the loss.

    Raises JobFailed at the first loss that is no finite number, naming the rows of its micro-batch.
    """
    totals = totals_of(objective, step)
    parts = [0.0] * len(totals)
    device = next(model.parameters()).device
    for batch in (b.to(device) for b in step):
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=autocast):
            losses = objective.loss(model, batch, totals)
        values = [float(x.detach()) for x in losses]
        if not all(map(math.isfinite, values)):
            named = ", ".join(f"{n} {v:g}" for n, v in zip(objective.names, values, strict=True))
            raise JobFailed(f"the loss is no finite number ({named}) in rows {_some(batch.sources)}")
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        parts = [p + x for p, x in zip(parts, values, strict=True)]
    return parts


def _some(sources: list[str], most: int = 8) -> str:
    more = f" and {len(sources) - most} more" if len(sources) > most else ""
    return ", ".join(sources[:most] or ["of no known source"]) + more


class _Loop:
    """One training: its state, its steps, and what is due after each of them."""

    def __init__(
        self, model: nn.Module, batches: Steps, objective: Objective, settings: LoopSettings, folder: Path,
        ctx: JobContext, note: str, sample: Callable[[int], str] | None,
    ) -> None:  # fmt: skip
        self.model, self.batches, self.objective, self.s = model, batches, objective, settings
        self.ctx, self.note, self.sample = ctx, note, sample
        self.checkpoint = folder / "state.pt"
        self.state = TrainState(
            model, make_optimizers(model, settings.optimizer, settings.weight_decay), objective.memory
        )
        if self.checkpoint.exists():
            self.state.load(self.checkpoint)
            ctx.emit("log", text=f"{note}: goes on from step {self.state.step}")
        self.log = TrainLog(folder, ctx, note, self.state.step)
        self.queue: Sequence[Sequence[MicroBatch]] = []
        self.parts: list[float] = []
        self.trained = [p for p in model.parameters() if p.requires_grad]

    @property
    def over(self) -> bool:
        if self.s.tokens is not None and self.state.tokens >= self.s.tokens:
            return True
        return self.batches.total is not None and self.state.step >= self.batches.total

    def progress(self, tokens: int) -> float:
        """Share of the training that is done after ``tokens`` more, never quite 1 where steps are counted."""
        if self.s.tokens is not None:
            return min(1.0, (self.state.tokens + tokens) / self.s.tokens)
        assert self.batches.total is not None
        return (self.state.step + 1) / (self.batches.total + 1)

    def next_step(self) -> Sequence[MicroBatch]:
        """The next step; a used-up pool is followed by one drawn at the present progress."""
        state = self.state
        if state.place == state.pool_size and (state.pool_size or self.queue):
            state.pool, state.place, state.pool_progress = state.pool + 1, 0, self.progress(0)
            self.queue = []
        if not self.queue:
            self.queue = self.batches.pool(state.pool, state.pool_progress)
            state.pool_size = len(self.queue)
        state.place += 1
        return self.queue[state.place - 1]

    def advance(self) -> None:
        """One step: gradients, clipping, update. What is not finite is not applied, and ends the training."""
        step = self.next_step()
        tokens = sum(b.tokens for b in step)
        lr = learning_rate(self.progress(tokens), self.s.lr, self.s.warmup, self.s.min_lr)
        try:
            self.parts = gradients(self.model, self.objective, step, self.s.autocast)
            norm = float(nn.utils.clip_grad_norm_(self.trained, self.s.clip))
            if not math.isfinite(norm):
                sources = [s for b in step for s in b.sources]
                raise JobFailed(f"the gradient is no finite number ({norm:g}) in rows {_some(sources)}")
        except JobFailed as e:
            saved = self.state.saved_step
            kept = f"the checkpoint of step {saved} is kept" if saved >= 0 else "there is no checkpoint yet"
            raise JobFailed(
                f"{self.note} stops at step {self.state.step + 1}: {e}; {kept}. Look at those rows, or lower lr "
                f"(it was {lr:g}), and run again"
            ) from e
        for o in self.state.optimizers:
            for group in o.param_groups:
                group["lr"] = lr
            o.step()
            o.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.tokens += tokens
        self.extra = {"lr": lr, "grad_norm": norm}

    def report(self) -> None:
        state, total = self.state, self.batches.total
        values: dict[str, Any] = {"tokens": state.tokens, "seconds": round(state.seconds, 1)}
        values.update(zip(self.objective.names, self.parts, strict=True))
        values.update(self.extra | self.objective.metrics() | self.batches.metrics())
        done, whole = (state.step, total) if self.s.tokens is None else (state.tokens, self.s.tokens)
        assert whole is not None
        self.log.row(state.step, values, min(done, whole), whole, state.tokens / max(state.seconds, 1e-9))

    def run(self) -> None:
        began, spent = time.monotonic(), self.state.seconds
        while not self.over:
            self.advance()
            self.state.seconds = spent + time.monotonic() - began
            step = self.state.step
            if step % self.s.log_every == 0 or self.over:
                self.report()
            if self.sample is not None and self.s.sample_every and step % self.s.sample_every == 0:
                self.log.text(step, "sample", self.sample(step))
            if step % self.s.save_every == 0:
                self.state.save(self.checkpoint)
            try:
                self.ctx.check()
            except Cancelled:
                self.state.save(self.checkpoint)
                raise
        if self.state.saved_step != self.state.step:
            self.state.save(self.checkpoint)


def train(
    model: nn.Module, batches: Steps, objective: Objective, settings: LoopSettings, folder: Path, ctx: JobContext,
    note: str = "training", sample: Callable[[int], str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train in place until the steps or ``settings.tokens`` end; returns step, token and time counts.

    Writes ``metrics.jsonl``, TensorBoard events and ``state.pt`` to ``folder``; a second call on the same folder goes
    on exactly where the last checkpoint was. A cancelled run saves a checkpoint first. ``sample(step)``: a text made
    by the model as it is, for the logs.
    """
    if batches.total is None and settings.tokens is None:
        raise BadInput("these steps have no end; set tokens, the real tokens to train on")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    loop = _Loop(model, batches, objective, settings, folder, ctx, note, sample)
    model.train()
    try:
        loop.run()
    finally:
        model.eval()
        loop.log.close()
    state = loop.state
    named = {n: round(p, 5) for n, p in zip(objective.names, loop.parts, strict=False)}
    return {"steps": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 1), **named}
