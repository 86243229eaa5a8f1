"""When a difference counts: its 95% interval must leave out no difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BETTER, WORSE, OPEN = "better", "worse", "not settled"


def settled(item: Mapping[str, Any] | None, neutral: float = 0.0) -> str:
    """``better`` where the whole interval lies above ``neutral``, ``worse`` where below, else ``not settled``."""
    if not item or item.get("low") is None or item.get("high") is None:
        return OPEN
    return BETTER if item["low"] > neutral else WORSE if item["high"] < neutral else OPEN
