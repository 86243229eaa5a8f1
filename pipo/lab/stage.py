"""One stage of the lab's build, in a process of its own: ``python -m pipo.lab.stage FOLDER STAGE full|quick``.

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

import torch

from pipo.jobs import JobContext, LocalContext
from pipo.lab.recipe import FULL, QUICK, Recipe, student_config, teacher_config
from pipo.lab.rows import FreshRows
from pipo.lab.tokenizer import PAD, lab_tokenizer
from pipo.model import PipoForCausalLM, save_model
from pipo.train.data import Batches, collate_regular
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import Regular

RECIPES = {"full": FULL, "quick": QUICK}


def _pretrain(recipe: Recipe, folder: Path, ctx: JobContext, name: str, config: Any, tokens: int, seed: int) -> Any:
    """A regular model with its MTP head from random weights, on fresh gold solutions."""
    torch.manual_seed(seed)
    model = PipoForCausalLM(config)
    tokenizer = lab_tokenizer()
    batches = Batches(FreshRows(tokenizer, recipe.tasks, seed), collate_regular(PAD), seed)
    result = train(model, batches, Regular(), LoopSettings(tokens=tokens, seed=seed), folder / name, ctx, name)
    save_model(model, folder / name, tokenizer)
    return result


def base(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The student: regular decoding, MTP head trained with it."""
    return _pretrain(recipe, folder, ctx, "base", student_config(), recipe.base_tokens, recipe.seed)


def teacher(recipe: Recipe, folder: Path, ctx: JobContext) -> Any:
    """The larger model whose roll-outs and distributions teach the others."""
    return _pretrain(recipe, folder, ctx, "teacher", teacher_config(), recipe.teacher_tokens, recipe.seed + 1)


STAGES: dict[str, Callable[[Recipe, Path, JobContext], Any]] = {"base": base, "teacher": teacher}


def run_stage(folder: Path, name: str, recipe: Recipe, ctx: JobContext) -> dict[str, Any]:
    """Run one stage unless it is done; its result, from ``done.json``."""
    done = folder / name / "done.json"
    if not done.exists():
        began = time.time()
        result = STAGES[name](recipe, folder, ctx)
        row = {"stage": name, **(result or {}), "wall_s": round(time.time() - began), "cpu_s": round(time.process_time())}
        done.parent.mkdir(parents=True, exist_ok=True)
        tmp = done.with_suffix(".tmp")
        tmp.write_text(json.dumps(row) + "\n")
        tmp.replace(done)
        (folder / name / "state.pt").unlink(missing_ok=True)
    row = json.loads(done.read_text())
    return dict(row)


def main() -> None:
    folder, name, size = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)

    def show(kind: str, data: dict[str, Any]) -> None:
        print(json.dumps({"kind": kind, **data}), flush=True)

    ctx = LocalContext(folder / name, show)
    show("done", run_stage(folder, name, RECIPES[size], ctx))


if __name__ == "__main__":
    main()
