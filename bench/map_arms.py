"""The methods of a map, and how many tokens each of their steps is worth."""

from __future__ import annotations

import msgspec

from pipo.engine.types import Method

BURST = 4  # steps timed in a row before the next method has its turn


class Arm(msgspec.Struct, frozen=True):
    """A method that is timed; pair methods once for each kept share, since their contexts differ in length."""

    method: Method
    keep: float | None = None

    @property
    def name(self) -> str:
        return self.method.name if self.keep is None else f"{self.method.name}, {100 * self.keep:g} % kept"


def arms_of(kept: list[float], depth: int) -> list[Arm]:
    """regular, mtp, eagle, and pipo at each kept share (threshold 0, the confidence head runs)."""
    singles = [Arm(Method("regular")), Arm(Method("mtp")), Arm(Method("eagle", depth=depth))]
    return singles + [Arm(Method("pipo", threshold=0.0), share) for share in kept]


def tokens_per_step(method: str, keep: float | None, accepted: float | None) -> float:
    """Tokens that a step brings a row, as assumed."""
    if method == "pipo":
        return 1.0 + (1.0 if keep is None else keep)
    if method == "eagle":
        return 1.0 if accepted is None else accepted
    return 2.0 if method == "mtp" else 1.0
