"""What goes to stdout (tables, or JSON and nothing else) and to stderr (notes); plain text, no control codes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any


def note(text: str) -> None:
    """Say something to the person, on stderr, so that stdout stays what was asked for."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print plain values or structs as indented JSON on stdout. NaN and infinities become null."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[str] = ()) -> None:
    """Print an aligned table: text columns named in ``left`` and the first one to the left, all others to the right."""
    print("\n".join(table_lines(columns, rows, left=left)))


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[str] = ()) -> list[str]:
    """The lines of ``print_table``: header, rule, one line a row; cells are ``cell()``ed."""
    body = [[cell(value) for value in row] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in body), 0) for i, column in enumerate(columns)]
    flush = [i == 0 or column in left for i, column in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        parts = [c.ljust(w) if f else c.rjust(w) for c, w, f in zip(cells, widths, flush, strict=True)]
        return "  ".join(parts).rstrip()

    return [line(columns), line(["-" * w for w in widths]), *(line(row) for row in body)]


def cell(value: Any) -> str:
    """One value as short text: ``-`` for none, three significant digits and no exponent for usual floats."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def clock(epoch_s: float | None) -> str:
    """Local date and time of an epoch second, or ``-``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s)) if epoch_s else "-"


def duration(seconds: float | None) -> str:
    """``7.4s``, ``3m05s``, ``2h04m``, or ``-`` where unknown."""
    if seconds is None or seconds < 0:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
