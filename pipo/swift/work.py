"""What one process trains on: its share of every step, the loss, and what comes after the last step.

Everything here is put together from pipo.train.jobs, so that a step of this engine is a step of the embedded one.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

import torch

from pipo.jobs import JobContext
from pipo.train import jobs
from pipo.train.calibrate import calibration
from pipo.train.data import MicroBatch, PlannedSteps, collate_pairs
from pipo.train.objectives import PipoSFT
from pipo.train.opd import OPDBatch, Places
from pipo.train.plan import groups_of
from pipo.train.rollouts import OnPolicy
from pipo.train.samples import Samples
from pipo.train.settings import OPDSettings, SFTSettings
from pipo.train.student import Student, open_for_training

BLANK = 4  # places of a micro-batch with nothing in it: two pairs, so that both heads run


class Work(Protocol):
    """``total``: steps in all, None where a token budget ends them. ``note``: the stage, for logs."""

    note: str
    student: Student
    objective: Any
    total: int | None
    sample: Samples

    def share(self, step: int) -> list[Any]:
        """This process's micro-batches of a step."""

    def blank(self) -> Any:
        """A micro-batch that adds nothing: for a process whose share is smaller than another's."""

    def metrics(self) -> dict[str, float]:
        """What is to be logged beside the losses."""

    def calibrate(self) -> dict[str, Any]:
        """The calibration of the trained confidence head."""

    def close(self) -> None: ...


class SFTWork:
    """SFT: micro-batches rank::processes of each step of the plan."""

    note = "sft"

    def __init__(self, s: SFTSettings, folder: Path, ctx: JobContext, rank: int) -> None:
        self.s, self.rank = s, rank
        self.student = open_for_training(s, s.compressor, s.start, ctx)
        model = self.student.model
        model.config.mtp_loss_weight, model.config.confidence_loss_weight = s.mtp_weight, s.confidence_weight
        self.pad = model.config.pad_token_id
        rows, self.kept_out = jobs.sft_rows(s, self.student.tokenizer, ctx)
        self.plan = jobs.sft_plan(s, rows)
        self.total: int | None = len(self.plan.steps)
        ctx.emit("log", text=f"sft: {jobs.describe(s, self.student, len(rows), self.total)}")
        collate = collate_pairs(self.pad, s.augmentation, s.rho_max, s.all_pad)
        self.steps = PlannedSteps(rows, self.plan, collate, s.seed)
        self.objective = PipoSFT(s.mtp_weight, s.confidence_weight, s.loss_chunk)
        shown = [r.prompt for r in self.kept_out or rows[:2]]
        self.sample = Samples(model, self.student.tokenizer, shown, folder, ctx, self.student.dtype)

    def share(self, step: int) -> list[MicroBatch]:
        mine = range(self.rank, len(self.plan.steps[step]), self.s.processes)
        return [self.steps.micro(step, m) for m in mine]

    def blank(self) -> MicroBatch:
        return MicroBatch(torch.full((1, BLANK), self.pad), torch.full((1, BLANK), -100), 0)

    def metrics(self) -> dict[str, float]:
        return {}

    def calibrate(self) -> dict[str, Any]:
        lengths = [len(r.prompt) + len(r.response) for r in self.kept_out]
        groups = groups_of(list(range(len(self.kept_out))), lengths, self.s.micro_rows, self.s.micro_tokens)
        plain = collate_pairs(self.pad, "split", 0.0, 0.0)
        batches = [plain([self.kept_out[i] for i in g], random.Random(0)) for g in groups]
        return calibration(self.student.model, self.objective, batches, self.student.autocast)

    def close(self) -> None:
        """Nothing is held."""


class OPDWork:
    """OPD: prompts rank::processes of each step, rolled out here, judged by a teacher of this process's own."""

    note = "opd"

    def __init__(self, s: OPDSettings, folder: Path, ctx: JobContext, rank: int) -> None:
        self.s = s
        self.student = open_for_training(s, None, None, ctx)
        model, tokenizer = self.student.model, self.student.tokenizer
        teacher = jobs.open_teacher(s, self.student)
        prompts = jobs.opd_prompts(s, tokenizer)
        self.prompts, self.kept_out = jobs.hold_out(
            prompts, [tuple(p) for p, _ in prompts], min(s.holdout, s.rollouts), s.seed
        )
        self.roller = jobs.open_roller(s, self.student, [*self.prompts, *self.kept_out], folder, ctx)
        self.steps: OnPolicy = jobs.on_policy(s, model, self.roller, self.prompts, shard=(rank, s.processes))
        self.total = self.steps.total
        ctx.emit("log", text=f"opd: {jobs.describe(s, self.student, len(self.prompts), self.total)}")
        self.objective = jobs.opd_objective(s, teacher)
        shown = [p for p, _ in self.kept_out or self.prompts]
        self.sample = Samples(model, tokenizer, shown, folder, ctx, self.student.dtype)

    def share(self, step: int) -> list[OPDBatch]:
        return self.steps.pool(step, 0.0)[0]

    def blank(self) -> OPDBatch:
        pads = torch.full((1, BLANK), self.student.model.config.pad_token_id)
        return OPDBatch(pads, torch.empty(0), 0, [], pads[:, :2], _nowhere(), _nowhere())

    def metrics(self) -> dict[str, float]:
        return self.steps.metrics()

    def calibrate(self) -> dict[str, Any]:
        held = jobs.on_policy(self.s, self.student.model, self.roller, self.kept_out or self.prompts,
                              rollouts=len(self.kept_out) or self.s.rollouts)  # fmt: skip
        return calibration(self.student.model, self.objective, held.pool(0, 1.0)[0], self.student.autocast)

    def close(self) -> None:
        self.roller.close()


def _nowhere() -> Places:
    ids = torch.zeros(0, dtype=torch.long)
    return Places(ids.view(0, 2), ids.view(0, 2), ids, torch.zeros(0))


WORKS: dict[str, Any] = {"sft": SFTWork, "opd": OPDWork}
