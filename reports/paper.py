"""The paper's figures, read from paper.toml, as rows for tables; always marked as the paper's."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any

MODEL = "Qwen3.5-4B"  # whose numbers stand beside ours where one column has to do


@lru_cache(maxsize=1)
def paper() -> dict[str, Any]:
    """All figures, for reading only; keys as in paper.toml, and what several places ask for in a form of its own:

    ``overall``: method -> ``quality`` [avg@4, pass@4] and ``slots`` of the 4B model. ``budget``: figure 2.
    ``latency``: metric -> input length -> times faster than regular. ``threshold``: figure 6, percent.
    """
    facts = tomllib.loads((files("reports") / "paper.toml").read_text())
    quality, slots, gate = facts["table1"][MODEL], facts["table2"][MODEL], facts["figure6"]
    facts["overall"] = {name: {"quality": rows[-1], "slots": slots[name]} for name, rows in quality.items()}
    facts["budget"] = {"slots": facts["figure2"]["budgets"], "says": facts["figure2"]["says"]}
    facts["latency"] = {metric: facts["figure4"][f"{metric}_times"] for metric in ("ttft", "tpot")}
    at = gate["at_pad_ratio"]
    facts["threshold"] = {
        "confidence": gate["pass_at_threshold"], "pad_ratio_at_0_95": 100 * gate["pad_ratio_at_0_95"],
        "at_pad_ratio_60": {key: at[key] for key in ("confidence", "random")},
    }  # fmt: skip
    return facts


def quality_rows(names: list[str]) -> list[tuple[str, float, float, int]]:
    """(variant, avg@4, pass@4, slots) of those variants of ours that the paper has under the same name."""
    overall = paper()["overall"]
    return [(n, *overall[n]["quality"], overall[n]["slots"]) for n in names if n in overall]
