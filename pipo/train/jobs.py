"""SFT and OPD as jobs: from settings and folders to a trained model folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.model import from_backbone, load_model, load_tokenizer, save_model
from pipo.model.threads import fit_threads
from pipo.sglang.launch import ServerSettings, unusable
from pipo.train.data import Batches, FileRows, collate_pairs
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import PipoSFT
from pipo.train.opd import OPD, OnPolicy
from pipo.train.rollouts import ServedRollouts
from pipo.train.settings import OPDSettings, SFTSettings, convert


def run_sft(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-sft``."""
    return train_sft(convert(spec, SFTSettings), ctx.folder, ctx)


def run_opd(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-opd``."""
    return train_opd(convert(spec, OPDSettings), ctx.folder, ctx)


def train_sft(s: SFTSettings, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Train a PIPO model from a regular one; state and metrics go to ``folder``, the model to ``s.out``."""
    source = resolve_model(s.model)
    tokenizer = load_tokenizer(source)
    model = load_model(source)
    if not model.is_pipo:
        model = from_backbone(source, s.compressor, s.start, s.seed)
    fit_threads(model)
    pad = model.config.pad_token_id
    rows = FileRows(Path(s.data).expanduser(), tokenizer, s.seed)
    tokens = s.tokens or int(s.epochs * sum(len(r.prompt) + len(r.response) for r in rows.rows))
    model.config.mtp_loss_weight, model.config.confidence_loss_weight = s.mtp_weight, s.confidence_weight
    batches = Batches(rows, collate_pairs(pad, s.augmentation, s.rho_max, s.all_pad), s.seed, s.micro_tokens,
                      s.accumulate)  # fmt: skip
    settings = LoopSettings(tokens=tokens, lr=s.lr, optimizer=s.optimizer, weight_decay=s.weight_decay, seed=s.seed,
                            save_every=s.save_every)  # fmt: skip
    result = train(model, batches, PipoSFT(s.mtp_weight, s.confidence_weight), settings, folder, ctx, "sft")
    return _save(model, tokenizer, s.out, folder, result)


def train_opd(s: OPDSettings, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Distil a PIPO model on its own roll-outs; state and metrics go to ``folder``, the model to ``s.out``."""
    source = resolve_model(s.model)
    model, tokenizer, teacher = load_model(source), load_tokenizer(source), load_model(resolve_model(s.teacher))
    if not model.is_pipo:
        raise BadInput(f"{s.model} is a regular model; OPD starts from a PIPO model, `pipo train sft` makes one")
    if teacher.is_pipo:
        raise BadInput(f"teacher {s.teacher} is a PIPO model; the teacher is a regular one")
    if teacher.config.vocab_size != model.config.vocab_size:
        raise BadInput(
            f"teacher and student have vocabularies of {teacher.config.vocab_size} and {model.config.vocab_size}; "
            "they must share one"
        )
    fit_threads(model)
    prompts = _read_prompts(Path(s.data).expanduser(), tokenizer)

    def draw(pool: int) -> list[list[int]]:
        return random.Random(f"{s.seed}/{pool}").choices(prompts, k=s.batch)

    for p in teacher.parameters():
        p.requires_grad_(False)
    served = None
    if s.engine == "sglang":
        server = s.server or ServerSettings()
        if (why := unusable(server)) is not None:
            raise BadInput(why)
        served = ServedRollouts(model, tokenizer, folder / "student", server, ctx)
    steps = OnPolicy(model, draw, s.thresholds, s.max_slots, s.seed, served)
    settings = LoopSettings(tokens=s.tokens, lr=s.lr, optimizer=s.optimizer, weight_decay=0.0, warmup=10, seed=s.seed,
                            save_every=s.save_every, log_every=5)  # fmt: skip
    objective = OPD(teacher, s.kl, s.top, s.confidence_weight)
    try:
        result = train(model, steps, objective, settings, folder, ctx, "opd")
    finally:
        if served is not None:
            served.close()
    return _save(model, tokenizer, s.out, folder, result)


def _read_prompts(path: Path, tokenizer: Any) -> list[list[int]]:
    if not path.is_file():
        raise BadInput(f"{path} is not a file; OPD data is JSONL with 'prompt'")
    out = []
    for number, line in enumerate(path.read_text().split("\n")[:-1], 1):
        try:
            out.append(tokenizer.encode(json.loads(line)["prompt"], add_special_tokens=False))
        except (json.JSONDecodeError, KeyError, TypeError) as e:
            raise BadInput(f"{path}:{number}: no JSON object with 'prompt' ({e!r})") from e
    if not out:
        raise BadInput(f"{path} holds no whole line; OPD data is JSONL with 'prompt'")
    return out


def _save(model: Any, tokenizer: Any, out: str | None, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    target = Path(out).expanduser() if out else folder / "model"
    save_model(model, target, tokenizer)
    return {**result, "model": str(target)}
