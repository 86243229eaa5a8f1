"""What tests of ms-swift share: rows to train on, the embedded run of a training, its curve beside another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from pipo.jobs import LocalContext
from pipo.lab.family import items
from pipo.train import jobs
from pipo.train.settings import SFTSettings


def write_rows(path: Path, count: int) -> Path:
    """Solved problems of the lab as a training file: prompts and responses."""
    drawn = items("lab-chain", "train", count, levels=[3, 4, 5])
    path.write_text("".join(json.dumps({"prompt": i.prompt, "response": i.solution}) + "\n" for i in drawn))
    return path


class Stopping(LocalContext):
    """A context that is asked to stop once a step was logged."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder, self.hear)
        self.step = step

    def hear(self, kind: str, data: dict[str, Any]) -> None:
        self.cancelled = self.cancelled or (kind == "metric" and data["step"] >= self.step)


def embedded(s: SFTSettings, folder: Path) -> Path:
    """Train by the same settings in this process."""
    alone = msgspec.structs.replace(s, backend="torch", processes=1, deepspeed=None)
    jobs.train_sft(alone, folder, LocalContext(folder))
    return folder


def curve(folder: Path) -> list[dict[str, Any]]:
    """The logged steps of a training."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def furthest(a: Path, b: Path, names: tuple[str, ...] = ("backbone_loss", "mtp_loss", "confidence_loss")) -> float:
    """The largest difference between two curves' losses, step by step."""
    one, two = curve(a), curve(b)
    assert [r["step"] for r in one] == [r["step"] for r in two] == list(range(1, len(one) + 1))
    assert [r["tokens"] for r in one] == [r["tokens"] for r in two]
    return max(abs(x[n] - y[n]) for x, y in zip(one, two, strict=True) for n in names)
