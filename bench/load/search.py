"""The highest rate at which enough requests meet an SLO: doubling until it fails, then halving the gap. Torch-free.

Each probe is a point of its own, so a search that was interrupted goes on from the probes that are there. The share
of a probe is an estimate: where its interval holds the target, the rate found is as uncertain, and both are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

MOST_DOUBLINGS = 14
LEAST = 1 / 256  # of the first rate: below that nothing is searched for

Probe = Callable[[float], dict[str, Any]]


def highest_rate(probe: Probe, first: float, target: float, precision: float) -> dict[str, Any]:
    """Search with ``probe(rate)``, which gives a share as an estimate (a dict with ``value``).

    Returns:
        ``rate``: the highest tried that met ``target`` below all that failed, None where none did; ``share`` there;
        ``next``: the least that failed, None where none did; ``probes`` in order.
    """
    probes: list[dict[str, Any]] = []

    def met(rate: float) -> bool:
        found = probe(rate)
        probes.append({"rate": rate, "share": found, "met": found["value"] >= target})
        return bool(probes[-1]["met"])

    low, high = _bracket(met, first)
    while low is not None and high is not None and high / low > precision:
        middle = round_rate(math.sqrt(low * high))
        if not low < middle < high:
            break
        if met(middle):
            low = middle
        else:
            high = middle
    share = next((p["share"] for p in probes if p["rate"] == low), None)
    return {"rate": low, "share": share, "next": high, "probes": probes}


def _bracket(met: Callable[[float], bool], first: float) -> tuple[float | None, float | None]:
    """A rate that is met and one that is not; None where none was found."""
    rate = round_rate(first)
    if met(rate):
        for _ in range(MOST_DOUBLINGS):
            if not met(round_rate(2 * rate)):
                return rate, round_rate(2 * rate)
            rate = round_rate(2 * rate)
        return rate, None
    while rate > first * LEAST:
        rate, failed = round_rate(rate / 2), rate
        if met(rate):
            return rate, failed
    return None, rate


def round_rate(rate: float) -> float:
    """Three digits: enough for any precision allowed, and the same rate again in a search that goes on."""
    return float(f"{rate:.3g}")
