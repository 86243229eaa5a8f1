"""Scores of the training study by question and seed, as its stages left them, and estimates made of them."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ablations.training_spec import Row, TrainingSpec, stage_name, variants
from ablations.training_stats import Array, Estimate, SeedVariance, area, difference, estimate, pooled
from bench import stats


class Point(msgspec.Struct, frozen=True):
    """A way to decode: ``confidence`` at a threshold, a ``coin`` at a kept share, or ``regular``."""

    gate: str
    threshold: float | None = None
    keep_rate: float | None = None

    def plain(self) -> dict[str, Any]:
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


REGULAR = Point("regular")


class Scores:
    """What is done of a study. ``seeds``: row -> seeds done; ``failures``: samples that the engine gave up."""

    def __init__(self, spec: TrainingSpec, stages: Path) -> None:
        self.spec = spec
        self.seeds: dict[str, list[int]] = {}
        self.failures: list[dict[str, Any]] = []
        self._values: dict[tuple[str, int], dict[str, Any]] = {}
        self._matrices: dict[tuple[str, Point, str, str], Array] = {}
        for row in spec.row:
            self.seeds[row.name] = [s for s in row.seeds if self._read(stages / stage_name(row, s), row, s)]

    def _read(self, folder: Path, row: Row, seed: int) -> bool:
        if not (folder / "done.json").exists():
            return False
        self._values[row.name, seed] = json.loads((folder / "values.json").read_bytes())
        self.failures += json.loads((folder / "done.json").read_bytes())["failures"]
        return True

    @cached_property
    def items(self) -> list[str]:
        """Questions that all stages have, as task/id."""
        found = [set(v["kept"]) for values in self._values.values() for v in values.values()]
        return sorted(set.intersection(*found)) if found else []

    def count(self, task: str) -> int:
        """Questions of a task."""
        return sum(i.startswith(f"{task}/") for i in self.items)

    def points(self, row: Row) -> list[Point]:
        """Ways in which the row's models were decoded."""
        found = [v.method for v in variants(self.spec, row, row.seeds[0], Path())]
        made = {
            "regular": lambda m: REGULAR,
            "pipo": lambda m: Point("confidence", threshold=m.threshold),
            "random": lambda m: Point("coin", keep_rate=m.keep_rate),
        }
        return [made[m.name](m) for m in found]

    def _names(self, row: Row, point: Point) -> list[dict[str, Any]]:
        """Stage values of a point, a seed each."""
        place = self.points(row).index(point)
        return [
            self._values[row.name, s][variants(self.spec, row, s, Path())[place].name] for s in self.seeds[row.name]
        ]

    def matrix(self, row: Row, point: Point, budget: str, metric: str) -> Array:
        """Scores [questions, seeds]."""
        key = (row.name, point, budget, metric)
        if key not in self._matrices:
            columns = [[v["values"][budget][metric][i] for i in self.items] for v in self._names(row, point)]
            self._matrices[key] = np.array(columns, dtype=float).T
        return self._matrices[key]

    def mean(self, row: Row, point: Point, budget: str, metric: str) -> Estimate:
        x = self.matrix(row, point, budget, metric)
        return estimate(x, self._borrowed(row, point, budget, metric), fixed=row.train == "none")

    def _borrowed(self, row: Row, point: Point, budget: str, metric: str) -> SeedVariance:
        """How much trained rows with several seeds vary at this point (regular rows: among themselves)."""
        rows = [r for r in self.spec.row if r.pairs == row.pairs and r.train != "none"]
        found = [
            self.matrix(r, point, budget, metric)
            for r in rows
            if len(self.seeds[r.name]) > 1 and point in self.points(r)
        ]
        if not found and point.gate == "coin":
            return self._borrowed(row, Point("confidence", threshold=1.0), budget, metric)
        return pooled(found)

    def kept_share(self, row: Row, point: Point, seed: int | None = None) -> float:
        """Drafts kept over drafts offered, of all seeds together or of one."""
        values = self._names(row, point)
        if seed is not None:
            values = [values[self.seeds[row.name].index(seed)]]
        kept, offered = (sum(v["kept"][i][side] for v in values for i in self.items) for side in (0, 1))
        return kept / offered if offered else 0.0

    def kept_estimate(self, row: Row, point: Point) -> dict[str, Any]:
        """The kept share with its interval by question and its range over seeds."""
        values = self._names(row, point)
        sums = [[sum(v["kept"][i][side] for v in values) for i in self.items] for side in (0, 1)]
        by_seed = [self.kept_share(row, point, s) for s in self.seeds[row.name]]
        found = stats.ratio(*sums) if sum(sums[1]) else stats.Estimate(0.0)
        return {**found.plain(), "seeds": len(by_seed), "seed_low": min(by_seed), "seed_high": max(by_seed)}

    def difference(self, row: Row, point: Point, reference: Row, budget: str, metric: str) -> Estimate:
        """Row at a point minus the reference at the same one (a regular reference: its only one)."""
        x = self.matrix(row, point, budget, metric)
        y = self.matrix(reference, point if reference.pairs else REGULAR, budget, metric)
        return self._difference(row, reference, x, y, self._borrowed(row, point, budget, metric))

    def _difference(self, row: Row, reference: Row, x: Array, y: Array, borrowed: SeedVariance) -> Estimate:
        same = self.seeds[row.name] == self.seeds[reference.name]
        return difference(x, y, borrowed, same_seeds=same, fixed=reference.train == "none")

    def within(self, row: Row, point: Point, best: Point, budget: str, metric: str) -> Estimate:
        """A row at one point minus itself at another: the same models, so seeds are paired."""
        x, y = (self.matrix(row, p, budget, metric) for p in (point, best))
        return estimate(x - y)

    def areas(self, row: Row, budget: str) -> Array:
        """Mean score over kept shares, [questions, seeds]; each seed with its own kept shares."""
        points = self.points(row)
        columns = []
        for place, seed in enumerate(self.seeds[row.name]):
            kept = [self.kept_share(row, p, seed) for p in points]
            columns.append(area(kept, [self.matrix(row, p, budget, "avg")[:, place] for p in points]))
        return np.array(columns).T

    def _borrowed_area(self, budget: str) -> SeedVariance:
        rows = [r for r in self.spec.row if r.pairs and len(self.seeds[r.name]) > 1]
        return pooled([self.areas(r, budget) for r in rows])

    def area(self, row: Row, budget: str) -> Estimate:
        """Mean score over kept shares from 0 to 1."""
        return estimate(self.areas(row, budget), self._borrowed_area(budget))

    def area_difference(self, row: Row, reference: Row, budget: str) -> Estimate:
        """Row minus reference, of areas."""
        x, y = self.areas(row, budget), self.areas(reference, budget)
        return self._difference(row, reference, x, y, self._borrowed_area(budget))
