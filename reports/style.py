"""How figures look: readable in grey (markers, line styles and lightness all differ), no more ink than the data need.

matplotlib is imported inside the functions, so that importing ``reports`` stays quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

# Ordered by lightness, so that a grey print keeps them apart; neighbours differ in marker and dash as well.
COLOURS = ("#111111", "#5a2d82", "#2f5f9e", "#1f8a70", "#7a9a01", "#d98e04", "#b9b9b9", "#8c1c13")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 1)), (0, (3, 1)))
DARK, LIGHT = "#111111", "#8a8a8a"

RC = {
    "font.size": 9.0,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "pipo",
    "savefig.dpi": 150,
}


class Look(msgspec.Struct, frozen=True):
    """Colour, marker and dash of one variant, the same in every figure of a report."""

    colour: str
    marker: str
    dash: Any

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments for errorbar or plot."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dash,
            "markersize": 5.5,
            "linewidth": 1.4,
            "capsize": 2.5,
            "elinewidth": 1.0,
        }


def looks(names: list[str]) -> dict[str, Look]:
    """A look for each name, by its place in the list."""
    picked = [(COLOURS[i % 8], MARKERS[i % 8], DASHES[i % 8]) for i in range(len(names))]
    return {name: Look(*look) for name, look in zip(names, picked, strict=True)}


@contextmanager
def styled() -> Iterator[None]:
    """Our settings of matplotlib, for the drawing inside only."""
    import matplotlib

    with matplotlib.rc_context(RC):
        yield


def save(figure: Any, folder: Path, stem: str) -> list[Path]:
    """Write a figure as PNG and SVG (without a date, so that equal data give equal files)."""
    paths = [folder / f"{stem}.png", folder / f"{stem}.svg"]
    figure.savefig(paths[0])
    figure.savefig(paths[1], metadata={"Date": None})
    return paths
