"""Numbers as words: estimates with their intervals, markdown tables, CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Estimate = Mapping[str, Any] | None
DASH = "–"


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number with fixed digits; a dash for none, and no negative zero."""
    if value is None:
        return DASH
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def half_width(estimate: Estimate) -> float | None:
    """Half of the 95% interval; None where there is none."""
    if not estimate or estimate.get("low") is None or estimate.get("high") is None:
        return None
    return float(estimate["high"] - estimate["low"]) / 2


def plus_minus(estimate: Estimate, scale: float = 1.0, digits: int = 1) -> str:
    """``47.3 ±3.1``: the value times ``scale`` and half of its 95% interval; where lopsided ``1.2 [0.1, 6.4]``."""
    if not estimate or estimate.get("value") is None:
        return DASH
    if lopsided(estimate):
        return interval(estimate, scale, digits)
    half = half_width(estimate)
    value = number(scale * estimate["value"], digits)
    return value if half is None else f"{value} ±{scale * half:.{digits}f}"


def lopsided(estimate: Mapping[str, Any], most: float = 1.5) -> bool:
    """Whether one side of an interval is more than ``most`` times the other: near 0 and 1 it has to be."""
    if estimate.get("low") is None or estimate.get("high") is None:
        return False
    sides = sorted([estimate["value"] - estimate["low"], estimate["high"] - estimate["value"]])
    return bool(sides[1] > most * sides[0])


def percent(estimate: Estimate) -> str:
    return plus_minus(estimate, 100.0)


def interval(item: Estimate, scale: float = 1.0, digits: int = 1, sign: bool = False, key: str = "value") -> str:
    """``+5.2 [+1.1, +9.3]``: a value with its 95% interval in brackets."""
    if not item or item.get(key) is None:
        return DASH
    value = number(scale * item[key], digits, sign)
    if item.get("low") is None or item.get("high") is None:
        return value
    low, high = (number(scale * item[side], digits, sign) for side in ("low", "high"))
    return f"{value} [{low}, {high}]"


def share(value: Any, digits: int = 1) -> str:
    """A plain share as percent."""
    return number(100 * value, digits) if isinstance(value, int | float) else DASH


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A markdown table; the first ``left`` columns are flush left, the others right. Bars in cells are escaped."""
    rule = [":--" if i < left else "--:" for i in range(len(columns))]
    lines = [columns, rule, *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV, nested values flattened to ``avg.low`` and so on; columns in order of first appearance."""
    flat = [flatten(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(flat)


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one level with dotted names."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def series_name(variant: str, keep: float | None = None) -> str:
    """A variant of a latency run, with the kept share where one was forced."""
    return variant if keep is None else f"{variant}, {100 * keep:.0f} % kept by force"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def image(name: str, text: str) -> str:
    """A figure on a markdown page; ``text`` for those who do not see it."""
    return f"![{text}]({name})"


def folded(title: str, text: str) -> str:
    """A part of a page that opens by a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
