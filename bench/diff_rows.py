"""What all rows of a diff have in common: settings, margins, Holm, verdicts. Torch-free.

A row in the making holds *oriented* estimates, above 0 where the new run is better, so that one rule judges them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from bench import diff_stats as ds
from bench import stats, stats_paired
from bench.stats import Estimate
from pipo.errors import BadInput

Row = dict[str, Any]
MOST = 700.0  # natural logarithm of the largest ratio that a float holds, about
Notes = list[tuple[str, str]]  # of what (may be empty), and what


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare and when to fail. ``metrics``, ``tasks``: empty is the default, and all. ``names``: old -> new.

    ``margin``: points of quality, percent of costs and times. Raises BadInput where a value breaks a rule.
    """

    metrics: list[str] = []
    tasks: list[str] = []
    margin: float = 0.0
    alpha: float = 0.05
    non_inferiority: bool = False
    names: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 100:
            raise BadInput(
                f"margin {self.margin:g} must lie in [0, 100): points of quality, percent of costs and times"
            )
        if not 1e-6 <= self.alpha <= 0.5:
            raise BadInput(f"alpha {self.alpha:g} must lie in [0.000001, 0.5]; 0.05 is usual")
        if self.non_inferiority and self.margin == 0:
            raise BadInput("non-inferiority needs a margin above 0: no run can be shown to be worse by nothing at all")


class Found(msgspec.Struct):
    """A row in the making: oriented parts (above 0 is better), one a task, and the margin on their scale."""

    row: Row
    parts: list[Estimate]
    margin: float
    turn: float = 1.0
    ratio: bool = False


def checked(asked: list[str], known: list[str], default: list[str]) -> list[str]:
    """The metrics asked for, or the default. Raises BadInput for one that these runs do not have."""
    for metric in asked:
        if metric not in known:
            raise BadInput(f"metric {metric!r} is none of these runs'; they have {', '.join(known)}")
    return list(dict.fromkeys(asked)) or default


def settle(made: Sequence[Found], settings: Settings) -> list[Row]:
    """The rows with intervals, p values, Holm's correction over those that decide, and the verdicts."""
    deciding = [f for f in made if f.row["decides"]]
    plain, beyond = [], []
    for f in made:
        f.row["p"] = stats.p_value(f.parts)
        low, high = ds.interval(f.parts, settings.alpha)
        f.row["settled"] = "not settled" if low is None or high is None else (
            "better" if low > 0 else "worse" if high < 0 else "not settled")  # fmt: skip
        f.row["failed"], f.row["p_margin"] = False, None
        value = float(stats.combine(f.parts).value)
        if f.row["decides"]:
            plain.append(1.0 if f.row["p"] is None else f.row["p"])
            p = ds.p_beyond(f.parts, f.margin)
            beyond.append(1.0 if p is None or value >= -f.margin else p)
            if settings.non_inferiority:
                f.row["failed"] = low is None or low <= -f.margin
            else:
                f.row["failed"] = high is not None and high < -f.margin
        _shown(f, value, low, high)
    for f, p, q in zip(deciding, stats_paired.holm(plain), stats_paired.holm(beyond), strict=True):
        f.row["p_holm"], f.row["p_margin"] = None if f.row["p"] is None else p, q
        if not settings.non_inferiority:
            f.row["failed"] = f.row["failed"] and q < settings.alpha
    return [f.row for f in made]


def _shown(f: Found, value: float, low: float | None, high: float | None) -> None:
    """Value and interval as people read them: b - a, or b / a."""
    ends = [low, high] if f.turn > 0 else [None if e is None else 0.0 - e for e in (high, low)]
    if f.ratio:
        ends = [None if e is None else math.exp(max(-MOST, min(MOST, e))) for e in ends]
    f.row["value"] = math.exp(f.turn * value) if f.ratio else value if f.turn > 0 else 0.0 - value
    f.row["low"], f.row["high"] = ends
    if f.row["settled"] != "not settled":
        f.row["detectable"] = None
