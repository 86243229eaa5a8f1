"""A comparison or evaluation in a report. Schema of its summary: bench/summary.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import budget, figures, statistics, tables
from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.style import Look
from reports.text import folded, image, listed, series_name


def what(run: LoadedRun) -> str:
    """One line: which variants on which tasks."""
    items = run.summary.get("items") or {}
    tasks = listed([f"{task} ({items.get(task, '?')} items)" for task in run.tasks])
    return f"Compared on {tasks}, {run.k} samples an item: {listed(names(run))}."


def names(run: LoadedRun) -> list[str]:
    """The variants of a run, each once."""
    return list(dict.fromkeys(row["variant"] for row in run.rows))


def series(run: LoadedRun) -> list[str]:
    """Names that need a look of their own, those of plain variants first."""
    return names(run) + [series_name(r["variant"], r["keep"]) for r in run.rows if r.get("keep") is not None]


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Quality by task and budget; where the records have times, curves over budgets and costs."""
    more = {f"{stem}-{word}": figure for word, figure in budget.figures(run, styles).items()}
    return {stem: figures.quality(run), **more}


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables: differences, failures, what was paid."""
    found = {name: run.summary.get(name) for name in ("differences", "failures", *budget.LISTS)}
    return {**found, "curves": budget.points(run)}


def answer(run: LoadedRun) -> str:
    """Nothing of its own: the verdict speaks of comparisons and latency together."""
    return ""


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The comparison's part of a page."""
    budgets = [b for b in BUDGETS if any(r["budget"] == b for r in run.rows)]
    parts = ["## Comparison", *(image(f, "Quality by task and budget") for f in names[:1])]
    everything = "All tasks" if len(run.tasks) != 1 else run.tasks[0]
    for size in budgets:
        parts += [f"### {everything}, {size} budget", tables.comparison(run, ALL_TASKS, size)]
    if len(run.tasks) > 1:
        parts.append(folded("Task by task", by_task(run, budgets)))
    accepted = tables.acceptance(run)
    if accepted:
        parts += ["### Drafts accepted by their place in the chain", accepted]
    if run.summary.get("differences"):
        parts += ["### Paired differences, all tasks", tables.differences(run, overall=True)]
    parts += statistics.section(run)
    if run.summary.get("differences") and len(run.tasks) > 1:
        parts.append(folded("Paired differences task by task", tables.differences(run, overall=False)))
    failed = tables.failures(run)
    if failed:
        parts += ["### Failed generations", failed]
    parts += budget.section(run, names[1:])
    return parts


def by_task(run: LoadedRun, budgets: list[str]) -> str:
    """The tables of single tasks, each under its own number of slots."""
    parts = []
    for task in run.tasks:
        for size in budgets:
            rows = (r for r in run.rows if r["task"] == task and r["budget"] == size)
            slots = next((r.get("budget_slots") for r in rows), None)
            title = f"{task}, {size} budget" + (f" ({slots} slots)" if slots else "")
            parts += [f"**{title}**", tables.comparison(run, task, size)]
    return "\n\n".join(parts)
