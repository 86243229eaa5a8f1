"""ms-swift's trainer with our steps: it brings DDP and DeepSpeed, checkpoints and logs; the work is pipo.swift.work.

One batch of its dataloader is the number of a step. The micro-batches of a step are accumulated inside
``training_step``: their number may differ from step to step and from process to process, which the loop of
transformers, with one number for all, does not allow for.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from swift.trainers import Seq2SeqTrainer
from torch.utils.data import DataLoader

from pipo.errors import JobFailed
from pipo.swift import checkpoint
from pipo.swift.command import BEGINS, EVENTS, RESULT, STOP, settings_of
from pipo.swift.registry import REGISTERED
from pipo.swift.work import WORKS, Work
from pipo.train import jobs
from pipo.train.logs import TrainLog
from pipo.train.optim import learning_rate
from pipo.train.settings import SFTSettings

NO_END = 10**9  # steps, where only a token budget ends the training


class FileContext:
    """The JobContext of a process of ms-swift: events are lines of a file, which the job reads and passes on."""

    job_id = "swift"

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank

    def emit(self, kind: str, **data: Any) -> None:
        if self.rank == 0:
            with open(self.folder / EVENTS, "a") as f:
                f.write(json.dumps({"kind": kind, "data": data}, default=str) + "\n")

    def check(self) -> None:
        """Nothing: a stop is asked for by a file, and heard by all processes at once (``PipoTrainer``)."""

    def resident(self, key: str, load: Any) -> Any:
        return load()


class PipoTrainer(Seq2SeqTrainer):
    """SFT and OPD of a PIPO model, step for step as pipo.train.loop does it."""

    def __init__(self, model: Any, args: Any, template: Any, **more: Any) -> None:
        base = REGISTERED.settings or SFTSettings(model=args.model, data=args.dataset[0], backend="swift")
        self.settings = settings_of(base, args, args.world_size)
        self.folder = REGISTERED.folder or Path(args.output_dir)
        self.rank, self.world = args.process_index, args.world_size
        self.ctx = FileContext(self.folder, self.rank)
        device = "cpu" if args.device.type == "cpu" else str(args.device)  # of this process; "cpu:0" is no other
        here = msgspec.structs.replace(self.settings, device=device)
        self.work: Work = WORKS[REGISTERED.stage](here, self.folder, self.ctx, self.rank)
        self.student = self.work.student
        self.loop = jobs.loop_settings(self.settings, self.student.autocast)
        self.rate, self.tokens, self.seconds, self.told, self.stopping = 0.0, 0, 0.0, 0, False
        self.parts: list[float] = []
        model.open(self.student, self.work.objective)
        args.max_steps = self.work.total or NO_END
        args.gradient_accumulation_steps, args.gradient_checkpointing = 1, False  # both are done here
        super().__init__(model, args, template=template, **more)
        self.model_accepts_loss_kwargs = False
        self.log_file: TrainLog | None = None

    # Steps -------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self, skip_batches: int = 0) -> Any:
        """Numbers of steps; what is in a step is made when its turn comes, by the model as it is then."""
        return DataLoader(range(skip_batches, self.args.max_steps), collate_fn=lambda found: {"step": found[0]})  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """All micro-batches of a step, with the gradients of all processes brought together at the last one."""
        began = time.monotonic()
        model.train()
        share = self.work.share(inputs["step"])
        counts = [self.work.objective.counts(b) for b in share] or [self.work.objective.counts(self.work.blank())]
        mine = [len(share), sum(b.tokens for b in share), (self.folder / STOP).exists(), *map(sum, zip(*counts))]
        every = self._gather(mine)
        tokens, stop, *totals = every.sum(0).tolist()[1:]
        most = max(1, int(every[:, 0].max()))
        self.stopping |= stop > 0
        self._set_rate(int(tokens))
        share += [self.work.blank() for _ in range(most - len(share))]
        self.parts = self._accumulate(model, share, tuple(max(1, int(t)) for t in totals))
        self._share_memory()
        self.tokens += int(tokens)
        self.seconds += time.monotonic() - began
        # ms-swift logs the mean over processes
        return torch.tensor(sum(self.parts) * self.world, device=self.args.device)

    def _share_memory(self) -> None:
        """What the objective carries from step to step, such as a baseline, is the mean of all processes."""
        memory = self.work.objective.memory
        if memory and self.world > 1:
            memory[:] = self._gather(memory).mean(0).tolist()

    def _accumulate(self, model: Any, share: list[Any], totals: tuple[int, ...]) -> list[float]:
        parts = [0.0] * len(self.work.objective.names)
        how = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}  # the totals have seen to that
        for i, batch in enumerate(share):
            last = i == len(share) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            waits = contextlib.nullcontext() if last or self.is_deepspeed_enabled else self.accelerator.no_sync(model)
            with waits:
                losses = model(batch.to(self.args.device), totals)
                values = [float(x.detach()) for x in losses]
                if not all(map(math.isfinite, values)):
                    self._not_finite(f"the loss is no finite number ({values})", batch.sources)
                # Gradients are averaged over processes, the loss is a sum over them.
                self.accelerator.backward(torch.stack(losses).sum() * self.world, **how)
            parts = [p + v for p, v in zip(parts, values, strict=True)]
        return parts

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: a number of a step says nothing about its size."""
        return 0

    def _gather(self, values: list[Any]) -> torch.Tensor:
        """What every process has to say, [processes, values]."""
        mine = torch.tensor([float(v) for v in values], dtype=torch.float64, device=self.args.device)
        if self.world == 1:
            return mine[None].cpu()
        found = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(found, mine)
        return torch.stack(found).cpu()

    def _progress(self, tokens: int) -> float:
        if self.loop.tokens is not None:
            return min(1.0, (self.tokens + tokens) / self.loop.tokens)
        assert self.work.total is not None
        return (self.state.global_step + 1) / (self.work.total + 1)

    def _set_rate(self, tokens: int) -> None:
        self.rate = learning_rate(self._progress(tokens), self.loop.lr, self.loop.warmup, self.loop.min_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate

    def _not_finite(self, what: str, sources: list[str]) -> None:
        kept = checkpoint.latest(Path(self.args.output_dir))
        rows = ", ".join(sources[:8]) or "of no known source"
        raise JobFailed(
            f"{self.work.note} stops at step {self.state.global_step + 1}: {what} in rows {rows}; "
            f"{f'{kept.name} is kept' if kept else 'there is no checkpoint yet'}. Look at those rows, or lower lr "
            f"(it was {self.rate:g}), and run again"
        )

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip by the gradients' norm over all parameters. A norm that is no number ends the training."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            self._not_finite(f"the gradient is no finite number ({float(norm):g})", [])
        self.norm = float(norm) if norm is not None else math.nan
        return norm

    # What is due after a step ------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the last step is done."""
        if self.loop.tokens is not None and self.tokens >= self.loop.tokens:
            return True
        return self.work.total is not None and self.state.global_step >= self.work.total

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        step, every = self.state.global_step, self.loop.sample_every
        if step > self.told:  # transformers calls this once more at the end
            self.told = step
            if self.control.should_log or self.over:
                self._tell()
            if every and step % every == 0 and self.log_file is not None:
                self.log_file.text(step, "sample", self.work.sample(step))
            if self.over or self.stopping:
                self.control.should_training_stop = self.control.should_save = True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _tell(self) -> None:
        """One row of metrics, as the embedded engine writes it. Maxima and times are the first process's alone."""
        self.parts = self._gather(self.parts).sum(0).tolist()
        rollouts = self._bring_together(self.work.metrics())
        extra = {"lr": self.rate, "grad_norm": self.norm, **self.work.objective.metrics(), **rollouts}
        if self.log_file is None:
            return
        values: dict[str, Any] = {"tokens": self.tokens, "seconds": round(self.seconds, 1)}
        values.update(zip(self.work.objective.names, self.parts, strict=True))
        done, whole = (
            (self.state.global_step, self.work.total) if self.loop.tokens is None else (self.tokens, self.loop.tokens)
        )
        assert whole is not None
        rate = self.tokens / max(self.seconds, 1e-9)
        self.log_file.row(self.state.global_step, values | extra, min(done, whole), whole, rate)

    def _bring_together(self, rollouts: dict[str, float]) -> dict[str, float]:
        """Add the tallies of all processes up in the first one's; returns the means of what roll-outs have to tell."""
        if self.world == 1:
            return rollouts
        tally = self.work.objective.tally
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, (tally.sums, tally.counts, rollouts))
        if self.rank:
            tally.drain()
        else:
            for sums, counts, _ in found[1:]:
                for name in sums:
                    tally.add(name, sums[name], counts[name])
        return {k: sum(f[2].get(k, 0.0) for f in found) / self.world for k in rollouts}

    # Checkpoints, the beginning and the end ----------------------------------------------------------------------

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        if self.world > 1:
            dist.barrier()
        if self.rank == 0:
            counters = {"step": self.state.global_step, "tokens": self.tokens, "seconds": self.seconds}
            counters["memory"] = self.work.objective.memory
            checkpoint.complete(Path(self.state.last_model_checkpoint), counters)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.load(self.student.model, Path(resume_from_checkpoint))

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        start = 0
        if resume_from_checkpoint:
            found = checkpoint.counters(Path(resume_from_checkpoint))
            start, self.tokens, self.seconds = found["step"], found["tokens"], found["seconds"]
            self.told, self.work.objective.memory[:] = start, found["memory"]
            self.ctx.emit("log", text=f"{self.work.note}: goes on from step {start}")
        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log_file = TrainLog(self.folder, self.ctx, self.work.note, start)
            self.ctx.emit(BEGINS)
        try:
            done = super().train(resume_from_checkpoint, **kwargs)
            if self.over and self.rank == 0:
                self._finish()
        finally:
            self.work.close()
            if self.log_file is not None:
                self.log_file.close()
        if self.world > 1:
            dist.barrier()
        return done

    def _finish(self) -> None:
        """Calibrate, write adapters and model, and the result for the job that waits for it."""
        self.student.model.eval()
        named = {n: round(p, 5) for n, p in zip(self.work.objective.names, self.parts, strict=True)}
        result = {"steps": self.state.global_step, "tokens": self.tokens, "seconds": round(self.seconds, 1), **named}
        found = self.work.calibrate()
        result = jobs.finish(self.settings, self.student, self.folder, result, self.work.note, found)
        (self.folder / RESULT).write_text(json.dumps(result) + "\n")
