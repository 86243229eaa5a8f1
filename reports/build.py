"""``build``: from run folders to a folder with report.md, figures (PNG and SVG) and tables (CSV)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipo.errors import BadInput
from reports import budget, curves, figures, training
from reports import map as maps
from reports.load import COMPARE, CURVES, LATENCY, MAP, THRESHOLD, TRAINING, LoadedRun, load_all
from reports.page import page
from reports.style import looks, save, styled
from reports.text import series_name, write_csv

# Lists of a summary that become tables of their own, beside the rows.
EXTRAS = ("differences", "ratios", "floor", "failures", "cells", "keys", "trainings", *budget.LISTS)


def build(folders: list[Path], out: Path) -> Path:
    """Write a report on finished runs (compare, eval, latency, map, ablate-*; any) and return report.md.

    The page is written last, by rename: where it stands, its figures and tables stand beside it.

    Raises:
        BadInput: no folders, or ``out`` cannot be written.
        BadRecord: a folder that is no finished run, or whose records are torn, empty or of another schema.
    """
    runs = load_all(folders)
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn = _draw(runs, out)
        _tabulate(runs, out)
        draft = out / "report.md.tmp"
        draft.write_text(page(runs, drawn))
        os.replace(draft, out / "report.md")
    except OSError as e:
        raise BadInput(f"cannot write the report to {out} ({e.strerror or e}); choose another folder with --out") from e
    return out / "report.md"


def stems(runs: list[LoadedRun]) -> list[str]:
    """A file name for each run: its kind, numbered where a kind comes more than once."""
    words = {COMPARE: "comparison", LATENCY: "latency", MAP: "map", TRAINING: "training"}
    words.update({kind: kind for kind in CURVES})
    kinds = [words.get(run.kind, "threshold") for run in runs]
    return [kind if kinds.count(kind) == 1 else f"{kind}-{kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]


def series_names(run: LoadedRun) -> list[str]:
    """Names that need a look of their own, those of plain variants first."""
    if run.kind in (MAP, TRAINING, *CURVES):
        return []
    plain = [row["variant"] for row in run.rows if run.kind != THRESHOLD]
    return plain + [series_name(r["variant"], r["keep"]) for r in run.rows if r.get("keep") is not None]


def _draw(runs: list[LoadedRun], out: Path) -> dict[int, list[str]]:
    styles = looks(list(dict.fromkeys(name for run in runs for name in series_names(run))))
    drawn: dict[int, list[str]] = {}
    with styled():
        for i, (run, stem) in enumerate(zip(runs, stems(runs), strict=True)):
            figure: Any
            if run.kind == MAP:
                drawn[i] = [save(maps.heat_map(run, a), out, name)[0].name for a, name in maps.file_names(run, stem)]
                continue
            if run.kind == TRAINING and not training.panels(run):
                continue
            if run.kind in CURVES:
                figure = curves.figure(run)
            elif run.kind == COMPARE:
                figure = figures.quality(run)
            elif run.kind == LATENCY:
                figure = figures.latency(run, styles)
            elif run.kind == TRAINING:
                figure = training.figure(run)
            else:
                figure = figures.threshold(run)
            drawn[i] = [save(figure, out, stem)[0].name]
            if run.kind == COMPARE:
                drawn[i] += [save(f, out, f"{stem}-{word}")[0].name for word, f in budget.figures(run, styles).items()]
    return drawn


def _tabulate(runs: list[LoadedRun], out: Path) -> None:
    for run, stem in zip(runs, stems(runs), strict=True):
        write_csv(out / f"{stem}.csv", run.rows)
        extras = {name: run.summary.get(name) for name in EXTRAS} | {"curves": budget.points(run)}
        for name, rows in extras.items():
            if rows:
                write_csv(out / f"{stem}-{name}.csv", rows)
