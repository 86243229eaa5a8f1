"""The paper's figures, read from paper.toml, as rows for tables; always marked as the paper's."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from reports.text import DASH, number


def paper() -> dict[str, Any]:
    """All figures; keys as in paper.toml."""
    return tomllib.loads((files("reports") / "paper.toml").read_text())


def quality_rows(names: list[str]) -> list[tuple[str, float, float, int]]:
    """(variant, avg@4, pass@4, slots) of those variants of ours that the paper has under the same name."""
    overall = paper()["overall"]
    return [(n, *overall[n]["quality"], overall[n]["slots"]) for n in names if n in overall]


def latency_cells() -> list[tuple[str, list[str]]]:
    """(metric, cells at 2K and 128K) as times faster than regular."""
    facts = paper()["latency"]
    names = {"ttft": "first token (TTFT)", "tpot": "time per token (TPOT)"}
    return [(names[m], [number(facts[m].get(n), 2) or DASH for n in ("2048", "131072")]) for m in names]
