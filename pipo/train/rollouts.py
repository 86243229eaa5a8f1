"""Roll-outs of OPD: the student as it is now, by the engine that serves it, which sleeps while the trainer works."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from pipo.engine import TorchEngine
from pipo.engine.types import Event, Method, Request, Sampling
from pipo.errors import BadInput, JobFailed
from pipo.jobs import JobContext
from pipo.model import save_model
from pipo.sglang.engine import SglangEngine
from pipo.sglang.launch import ServerSettings
from pipo.train.lora import ADAPTER, layers, merged_weights
from pipo.train.opd import OPDBatch, opd_batch
from pipo.train.plan import groups_of

MEMORY_DISK = Path("/dev/shm")  # a folder in memory, where the system has one


class Roller(Protocol):
    """What rolls out: ``wake`` with the student's weights of now, ``generate``, ``sleep`` (memory given back)."""

    def wake(self) -> None: ...
    def generate(self, requests: Iterable[Request]) -> dict[str, list[Event]]: ...
    def sleep(self) -> None: ...
    def close(self) -> None: ...


@contextmanager
def as_served(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, adapted projections hold their merged weights, and every weight is of one type.

    After it the very tensors from before are back, so nothing drifts.
    """
    kept = [(p, p.data) for p in model.parameters()]
    for _, module in layers(model):
        weight = module.get_base_layer().weight
        delta = module.get_delta_weight(ADAPTER).detach()
        weight.data = weight.data.to(delta.dtype) + delta
    for p, _ in kept:
        p.data = p.data.to(dtype)
    try:
        yield
    finally:
        for weight, data in kept:
            weight.data = data


class EmbeddedRollouts:
    """The torch engine in this process. It copies the student's weights when it wakes and holds nothing asleep.

    ``context``: pairs of the longest roll-out (see ``pairs_of``); caches of no more than that are made at each waking.
    ``dtype``: that the engine computes in.
    """

    def __init__(
        self, model: Any, max_batch: int = 64, context: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model, self.max_batch, self.dtype = model, max_batch, dtype
        self.context = context and min(context, model.config.max_position_embeddings)
        self.engine: TorchEngine | None = None

    def wake(self) -> None:
        with torch.no_grad(), as_served(self.model, self.dtype):
            if self.engine is None:
                self.engine = self._new()
            else:
                self.engine.reload()

    def _new(self) -> TorchEngine:
        """An engine of as many rows at a time as memory holds."""
        while True:
            try:
                return TorchEngine(self.model, max_batch=self.max_batch, context=self.context)
            except BadInput:
                if self.max_batch == 1:
                    raise
                self.max_batch //= 2

    def generate(self, requests: Iterable[Request]) -> dict[str, list[Event]]:
        assert self.engine is not None
        return self.engine.generate(requests)

    def sleep(self) -> None:
        if self.engine is not None:
            self.engine.sleep()

    def close(self) -> None:
        self.engine = None


def pairs_of(prompts: Iterable[Sequence[int]], max_slots: int) -> int:
    """Pairs that a roll-out of the longest of these prompts may come to."""
    return max((len(p) + 1) // 2 for p in prompts) + max_slots + 1


class ServedRollouts:
    """An SGLang server beside the trainer: weights go over through a folder in memory, no checkpoint is written.

    Where the system has no such folder, it lies in ``fallback``. Seeds have no effect, so a resumed run makes other
    roll-outs. The server keeps its memory while the trainer works.
    """

    def __init__(
        self, model: Any, tokenizer: Any, fallback: Path, settings: ServerSettings, ctx: JobContext,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.dtype, self.settings, self.ctx = model, tokenizer, dtype, settings, ctx
        fallback.mkdir(parents=True, exist_ok=True)
        where = MEMORY_DISK if MEMORY_DISK.is_dir() else fallback
        self.folder = Path(tempfile.mkdtemp(prefix="pipo-student-", dir=where))
        self.engine: SglangEngine | None = None

    def wake(self) -> None:
        """Write the student as it is now and have the server take it; the first time nothing runs yet."""
        save_model(self.model, self.folder, self.tokenizer, self.dtype, merged_weights(self.model))
        if self.engine is None:
            self.engine = SglangEngine(self.folder, Method("pipo"), self.settings, name="the student")
            self.engine.attach(lambda text: self.ctx.emit("log", text=text), self.ctx.check)
        else:
            self.engine.reload(self.folder)

    def generate(self, requests: Iterable[Request]) -> dict[str, list[Event]]:
        assert self.engine is not None
        return self.engine.generate(requests)

    def sleep(self) -> None:
        """Nothing: giving memory back needs a server option that has not been tried here."""

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class OnPolicy:
    """Steps for the loop: each is one batch of roll-outs of the model as it is now, cut into micro-batches.

    ``prompts``: ids and where they came from. Every epoch has its own order; the roll-outs' seeds follow from ``seed``
    and the step, so that a resumed run makes the same ones. ``shard``: rank and number of processes, each of which
    rolls out its share of a step.
    """

    def __init__(
        self, model: Any, roller: Roller, prompts: Sequence[tuple[list[int], str]], *, rollouts: int,
        thresholds: tuple[float, ...], max_slots: int, temperature: float = 1.0, micro_rows: int | None = None,
        micro_tokens: int | None = None, epochs: float | None = None, seed: int = 0, shard: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        self.model, self.roller, self.all, self.rollouts = model, roller, prompts, rollouts
        self.thresholds, self.max_slots, self.sampling = thresholds, max_slots, Sampling(temperature=temperature)
        self.micro_rows, self.micro_tokens, self.seed, self.shard = micro_rows, micro_tokens, seed, shard
        self.total: int | None = None if epochs is None else max(1, int(epochs * len(prompts)) // rollouts)
        self.latest: dict[str, float] = {}

    def prompts(self, step: int) -> list[tuple[list[int], str]]:
        """The prompts of a step: one epoch after another, each shuffled."""
        out = []
        n = len(self.all)
        order: dict[int, list[int]] = {}
        for i in range(step * self.rollouts, (step + 1) * self.rollouts):
            epoch, place = divmod(i, n)
            if epoch not in order:
                order[epoch] = list(range(n))
                random.Random(f"{self.seed}/{epoch}").shuffle(order[epoch])
            out.append(self.all[order[epoch][place]])
        return out

    def pool(self, index: int, progress: float) -> list[list[OPDBatch]]:
        """One step: wake the engine, roll out, put it to sleep, lay out for the loss."""
        began = time.perf_counter()
        prompts = self.prompts(index)
        method = Method(name="pipo", threshold=self.thresholds[index % len(self.thresholds)])
        mine = range(self.shard[0], len(prompts), self.shard[1])
        requests = [
            Request(id=f"{index}/{i}", prompt=tuple(prompts[i][0]), method=method, sampling=self.sampling,
                    max_slots=self.max_slots, logprobs=0, seed=(self.seed * 1_000_003 + index) * 1_000_003 + i)
            for i in mine
        ]  # fmt: skip
        training = self.model.training
        self.model.eval()
        self.roller.wake()
        found = self.roller.generate(requests)
        self.roller.sleep()
        self.model.train(training)
        events = [found[r.id] for r in requests]
        self._tell(events, time.perf_counter() - began)
        return [self._micro_batches([prompts[i] for i in mine], events)]

    def _micro_batches(self, prompts: list[tuple[list[int], str]], events: list[list[Event]]) -> list[OPDBatch]:
        """Roll-outs of like length together. One that failed or was empty is left out."""
        lengths = [len(p) + sum(len(e.places) for e in es) for (p, _), es in zip(prompts, events, strict=True)]
        good = sorted((i for i, es in enumerate(events) if any(e.slots for e in es)), key=lambda i: lengths[i])
        if not good:
            said = next((e.error for es in events for e in es if e.error), "no token came out")
            raise JobFailed(
                f"none of {len(events)} roll-outs gave anything ({said}); look at the prompts and at max_slots"
            )
        pad = self.model.config.pad_token_id
        return [
            opd_batch([prompts[i][0] for i in g], [events[i] for i in g], pad, [prompts[i][1] for i in g])
            for g in groups_of(good, lengths, self.micro_rows, self.micro_tokens)
        ]

    def _tell(self, events: list[list[Event]], seconds: float) -> None:
        drafts = [d for steps in events for e in steps for d in e.drafts]
        slots = sum(e.slots for steps in events for e in steps)
        self.latest = {
            "rollout_s": seconds + self.latest.get("rollout_s", 0.0),
            "finished": sum(steps[-1].finish == "eos" for steps in events) / max(1, len(events)),
            "kept": sum(d.kept for d in drafts) / max(1, len(drafts)),
            "pad_ratio": 1 - sum(d.kept for d in drafts) / max(1, slots),
            "slots": slots / max(1, len(events)),
        }

    def metrics(self) -> dict[str, float]:
        """Of the latest roll-outs: share that ended by itself, share of drafts kept, PADs a pair, slots each.

        ``rollout_s``: seconds of roll-outs since the last call.
        """
        latest, self.latest = self.latest, {}
        return latest
