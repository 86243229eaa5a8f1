"""Training rows drawn fresh from the lab's tasks, in two phases, each with a curriculum.

Phase ``skills`` lays arithmetic and look-ups, phase ``context`` brings long contexts in, up to their full size.
"""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec

from pipo.lab.tasks import TASK_TABLE, LabItem, draw
from pipo.train.data import Row


class Phase(msgspec.Struct, frozen=True):
    """``share``: of rows, by task. Before ``early`` (a share of the training) contexts are
    ``early_words`` long, and levels go to half while ``early_levels``.

    Contexts are log-uniform in ``early_words`` or ``words``, and uniform in ``long_words`` with chance ``long_share``.
    """

    share: dict[str, float]
    early: float
    early_levels: bool
    early_words: tuple[int, int]
    words: tuple[int, int]
    long_words: tuple[int, int]
    long_share: float


SKILLS = Phase(
    {"lab-chain": 0.45, "lab-choice": 0.35, "lab-links": 0.2}, 0.3, True, (64, 256), (64, 256), (256, 1280), 0.15
)
CONTEXT = Phase(
    {"lab-chain": 0.35, "lab-choice": 0.25, "lab-recall": 0.4}, 0.4, False, (32, 128), (64, 320), (320, 1280), 0.2
)
SHARE = {"lab-chain": 0.4, "lab-choice": 0.2, "lab-recall": 0.4}  # of roll-outs
CONTEXT_TASKS = ("lab-recall", "lab-links")


def training_item(rng: random.Random, phase: Phase, task: str, progress: float, least: int = 0) -> LabItem:
    """A random item of the train split. ``least``: lowest level, where the easy ones teach nothing more."""
    low, high = TASK_TABLE[task].train_levels
    low = max(low, least)
    early = progress < phase.early
    high = max(low + 2, high // 2) if early and phase.early_levels else high
    words = None
    if task in CONTEXT_TASKS:
        a, b = phase.early_words if early else phase.words
        words = int(math.exp(rng.uniform(math.log(a), math.log(b))))
        if not early and rng.random() < phase.long_share:
            words = rng.randint(*phase.long_words)
    return draw(task, "train", rng.randint(low, high), rng, words)


class FreshRows:
    """A row source for ``pipo.train.data.Batches``: every pool is new; the same seed gives the same pools.

    ``tasks``: those of the phase that are used (None: all).
    """

    def __init__(
        self, tokenizer: Any, phase: Phase, tasks: tuple[str, ...] | None = None, seed: int = 0, pool: int = 256
    ) -> None:
        self.tokenizer, self.phase, self.seed, self.pool = tokenizer, phase, seed, pool
        self.tasks = [t for t in phase.share if tasks is None or t in tasks]

    def __call__(self, pool: int, progress: float) -> list[Row]:
        rng = random.Random(f"fresh/{self.seed}/{pool}")
        weights = [self.phase.share[t] for t in self.tasks]
        rows = []
        for task in rng.choices(self.tasks, weights, k=self.pool):
            item = training_item(rng, self.phase, task, progress)
            prompt, solution = (
                self.tokenizer.encode(t, add_special_tokens=False) for t in (item.prompt, item.solution)
            )
            rows.append(Row(prompt, solution))
        return rows
