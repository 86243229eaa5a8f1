"""The threshold study in a report. Schema of its summary: ablations/threshold.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import figures, tables
from reports.load import LoadedRun
from reports.style import Look
from reports.text import image


def what(run: LoadedRun) -> str:
    """One line: what was varied."""
    model = run.summary.get("model", "a PIPO model")
    return f"Threshold of the gate varied on {model}, beside a coin flip at the same pad ratio."


def series(run: LoadedRun) -> list[str]:
    """None: its figure has looks of its own."""
    return []


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Quality over pad ratio."""
    return {stem: figures.threshold(run)}


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    return {"differences": run.summary.get("differences")}


def answer(run: LoadedRun) -> str:
    """Nothing of its own: the verdict speaks of it."""
    return ""


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The study's part of a page."""
    parts = ["## Threshold", *(image(f, "Quality against pad ratio, confidence gate and coin flip") for f in names)]
    return [*parts, tables.threshold(run)]
