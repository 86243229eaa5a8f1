"""Metrics of a training: JSONL for programs, TensorBoard events for people, and events for whoever follows the job."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipo.jobs import JobContext


class TrainLog:
    """Writes ``metrics.jsonl`` and TensorBoard event files (``tensorboard/``) in a training's folder.

    ``start``: the step that training goes on from; rows of later steps are dropped, they are about to be done again.
    """

    def __init__(self, folder: Path, ctx: JobContext, note: str, start: int = 0) -> None:
        self.path, self.ctx, self.note = folder / "metrics.jsonl", ctx, note
        self._cut(start)
        self._board = _board(folder / "tensorboard", start)

    def _cut(self, step: int) -> None:
        if self.path.exists():
            rows = [line for line in self.path.read_text().split("\n")[:-1] if json.loads(line)["step"] <= step]
            self.path.write_text("".join(row + "\n" for row in rows))

    def row(self, step: int, values: dict[str, Any], done: float, total: float, rate: float) -> None:
        """Log one step. ``done`` of ``total``: for progress; ``rate``: real tokens a second."""
        row = {"step": step, **{k: _short(v) for k, v in values.items()}}
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{self.note}/{name}", value, step)
        self.ctx.emit("metric", **row)
        losses = [row[n] for n in row if n.endswith(("_loss", "_kl"))]
        self.ctx.emit("progress", done=done, total=total, note=self.note, tokens_s=round(rate), loss=losses[0])

    def text(self, step: int, title: str, text: str) -> None:
        """Show a sample in TensorBoard."""
        if self._board is not None:
            self._board.add_text(f"{self.note}/{title}", text, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _short(value: Any) -> Any:
    """Five digits behind the point, or six significant ones of small numbers such as learning rates."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    return round(value, 5) if abs(value) >= 1e-3 else float(f"{value:.6g}")


def _board(folder: Path, start: int) -> Any:
    """TensorBoard's writer, or None where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)
