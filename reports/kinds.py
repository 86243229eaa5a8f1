"""The kinds of runs that a report has a place for, in the order in which they stand on a page: a row of a table each.

Who adds a kind writes a module in this folder with the functions of ``Shown`` and gives it a row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from reports.load import LoadedRun
    from reports.style import Look

COMPARE, LATENCY, MAP, THRESHOLD, TRAINING = "compare", "latency", "map", "ablate-threshold", "ablate-training"
GRID, SFT, OPD = "ablate-grid", "train-sft", "train-opd"
GEOMETRY, LOSSINESS = "ablate-geometry", "ablate-lossiness"
LOAD = "load"
ALIASES = {"eval": COMPARE}  # kinds that are shown as another one


class Shown(Protocol):
    """What a module of this folder has for its kind of run. Pages are lists of markdown paragraphs."""

    def what(self, run: LoadedRun) -> str:
        """One line on top of the page: what was run."""

    def answer(self, run: LoadedRun) -> str:
        """Bullets for the short answer; empty where there is none."""

    def section(self, run: LoadedRun, names: list[str]) -> list[str]:
        """The run's part of the page; ``names``: files of its figures, in the order of ``draw``."""

    def draw(self, run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
        """Figures by the stem of their files; ``styles``: looks of the names that ``series`` gave, of all runs."""

    def series(self, run: LoadedRun) -> list[str]:
        """Names that need the same look in every figure of a report."""

    def lists(self, run: LoadedRun) -> dict[str, Sequence[Mapping[str, Any]] | None]:
        """Rows of tables beside the main one, by the word that their CSV files end in."""


def _one_file(folder: Path) -> list[Path]:
    return [folder / "records.jsonl"]


def _stages(folder: Path) -> list[Path]:
    """Of a training study each finished stage has its own."""
    done = sorted(path.parent for path in folder.glob("stages/*/done.json"))
    return [stage / "records.jsonl" for stage in done if (stage / "run.json").exists()]


def _units(folder: Path) -> list[Path]:
    """Of a grid study each run that its points are read off has its own."""
    return sorted(folder.glob("units/*/records.jsonl"))


def _with(*names: str) -> Callable[[Path], list[Path]]:
    """Further record files beside the samples."""
    return lambda folder: [folder / name for name in ("records.jsonl", *names)]


def _none(folder: Path) -> list[Path]:
    return []


class Kind(NamedTuple):
    """``module``: what shows it. ``word``: stem of its files. ``rows``: the list in its summary that the rows are.

    ``records``: its record files. ``plain``: these are lines of a schema of their own, which are only counted.
    ``needs``: further keys that its summary must have.
    """

    module: str
    word: str
    rows: str = "rows"
    records: Callable[[Path], list[Path]] = _one_file
    plain: bool = False
    needs: tuple[str, ...] = ()


KINDS = {
    COMPARE: Kind("comparison", "comparison"),
    LATENCY: Kind("latency", "latency"),
    LOAD: Kind("loadtest", "load", plain=True),
    MAP: Kind("map", "map"),
    THRESHOLD: Kind("threshold", "threshold", rows="points"),
    TRAINING: Kind("training", "training", records=_stages, needs=("trainings", "keys", "definitions")),
    GRID: Kind("grid", "study", records=_units, needs=("points", "differences", "axes")),
    GEOMETRY: Kind(
        "geometry",
        "geometry",
        records=_with("pairs.jsonl", "drafts.jsonl"),
        plain=True,
        needs=("subjects", "spaces", "pads", "definitions"),
    ),
    LOSSINESS: Kind(
        "lossiness",
        "lossiness",
        records=_with("distances.jsonl"),
        plain=True,
        needs=("lossless", "calibration"),
    ),
    SFT: Kind("curves", SFT, records=_none),
    OPD: Kind("curves", OPD, records=_none),
}
ORDER = list(KINDS)


def shown(kind: str) -> Shown:
    """The module that shows a kind of run, imported when it is first needed."""
    return cast(Shown, importlib.import_module(f"reports.{KINDS[kind].module}"))
