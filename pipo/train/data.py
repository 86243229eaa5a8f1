"""Rows for training: prompt and response ids, cut into micro-batches of like length, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipo.errors import BadInput, BadRecord
from pipo.train.augment import Augmentation, augment, draw_rho, pad_prompt


class Row(NamedTuple):
    """One training sequence: unsupervised prompt ids and supervised response ids (EOS included)."""

    prompt: list[int]
    response: list[int]


@dataclass
class MicroBatch:
    """ids and labels [B, T]; labels are -100 at prompts, PADs and padding. ``tokens``: real tokens in it."""

    ids: torch.Tensor
    labels: torch.Tensor
    tokens: int


class FileRows:
    """Rows of a JSONL file with ``prompt`` and ``response`` texts, epoch after epoch in a new order."""

    def __init__(self, path: Path, tokenizer: Any, seed: int, pool: int = 256) -> None:
        self.rows = read_rows(path, tokenizer)
        self.seed = seed
        self.pool = pool
        self._epoch = -1
        self._order: list[int] = []

    def __call__(self, pool: int, progress: float) -> list[Row]:
        n = len(self.rows)
        out = []
        for i in range(pool * self.pool, (pool + 1) * self.pool):
            epoch, place = divmod(i, n)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, list(range(n))
                random.Random(f"{self.seed}/{epoch}").shuffle(self._order)
            out.append(self.rows[self._order[place]])
        return out


def read_rows(path: Path, tokenizer: Any) -> list[Row]:
    """Read and tokenise a JSONL file. Raises BadRecord that names the line; a torn last line is left out."""
    if not path.is_file():
        raise BadRecord(f"{path} is not a file; training data is JSONL with 'prompt' and 'response'")
    lines = path.read_text().split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            item = json.loads(line)
            texts = item["prompt"], item["response"]
        except (json.JSONDecodeError, KeyError, TypeError) as e:
            raise BadRecord(f"{path}:{number}: no JSON object with 'prompt' and 'response' ({e!r})") from e
        rows.append(Row(*(tokenizer.encode(t, add_special_tokens=False) for t in texts)))
    if not rows:
        raise BadRecord(f"{path} holds no whole line; training data is JSONL with 'prompt' and 'response'")
    return rows


@dataclass
class Batches:
    """Steps of micro-batches from a row source; step i is the same whenever it is asked for.

    ``rows(pool, progress)`` gives a pool of rows; it is cut into micro-batches of at most ``micro_tokens`` places
    (longer rows alone), rows of like length together, ``accumulate`` micro-batches a step. ``collate`` makes tensors.
    """

    rows: Callable[[int, float], list[Row]]
    collate: Callable[[list[Row], random.Random], MicroBatch]
    seed: int
    micro_tokens: int = 1536
    accumulate: int = 2

    def pool(self, index: int, progress: float) -> list[list[MicroBatch]]:
        """All steps of pool ``index``; ``progress`` in [0, 1] lets a curriculum choose rows."""
        rng = random.Random(f"{self.seed}/{index}")
        rows = sorted(self.rows(index, progress), key=lambda r: len(r.prompt) + len(r.response))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * (len(row.prompt) + len(row.response)) > self.micro_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        micro = [self.collate(g, rng) for g in groups]
        return [micro[i : i + self.accumulate] for i in range(0, len(micro), self.accumulate)]


def _stack(rows: list[tuple[list[int], list[int]]], pad: int, even: bool) -> MicroBatch:
    """Right-pad (prompt, response) rows into ids and labels."""
    length = max(len(p) + len(r) for p, r in rows)
    length += length % 2 if even else 0
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), -100)
    for i, (p, r) in enumerate(rows):
        ids[i, : len(p) + len(r)] = torch.tensor(p + r)
        gold = torch.tensor(r)
        labels[i, len(p) : len(p) + len(r)] = torch.where(gold == pad, -100, gold)
    return MicroBatch(ids, labels, int((ids != pad).sum()))


def collate_regular(pad: int) -> Callable[[list[Row], random.Random], MicroBatch]:
    """Rows as they are, for regular training."""
    return lambda rows, rng: _stack([(r.prompt, r.response) for r in rows], pad, even=False)


def collate_pairs(
    pad: int, kind: Augmentation, rho_max: float, all_pad: float
) -> Callable[[list[Row], random.Random], MicroBatch]:
    """Rows paired up with PAD augmentation, one rho a sequence, for PIPO-SFT."""
    if kind not in ("split", "shift"):
        raise BadInput(f"augmentation {kind!r} must be 'split' or 'shift'")
    draw_rho(random.Random(0), rho_max, all_pad)  # checks both

    def collate(rows: list[Row], rng: random.Random) -> MicroBatch:
        paired = [
            (pad_prompt(r.prompt, pad), augment(r.response, draw_rho(rng, rho_max, all_pad), kind, pad, rng))
            for r in rows
        ]
        return _stack(paired, pad, even=True)

    return collate
