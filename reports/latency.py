"""A latency run in a report. Schema of its summary: bench/latency_summary.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import figures, tables
from reports.comparison import names, series
from reports.load import LoadedRun
from reports.style import Look
from reports.text import folded, image, listed

__all__ = ["answer", "draw", "lists", "section", "series", "what"]


def what(run: LoadedRun) -> str:
    """One line: which variants after how many tokens."""
    lengths = listed([str(n) for n in sorted({r["input_tokens"] for r in run.rows})])
    shape = run.summary.get("shape")
    on = f" of a random model of shape {shape}" if shape else ""
    trials = run.summary.get("trials")
    times = f", {trials} trials" if trials else ""
    return f"Latency{on} at batch 1 after {lengths} tokens{times}: {listed(names(run))}."


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """First token and pace over input length."""
    return {stem: figures.latency(run, styles)}


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    return {name: run.summary.get(name) for name in ("ratios", "floor")}


def answer(run: LoadedRun) -> str:
    """Nothing of its own: the verdict speaks of comparisons and latency together."""
    return ""


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The latency run's part of a page."""
    parts = ["## Latency", *(image(f, "Latency against input length") for f in names), tables.latency(run)]
    parts.append(folded("Percentiles over trials", tables.tails(run)))
    floor = tables.floor(run)
    if floor:
        parts += ["### What the floor allows", *filter(None, [tables.machine(run)]), floor]
    return parts
