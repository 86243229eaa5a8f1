"""When requests arrive: constant, Poisson, or gamma with a burstiness; the first one at 0. numpy only.

Arrivals of one seed at all rates are the same pattern, stretched: what differs between two rates is the rate alone.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from pipo.errors import BadInput

Kind = Literal["poisson", "gamma", "constant"]
KINDS: tuple[str, ...] = ("poisson", "gamma", "constant")
MOST = 1_000_000


def gaps(kind: Kind, count: int, seed: int, burstiness: float = 1.0) -> list[float]:
    """``count`` gaps of mean 1 between arrivals.

    ``burstiness``: the gamma's shape; 1 is Poisson, below it requests come in bursts (the gaps' variance is
    1 / burstiness), above it more evenly.
    """
    rng = np.random.default_rng([seed, 0x10AD])
    if kind == "constant":
        return [1.0] * count
    shape = 1.0 if kind == "poisson" else burstiness
    return [float(g) for g in rng.gamma(shape, 1.0 / shape, size=count)]


def arrivals(
    kind: Kind, rate: float, seed: int, *, requests: int | None, duration_s: float | None, burstiness: float = 1.0
) -> list[float]:
    """Seconds of each arrival: ``requests`` of them, or those before ``duration_s``, whatever ends first.

    Raises:
        BadInput: a rate that is no finite number above 0, or more than a million arrivals.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise BadInput(f"rate {rate} must be a finite number above 0, in requests a second")
    if requests is None and duration_s is None:
        raise BadInput("neither requests nor a duration; give one of them, or arrivals never end")
    most = MOST if requests is None else requests
    guess = most if duration_s is None else min(most, math.ceil(1.5 * rate * duration_s) + 100)
    while True:  # gaps of one seed are a prefix of more gaps of it
        out = [0.0]
        for gap in gaps(kind, guess, seed, burstiness):
            out.append(out[-1] + gap / rate)
        whole = duration_s is None or out[-1] >= duration_s or guess >= most
        if whole:
            break
        guess = min(most, 2 * guess)
    kept = [t for t in out[:most] if duration_s is None or t < duration_s]
    if len(kept) >= MOST:
        raise BadInput(f"rate {rate:g} for {duration_s} s is more than {MOST} requests; ask for less")
    return kept
