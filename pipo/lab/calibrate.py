"""Levels and budgets of the test items, fixed by regular decoding on the validation split alone.

The rule, written before any PIPO model was measured: of all windows of four neighbouring levels, the one whose
pass@4, averaged over base and control, lies nearest to 65%, such that both lie within 50 to 80% where that can be
had. The tight budget is the 65th percentile of the base's slots there, so it cuts about 35% of its runs; the loose
one leaves room for every solution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipo.engine import TorchEngine
from pipo.jobs import JobContext
from pipo.lab.recipe import Recipe
from pipo.lab.sampling import Sample, sample_items
from pipo.lab.tasks import TASK_TABLE, draw_many
from pipo.model import load_model, load_tokenizer

WINDOW, TARGET, LOW, HIGH, SAMPLES = 4, 0.65, 0.5, 0.8, 4
CUT = 0.35


def loose_budget(levels: list[int]) -> int:
    """Room for the longest valid solution (8 words a step and the box), and some."""
    return 8 * max(levels) + 16


def choose_window(base: dict[int, float], control: dict[int, float]) -> list[int]:
    """The window of levels by the rule above, from each model's pass@4 by level."""
    levels = sorted(base)
    windows = [levels[i : i + WINDOW] for i in range(len(levels) - WINDOW + 1)]

    def badness(window: list[int]) -> tuple[float, float]:
        means = [sum(p[lv] for lv in window) / WINDOW for p in (base, control)]
        outside = sum(max(0.0, LOW - m, m - HIGH) for m in means)
        return outside, abs(sum(means) / 2 - TARGET)

    return min(windows, key=badness)


def calibrate_tasks(recipe: Recipe, base: Path, control: Path, ctx: JobContext) -> dict[str, Any]:
    """``tasks``: name -> levels, budgets and the pass@4 by level that they rest on."""
    tokenizer = load_tokenizer(base)
    engines = {name: TorchEngine(load_model(f), max_batch=128) for name, f in (("base", base), ("control", control))}
    out: dict[str, Any] = {}
    for done, task in enumerate(recipe.tasks):
        low, high = TASK_TABLE[task].levels
        passed: dict[str, dict[int, float]] = {name: {} for name in engines}
        runs: dict[int, list[Sample]] = {}
        for level in range(low, high + 1):
            items = draw_many(task, "valid", recipe.valid_items, [level], recipe.seed)
            for name, engine in engines.items():
                got = list(sample_items(engine, tokenizer, items, SAMPLES, loose_budget([level]), recipe.seed, ctx))
                passed[name][level] = sum(any(s.correct for s in ss) for _, ss in got) / len(got)
                if name == "base":
                    runs[level] = [s for _, ss in got for s in ss]
            ctx.emit("progress", done=done * (high - low + 1) + level - low + 1,
                     total=len(recipe.tasks) * (high - low + 1), note="calibrate")  # fmt: skip
            if level > low + WINDOW and all(p[level] < 0.2 and p[level - 1] < 0.2 for p in passed.values()):
                break  # harder levels cannot enter the window
        levels = choose_window(passed["base"], passed["control"])
        slots = sorted(s.slots for level in levels for s in runs[level])
        tight = slots[int((1 - CUT) * len(slots))]
        out[task] = {
            "levels": levels,
            "budgets": {"tight": tight, "loose": loose_budget(levels)},
            "pass_at_4": {name: {str(lv): round(p, 4) for lv, p in by.items()} for name, by in passed.items()},
        }
    return {"tasks": out}
