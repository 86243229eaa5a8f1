"""One stage of the lab's build, in a process of its own: ``python -m pipo.lab.stage FOLDER STAGE SIZE [SEED]``.

A stage reads and writes below FOLDER alone and ends by writing ``STAGE/done.json``; run again, it goes on from its
last checkpoint. Progress goes to standard output as JSON lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from pipo.data.rows import read_rows
from pipo.jobs import JobContext
from pipo.lab.calibrate import calibrate_tasks
from pipo.lab.graph import ChildContext, show
from pipo.lab.recipe import RECIPES, Recipe, student_config, teacher_config
from pipo.lab.rollouts import make_rollouts
from pipo.lab.rows import CONTEXT, SKILLS, FreshRows
from pipo.lab.tokenizer import PAD, lab_tokenizer
from pipo.model import PipoForCausalLM, load_model, load_tokenizer, save_model
from pipo.train.data import Batches, Recycled, collate_regular
from pipo.train.jobs import train_opd, train_sft
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import Regular
from pipo.train.settings import OPDSettings, SFTSettings, convert


def _phase(recipe: Recipe, folder: Path, ctx: JobContext, name: str, start: str | None, phase: int, seed: int) -> Any:
    """Phase 0 or 1 of base or teacher: a regular model with its MTP head on fresh gold solutions."""
    student = name.startswith("base")
    torch.manual_seed(seed)
    if start is None:
        model = PipoForCausalLM(student_config() if student else teacher_config())
    else:
        model = load_model(folder / start)
    tokens = (recipe.base_tokens if student else recipe.teacher_tokens)[phase]
    tasks = recipe.tasks if len(recipe.tasks) == 1 else None
    rows = FreshRows(lab_tokenizer(), (SKILLS, CONTEXT)[phase], tasks, seed + 100 * phase)
    settings = LoopSettings(tokens=tokens, seed=seed)
    batches = Batches(rows, collate_regular(PAD), seed)
    result = train(model, batches, Regular(), settings, folder / name, ctx, name)
    save_model(model, folder / name, lab_tokenizer())
    return result


def base_skills(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The student's first phase, from random weights."""
    return _phase(recipe, folder, ctx, "base_skills", None, 0, recipe.seed)


def base(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The student: regular decoding, MTP head trained with it."""
    return _phase(recipe, folder, ctx, "base", "base_skills", 1, recipe.seed)


def teacher_skills(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The teacher's first phase, from random weights."""
    return _phase(recipe, folder, ctx, "teacher_skills", None, 0, recipe.seed + 1)


def teacher(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The larger model whose roll-outs and distributions teach the others."""
    return _phase(recipe, folder, ctx, "teacher", "teacher_skills", 1, recipe.seed + 1)


def rollouts(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The teacher's samples on training problems; the correct ones become SFT data."""
    return make_rollouts(recipe, folder / "teacher", folder / "rollouts", ctx)


def sft(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """PIPO-SFT of the base on the teacher's correct roll-outs."""
    spec = {
        "recipe": "lab", "model": str(folder / "base"), "data": str(folder / "rollouts" / "correct.jsonl"),
        "out": str(folder / "sft"), "tokens": recipe.sft_tokens, "seed": recipe.seed + 2,
    }  # fmt: skip
    return train_sft(convert(spec, SFTSettings), folder / "sft", ctx)


def opd(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """PIPO-OPD of the SFT model towards the teacher, on problems that the teacher solves in half of its samples."""
    spec = {
        "recipe": "lab", "model": str(folder / "sft"), "teacher": str(folder / "teacher"),
        "data": str(folder / "rollouts" / "prompts.jsonl"), "out": str(folder / "opd"), "tokens": recipe.opd_tokens,
        "thresholds": [0.0, 0.95], "seed": recipe.seed + 3,
    }  # fmt: skip
    return train_opd(convert(spec, OPDSettings), folder / "opd", ctx)


def control(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The base trained on: regular decoding, the same roll-outs, as many tokens as SFT and OPD together."""
    model, tokenizer = load_model(folder / "base"), load_tokenizer(folder / "base")
    seed = recipe.seed + 4
    rows = Recycled(list(read_rows(folder / "rollouts" / "correct.jsonl", tokenizer).rows), seed)
    settings = LoopSettings(tokens=recipe.control_tokens, seed=seed)
    result = train(model, Batches(rows, collate_regular(PAD), seed), Regular(), settings, folder / "control", ctx,
                   "control")  # fmt: skip
    save_model(model, folder / "control", tokenizer)
    return result


def calibrate(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """Levels and budgets of the test items, from regular decoding of base and control alone."""
    return calibrate_tasks(recipe, folder / "base", folder / "control", ctx)


STAGES: dict[str, Callable[[Recipe, Path, JobContext], Any]] = {
    f.__name__: f
    for f in (
        base_skills, teacher_skills, base, teacher,
        rollouts, sft, opd, control, calibrate,
    )
}  # fmt: skip
NEEDS: dict[str, tuple[str, ...]] = {
    "base_skills": (),
    "teacher_skills": (),
    "base": ("base_skills",),
    "teacher": ("teacher_skills",),
    "rollouts": ("teacher",),
    "sft": ("base", "rollouts"),
    "opd": ("sft",),
    "control": ("base", "rollouts"),
    "calibrate": ("base", "control"),
}


def run_stage(folder: Path, name: str, recipe: Recipe, ctx: JobContext) -> dict[str, Any]:
    """Run one stage unless it is done; its result, from ``done.json``."""
    done = folder / name / "done.json"
    if not done.exists():
        began = time.time()
        result = STAGES[name](recipe, folder, ctx)
        row = {
            "stage": name,
            **(result or {}),
            "wall_s": round(time.time() - began),
            "cpu_s": round(time.process_time()),
        }
        done.parent.mkdir(parents=True, exist_ok=True)
        tmp = done.with_suffix(".tmp")
        tmp.write_text(json.dumps(row) + "\n")
        tmp.replace(done)
        (folder / name / "state.pt").unlink(missing_ok=True)
    row = json.loads(done.read_text())
    return dict(row)


def main() -> None:
    """Run the stage named on the command line."""
    folder, name, size = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    ctx = ChildContext(folder / name)
    recipe = msgspec.structs.replace(RECIPES[size], seed=int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    show("done", run_stage(folder, name, recipe, ctx))


if __name__ == "__main__":
    main()
