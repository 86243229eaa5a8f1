"""How a running job looks on stderr: one live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any, Protocol

from pipo.cli.output import cell, duration, note

LINE_EVERY_S = 5.0
_FIXED = ("done", "total", "note")


class View(Protocol):
    """Shows a job's events; ``close`` may be called twice."""

    def show(self, kind: str, when: float, data: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def make_view(since: float) -> View:
    """A live bar where stderr is a terminal, else lines. Log lines older than ``since`` (epoch s) are not repeated."""
    return Bar(since) if sys.stderr.isatty() else Lines(since)


class Pace:
    """The state of a job from its progress events: how far, how fast, how long still."""

    def __init__(self) -> None:
        self.done, self.total, self.note = 0.0, 0.0, ""
        self.rates: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self._seen: dict[float, deque[tuple[float, float]]] = {}  # by total: phases may run side by side

    def progress(self, when: float, data: dict[str, Any]) -> None:
        done, total = float(data.get("done") or 0), float(data.get("total") or 0)
        seen = self._seen.setdefault(total, deque(maxlen=64))
        if seen and done < seen[-1][1]:  # begun anew
            seen.clear()
        seen.append((when, done))
        self.done, self.total, self.note = done, total, str(data.get("note") or "")
        self.rates = {k: v for k, v in data.items() if k not in _FIXED}

    def metric(self, data: dict[str, Any]) -> None:
        self.metrics = dict(data)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the pace of the last events; None before there is a pace."""
        seen = self._seen.get(self.total)
        if not seen or len(seen) < 2 or not self.total:
            return None
        (t0, d0), (t1, d1) = seen[0], seen[-1]
        return (self.total - self.done) * (t1 - t0) / (d1 - d0) if d1 > d0 and t1 > t0 else None

    def words(self) -> str:
        """The last note, rates and metrics, as one short text."""
        figures = self.rates | self.metrics
        rates = [f"{cell(value)} {unit(key)}" if unit(key) else f"{key.replace('_', ' ')} {cell(value)}"
                 for key, value in figures.items()]  # fmt: skip
        return " · ".join([*([self.note] if self.note else []), *rates])


def unit(key: str) -> str:
    """``tokens_s`` of a progress event is a rate, ``tokens/s``; an empty string for keys that are no rates."""
    return f"{key[:-2]}/s" if key.endswith("_s") else ""


class Lines:
    """Plain lines: every log line, and where the job stands at most every few seconds."""

    def __init__(self, since: float) -> None:
        self._since, self._pace = since, Pace()
        self._printed, self._last = 0.0, ""

    def show(self, kind: str, when: float, data: dict[str, Any]) -> None:
        if kind == "log" and when >= self._since:
            note(str(data.get("text", "")))
        elif kind == "metric":
            self._pace.metric(data)
        elif kind == "progress":
            self._pace.progress(when, data)
            if time.monotonic() - self._printed >= LINE_EVERY_S:
                self._print()

    def close(self) -> None:
        if self._pace.total:
            self._print()

    def _print(self) -> None:
        pace = self._pace
        where = f"{cell(pace.done)}/{cell(pace.total)}"
        left = f" · {duration(pace.eta_s)} left" if pace.eta_s and pace.done < pace.total else ""
        words = f" · {pace.words()}" if pace.words() else ""
        if where + words != self._last:
            note(where + left + words)
        self._last, self._printed = where + words, time.monotonic()


class Bar:
    """One live line: what runs, a bar, done of total, time left, rates and the last note; log lines scroll above it."""

    def __init__(self, since: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._since, self._pace = since, Pace()
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.fields[where]}"),
            TextColumn("[dim]{task.fields[left]}[/dim]"),
            TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self._console,
            transient=True,
            refresh_per_second=8,
        )
        self._task = self._progress.add_task("", total=None, where="waiting", left="", words="")
        self._progress.start()
        self._open = True

    def show(self, kind: str, when: float, data: dict[str, Any]) -> None:
        if kind == "log":
            if when >= self._since:
                self._progress.console.print(str(data.get("text", "")), markup=False, highlight=False, soft_wrap=True)
            return
        if kind == "metric":
            self._pace.metric(data)
        elif kind == "progress":
            self._pace.progress(when, data)
        else:
            return
        pace = self._pace
        left = f"{duration(pace.eta_s)} left" if pace.eta_s else ""
        where = f"{cell(pace.done)}/{cell(pace.total)}" if pace.total else "working"
        self._progress.update(
            self._task, total=pace.total or None, completed=pace.done, where=where, left=left, words=pace.words()
        )

    def close(self) -> None:
        if self._open:
            self._open = False
            self._progress.stop()
