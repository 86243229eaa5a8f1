"""Training rows drawn fresh from the lab's tasks, with a curriculum."""

from __future__ import annotations

import math
import random
from typing import Any

from pipo.lab.tasks import TASK_TABLE, TASKS, LabItem, draw
from pipo.train.data import Row

EARLY = 0.3  # share of training with short problems only
SHARE = {"lab-chain": 0.45, "lab-choice": 0.35, "lab-recall": 0.2}


def training_item(rng: random.Random, task: str, progress: float, least: int = 0) -> LabItem:
    """A random training item: short problems first, recall contexts mostly short with a tail to full length.

    ``least``: lowest level, where the easy ones teach nothing more.
    """
    low, high = TASK_TABLE[task].train_levels
    low = max(low, least)
    high = max(low + 2, high // 2) if progress < EARLY else high
    words = None
    if task == "lab-recall":
        words = int(math.exp(rng.uniform(math.log(64), math.log(256))))
        if progress >= EARLY and rng.random() < 0.15:
            words = rng.randint(256, 1280)
    return draw(task, "train", rng.randint(low, high), rng, words)


class FreshRows:
    """A row source for ``pipo.train.data.Batches``: every pool is new; the same seed gives the same pools."""

    def __init__(self, tokenizer: Any, tasks: tuple[str, ...] = TASKS, seed: int = 0, pool: int = 256) -> None:
        self.tokenizer, self.tasks, self.seed, self.pool = tokenizer, tasks, seed, pool

    def __call__(self, pool: int, progress: float) -> list[Row]:
        rng = random.Random(f"fresh/{self.seed}/{pool}")
        weights = [SHARE[t] for t in self.tasks]
        rows = []
        for task in rng.choices(self.tasks, weights, k=self.pool):
            item = training_item(rng, task, progress)
            prompt, solution = (self.tokenizer.encode(t, add_special_tokens=False) for t in (item.prompt, item.solution))
            rows.append(Row(prompt, solution))
        return rows
