"""Teacher roll-outs on training problems, resumable: SFT data and OPD prompts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pipo.engine import TorchEngine
from pipo.jobs import JobContext
from pipo.lab.calibrate import loose_budget
from pipo.lab.recipe import Recipe
from pipo.lab.rows import CONTEXT, SHARE, training_item
from pipo.lab.sampling import sample_items
from pipo.lab.tasks import LabItem
from pipo.model import load_model, load_tokenizer

CHUNK = 128


def rollout_items(recipe: Recipe, chunk: int) -> list[LabItem]:
    """The training problems of a chunk; the same for the same recipe."""
    rng = random.Random(f"rollouts/{recipe.seed}/{chunk}")
    tasks = rng.choices(recipe.tasks, [SHARE[t] for t in recipe.tasks], k=CHUNK)
    return sorted((training_item(rng, CONTEXT, t, 1.0, least=4) for t in tasks), key=lambda i: len(i.prompt))


def make_rollouts(recipe: Recipe, teacher: Path, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Sample, score and write ``correct.jsonl`` (SFT) and ``prompts.jsonl`` (OPD: solved in half of the samples)."""
    model, tokenizer = load_model(teacher), load_tokenizer(teacher)
    engine = TorchEngine(model, max_batch=128)
    chunks = -(-recipe.rollout_items // CHUNK)
    folder.mkdir(parents=True, exist_ok=True)
    for chunk in range(chunks):
        path = folder / f"chunk-{chunk:04d}.jsonl"
        if not path.exists():
            lines = []
            for item, samples in sample_items(
                engine, tokenizer, rollout_items(recipe, chunk), recipe.rollout_samples, loose_budget([12]),
                recipe.seed, ctx, chunk=CHUNK,
            ):  # fmt: skip
                texts = [s.text for s in samples]
                row = {"task": item.task, "level": item.level, "prompt": item.prompt, "texts": texts,
                       "correct": [s.correct for s in samples]}  # fmt: skip
                lines.append(json.dumps(row) + "\n")
            tmp = path.with_suffix(".tmp")
            tmp.write_text("".join(lines))
            tmp.replace(path)
        ctx.emit("progress", done=chunk + 1, total=chunks, note="rollouts")
    return _collect(folder, chunks)


def _collect(folder: Path, chunks: int) -> dict[str, Any]:
    chunk_lines = (line for c in range(chunks) for line in (folder / f"chunk-{c:04d}.jsonl").read_text().splitlines())
    rows = [json.loads(line) for line in chunk_lines]
    samples: dict[str, list[bool]] = {}
    kept = 0
    with open(folder / "correct.jsonl", "w") as sft, open(folder / "prompts.jsonl", "w") as opd:
        for row in rows:
            samples.setdefault(row["task"], []).extend(row["correct"])
            for text, ok in zip(row["texts"], row["correct"], strict=True):
                if ok:
                    kept += 1
                    sft.write(json.dumps({"task": row["task"], "prompt": row["prompt"], "response": text}) + "\n")
            if 2 * sum(row["correct"]) >= len(row["correct"]):
                opd.write(json.dumps({"task": row["task"], "prompt": row["prompt"]}) + "\n")
    accuracy = {task: round(sum(s) / len(s), 4) for task, s in samples.items()}
    return {"samples": sum(map(len, samples.values())), "correct": kept, "teacher_accuracy": accuracy}
