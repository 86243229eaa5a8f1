"""Stop strings: whether the newest token completes one of them in the text generated so far. Torch-free.

Only a window of the last tokens is decoded again, long enough for the longest stop string. A match counts where the
newest token is needed for it, so what the window's start cuts off cannot make one up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
PIECES_A_CHARACTER = 4  # byte-level tokens: a character may take so many


class StopFinder:
    """Feeds on tokens one by one."""

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        self.stops, self.decode = tuple(stops), decode
        self.width = PIECES_A_CHARACTER * max(len(s) for s in self.stops) + 4
        self.window: list[int] = []

    def completes(self, token: int) -> bool:
        """Take in the next token; whether a stop string is complete now that was not before."""
        before = self.decode(self.window)
        self.window = [*self.window[-self.width :], token]
        text = self.decode(self.window)
        return any(text.count(s) > before.count(s) for s in self.stops)
