"""From rows to steps: prompt and response ids, paired up and padded into micro-batches, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch

from pipo.data.rows import Row
from pipo.errors import BadInput
from pipo.train.augment import Augmentation, augment, draw_rho, pad_prompt
from pipo.train.plan import POOL, Plan


@dataclass
class MicroBatch:
    """ids and labels [B, T]; labels are -100 at prompts, PADs and padding.

    ``tokens``: real tokens in it. ``sources``: where each row came from, for messages.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    tokens: int
    sources: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> MicroBatch:
        """The same with its tensors, and those of its parts, on a device."""
        moved = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if hasattr(value, "to"):
                moved[f.name] = value.to(device)
        return replace(self, **moved)


Collate = Callable[[list[Row], random.Random], MicroBatch]


def batch_rng(seed: int, step: int, micro: int) -> random.Random:
    """The random source of one micro-batch: the same in every process and after every interruption."""
    return random.Random(f"{seed}/{step}/{micro}")


class PlannedSteps:
    """Steps for the loop from rows and a plan; step i is the same whenever it is asked for."""

    def __init__(self, rows: Sequence[Row], plan: Plan, collate: Collate, seed: int) -> None:
        self.rows, self.plan, self.collate, self.seed = rows, plan, collate, seed
        self.total: int | None = len(plan.steps)

    def micro(self, step: int, micro: int) -> MicroBatch:
        """Micro-batch ``micro`` of step ``step``."""
        rows = [self.rows[i] for i in self.plan.steps[step][micro]]
        return self.collate(rows, batch_rng(self.seed, step, micro))

    def pool(self, index: int, progress: float) -> list[list[MicroBatch]]:
        """Step ``index`` as a pool of one."""
        return [[self.micro(index, m) for m in range(len(self.plan.steps[index]))]]

    def metrics(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}


@dataclass
class Batches:
    """Steps of micro-batches from a source of fresh rows; step i is the same whenever it is asked for.

    ``rows(pool, progress)`` gives a pool of rows; it is cut into micro-batches of at most ``micro_tokens`` places
    (longer rows alone), rows of like length together, ``accumulate`` micro-batches a step. ``collate`` makes tensors.
    """

    rows: Callable[[int, float], list[Row]]
    collate: Collate
    seed: int
    micro_tokens: int = 1536
    accumulate: int = 2
    total: int | None = None

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

    def metrics(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}


class Recycled:
    """A source for ``Batches`` from rows that are there: epoch after epoch, each in a new order."""

    def __init__(self, rows: list[Row], seed: int, pool: int = POOL) -> None:
        self.rows, self.seed, self.pool = rows, seed, pool
        self._epoch = -1
        self._order: list[int] = []

    def __call__(self, pool: int, progress: float) -> list[Row]:
        out = []
        for i in range(pool * self.pool, (pool + 1) * self.pool):
            epoch, place = divmod(i, len(self.rows))
            if epoch != self._epoch:
                self._epoch, self._order = epoch, list(range(len(self.rows)))
                random.Random(f"{self.seed}/{epoch}").shuffle(self._order)
            out.append(self.rows[self._order[place]])
        return out


def stack(rows: list[tuple[list[int], list[int]]], pad: int, even: bool, sources: list[str]) -> MicroBatch:
    """Right-pad (prompt, response) rows into ids and labels."""
    length = max(len(p) + len(r) for p, r in rows)
    length += length % 2 if even else 0
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), -100)
    for i, (p, r) in enumerate(rows):
        ids[i, : len(p) + len(r)] = torch.tensor(p + r)
        gold = torch.tensor(r)
        labels[i, len(p) : len(p) + len(r)] = torch.where(gold == pad, -100, gold)
    return MicroBatch(ids, labels, int((ids != pad).sum()), sources)


def collate_regular(pad: int) -> Collate:
    """Rows as they are, for regular training."""
    return lambda rows, rng: stack([(r.prompt, r.response) for r in rows], pad, False, [r.source for r in rows])


def collate_pairs(pad: int, kind: Augmentation, rho_max: float, all_pad: float) -> Collate:
    """Rows paired up with PAD augmentation, one rho a sequence, for PIPO-SFT."""
    if kind not in ("split", "shift"):
        raise BadInput(f"augmentation {kind!r} must be 'split' or 'shift'")
    draw_rho(random.Random(0), rho_max, all_pad)  # checks both

    def collate(rows: list[Row], rng: random.Random) -> MicroBatch:
        paired = [
            (pad_prompt(r.prompt, pad), augment(r.response, draw_rho(rng, rho_max, all_pad), kind, pad, rng))
            for r in rows
        ]
        return stack(paired, pad, True, [r.source for r in rows])

    return collate
