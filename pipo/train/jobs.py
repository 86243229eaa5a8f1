"""SFT and OPD as jobs: from settings and folders to a trained model folder."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipo.config import paths
from pipo.data.packed import PackedRows
from pipo.data.rows import Row, read_prompts, read_rows
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.model import open_student, save_model
from pipo.model.vocabulary import same_vocabulary
from pipo.sglang.launch import ServerSettings, unusable
from pipo.train.calibrate import calibration, write_calibration
from pipo.train.data import PlannedSteps, collate_pairs
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import PipoSFT
from pipo.train.opd import OPD
from pipo.train.plan import Plan, groups_of, make_plan
from pipo.train.resume import take_over
from pipo.train.rollouts import EmbeddedRollouts, OnPolicy, Roller, ServedRollouts, pairs_of
from pipo.train.samples import Samples
from pipo.train.settings import OPDSettings, SFTSettings, TrainSettings, convert
from pipo.train.student import Student, open_for_training


def run_sft(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-sft``."""
    return train_sft(convert(spec, SFTSettings), ctx.folder, ctx)


def run_opd(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-opd``."""
    return train_opd(convert(spec, OPDSettings), ctx.folder, ctx)


def loop_settings(s: TrainSettings, autocast: bool) -> LoopSettings:
    """What the loop reads of a job's settings."""
    return LoopSettings(
        tokens=s.tokens if isinstance(s, OPDSettings) else None, lr=s.lr, optimizer=s.optimizer,
        weight_decay=s.weight_decay, warmup=s.warmup, min_lr=s.min_lr, clip=s.clip, seed=s.seed,
        save_every=s.save_every, log_every=s.log_every, sample_every=s.sample_every, autocast=autocast,
    )  # fmt: skip


def sft_rows(s: SFTSettings, tokenizer: Any, ctx: JobContext) -> tuple[PackedRows, list[Row]]:
    """Rows to train on and rows kept out, which have no prompt in common; says what was left out."""
    path = Path(s.data).expanduser()
    found = read_rows(
        path, tokenizer, max_length=s.max_length, thinking=s.thinking, cache=paths().tokenised, keep=False
    )
    ctx.emit("log", text=f"data: {found.report}")
    rows = found.rows
    here, out = hold_out(range(len(rows)), rows.prompt_keys(), s.holdout, s.seed)
    return rows.pick(here), list(rows.pick(out))


def hold_out(rows: Sequence[Any], keys: Sequence[Any], most: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Split off up to ``most`` rows, a tenth at most, all rows of a key on one side."""
    left = min(most, len(rows) // 10)
    sizes = Counter(keys)
    order = sorted(sizes)
    random.Random(f"holdout/{seed}").shuffle(order)
    out: set[Any] = set()
    for key in order:
        if sizes[key] <= left:
            left -= sizes[key]
            out.add(key)
    split: tuple[list[Any], list[Any]] = ([], [])
    for row, key in zip(rows, keys, strict=True):
        split[key in out].append(row)
    return split


def sft_plan(s: SFTSettings, rows: PackedRows) -> Plan:
    """The order of an SFT, which every engine of training follows."""
    return make_plan(rows.lengths(), micro_rows=s.micro_rows, micro_tokens=s.micro_tokens, accumulate=s.accumulate,
                     epochs=s.epochs, tokens=s.tokens, seed=s.seed)  # fmt: skip


def train_sft(s: SFTSettings, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Train a PIPO model from a regular one; state and metrics go to ``folder``, the model to ``s.out``."""
    take_over(s, folder, ctx)
    student = open_for_training(s, s.compressor, s.start, ctx)
    model, tokenizer = student.model, student.tokenizer
    model.config.mtp_loss_weight, model.config.confidence_loss_weight = s.mtp_weight, s.confidence_weight
    rows, kept_out = sft_rows(s, tokenizer, ctx)
    plan = sft_plan(s, rows)
    ctx.emit("log", text=f"sft: {describe(s, student, len(rows), len(plan.steps))}")
    collate = collate_pairs(model.config.pad_token_id, s.augmentation, s.rho_max, s.all_pad)
    objective = PipoSFT(s.mtp_weight, s.confidence_weight, s.loss_chunk)
    steps = PlannedSteps(rows, plan, collate, s.seed)
    sample = Samples(model, tokenizer, [r.prompt for r in kept_out or rows[:2]], folder, ctx, student.dtype)
    result = train(model, steps, objective, loop_settings(s, student.autocast), folder, ctx, "sft", sample)
    groups = groups_of(list(range(len(kept_out))), [len(r.prompt) + len(r.response) for r in kept_out], s.micro_rows,
                       s.micro_tokens)  # fmt: skip
    plain = collate_pairs(model.config.pad_token_id, "split", 0.0, 0.0)
    batches = [plain([kept_out[i] for i in g], random.Random(0)) for g in groups]
    return finish(s, student, folder, result, "sft", calibration(model, objective, batches, student.autocast))


def train_opd(s: OPDSettings, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Distil a PIPO model on its own roll-outs; state and metrics go to ``folder``, the model to ``s.out``."""
    take_over(s, folder, ctx)
    student = open_for_training(s, None, None, ctx)
    model, tokenizer = student.model, student.tokenizer
    teacher = open_teacher(s, student)
    prompts = opd_prompts(s, tokenizer)
    prompts, kept_out = hold_out(prompts, [tuple(p) for p, _ in prompts], min(s.holdout, s.rollouts), s.seed)
    roller = open_roller(s, student, [*prompts, *kept_out], folder, ctx)
    try:
        steps = on_policy(s, model, roller, prompts)
        ctx.emit("log", text=f"opd: {describe(s, student, len(prompts), steps.total)}")
        objective = opd_objective(s, teacher)
        sample = Samples(model, tokenizer, [p for p, _ in kept_out or prompts], folder, ctx, student.dtype)
        result = train(model, steps, objective, loop_settings(s, student.autocast), folder, ctx, "opd", sample)
        held = on_policy(s, model, roller, kept_out or prompts, rollouts=len(kept_out) or s.rollouts)
        found = calibration(model, objective, held.pool(0, 1.0)[0], student.autocast)
    finally:
        roller.close()
    return finish(s, student, folder, result, "opd", found)


def open_roller(
    s: OPDSettings, student: Student, prompts: list[tuple[list[int], str]], folder: Path, ctx: JobContext
) -> Roller:
    """What rolls out, with room for the longest of these prompts. Raises BadInput where SGLang cannot run here."""
    if s.engine == "torch":
        context = pairs_of((p for p, _ in prompts), s.max_slots)
        return EmbeddedRollouts(student.model, min(64, s.rollouts), context, student.dtype)
    server = s.server or ServerSettings()
    if (why := unusable(server)) is not None:
        raise BadInput(why)
    return ServedRollouts(student.model, student.tokenizer, folder / "student", server, ctx, student.dtype)


def on_policy(
    s: OPDSettings, model: Any, roller: Roller, prompts: list[tuple[list[int], str]], rollouts: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> OnPolicy:  # fmt: skip
    """The steps of an OPD: roll-outs by ``roller``, of which this process makes its shard."""
    return OnPolicy(
        model, roller, prompts, rollouts=rollouts or s.rollouts, thresholds=s.thresholds, max_slots=s.max_slots,
        temperature=s.temperature, micro_rows=s.micro_rows, micro_tokens=s.micro_tokens,
        epochs=None if s.tokens else s.epochs, seed=s.seed, shard=shard,
    )  # fmt: skip


def opd_objective(s: OPDSettings, teacher: Any) -> OPD:
    """The loss that the settings ask for."""
    return OPD(teacher, s.kl, s.top, s.confidence_weight, s.mtp_weight, s.beta, s.temperature, s.loss_chunk)


def opd_prompts(s: OPDSettings, tokenizer: Any) -> list[tuple[list[int], str]]:
    """Prompts of the data file, and where each came from."""
    path = Path(s.data).expanduser()
    found = read_prompts(path, tokenizer, max_length=s.max_length, thinking=s.thinking)
    return [(p, f"{path.name}, prompt {i}") for i, p in enumerate(found, 1)]


def open_teacher(s: OPDSettings, student: Student) -> Any:
    """The regular model that judges, on the student's device. Raises BadInput where it cannot judge this student."""
    teacher, tokenizer, _ = open_student(resolve_model(s.teacher), None)
    if teacher.is_pipo:
        raise BadInput(f"teacher {s.teacher} is a PIPO model; the teacher is a regular one")
    theirs, mine = teacher.config.vocab_size, student.model.config.vocab_size
    why = same_vocabulary(tokenizer, student.tokenizer, (s.teacher, s.model))
    if theirs != mine:
        why = f"teacher {s.teacher} has {theirs} ids and student {s.model} {mine}"
    if why is not None:
        raise BadInput(f"{why}; distillation compares them id by id, so teacher and student must share a vocabulary")
    teacher = teacher.to(device=student.device, dtype=student.dtype)
    for p in teacher.parameters():
        p.requires_grad_(False)
    return teacher


def describe(s: TrainSettings, student: Student, rows: int, steps: int | None) -> str:
    """One line about what is about to be trained."""
    trained = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in student.model.parameters())
    size = f"{steps} steps" if steps is not None else f"{s.tokens} tokens"
    what = f"LoRA of rank {s.lora_rank}" if s.tuner == "lora" else "every weight"
    return (
        f"{size} on {rows} rows; {what}, {trained:,} of {whole:,} parameters; {s.optimizer}, rate {s.lr:g}; "
        f"{student.device}, {'bfloat16 where safe' if student.autocast else 'float32'}"
    )


def finish(
    s: TrainSettings, student: Student, folder: Path, result: dict[str, Any], stage: str, found: dict[str, Any]
) -> dict[str, Any]:
    """Write calibration, adapters and the merged model; returns the job's result."""
    shown = write_calibration(folder, stage, found)
    target = Path(s.out).expanduser() if s.out else folder / "model"
    more: dict[str, Any] = {}
    if s.tuner == "lora":
        more["adapter"] = str(student.save_adapter(folder / "adapter", s.model))
    save_model(student.model, target, student.tokenizer, weights=student.merged(), dtype=student.dtype)
    return {**result, **shown, **more, "model": str(target)}
