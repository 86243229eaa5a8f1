"""``build``: from run folders to report.md, report.html and report.xlsx, with figures (PNG, SVG) and tables (CSV)."""

from __future__ import annotations

import os
from pathlib import Path

from pipo.errors import BadInput
from reports import exhibits, html, workbook
from reports.exhibits import Exhibit
from reports.kinds import KINDS, shown
from reports.load import LoadedRun, load_all
from reports.page import page
from reports.style import looks, save, styled
from reports.text import write_csv


def build(folders: list[Path], out: Path, model_folder: html.ModelFolder | None = None) -> Path:
    """Write a report on finished runs (compare, eval, latency, map, ablate-*; any) and return report.md.

    The page is written last, by rename: where it stands, its figures and tables stand beside it. ``model_folder``: from
    a model's name in a run to its folder, for the text of tokens in report.html; without it names are paths.

    Raises:
        BadInput: no folders, or ``out`` cannot be written.
        BadRecord: a folder that is no finished run, or whose records are torn, empty or of another schema.
    """
    runs = load_all(folders)
    found = exhibits.exhibits(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn, theirs = _draw(runs, found, out)
        tables = workbook.sheets(runs, stems(runs), found)
        for table in tables:
            write_csv(out / f"{table.name}.csv", table.rows)
        workbook.write(out / "report.xlsx", tables, runs)
        draft = out / "report.md.tmp"
        text = page(runs, drawn, exhibits.section(runs, found, theirs))
        figures = [name for names in (*drawn.values(), theirs.values()) for name in names]
        html.write(out / "report.html", text, runs, figures, model_folder)
        draft.write_text(text)
        os.replace(draft, out / "report.md")
    except OSError as e:
        raise BadInput(f"cannot write the report to {out} ({e.strerror or e}); choose another folder with --out") from e
    return out / "report.md"


def stems(runs: list[LoadedRun]) -> list[str]:
    """A file name for each run: its kind's, numbered where a kind comes more than once."""
    words = [KINDS[run.kind].word for run in runs]
    return [word if words.count(word) == 1 else f"{word}-{words[:i].count(word) + 1}" for i, word in enumerate(words)]


def series_names(runs: list[LoadedRun]) -> list[str]:
    """Names that have the same look in every figure, each once."""
    return list(dict.fromkeys(name for run in runs for name in shown(run.kind).series(run)))


def _draw(runs: list[LoadedRun], found: list[Exhibit], out: Path) -> tuple[dict[int, list[str]], dict[str, str]]:
    """Names of the PNG files: of each run's figures, by its place, and of the paper's, by their own names."""
    styles = looks(series_names(runs))
    drawn: dict[int, list[str]] = {}
    with styled():
        for i, (run, stem) in enumerate(zip(runs, stems(runs), strict=True)):
            made = shown(run.kind).draw(run, stem, styles)
            drawn[i] = [save(figure, out, name)[0].name for name, figure in made.items()]
        theirs = {name: save(figure, out, name)[0].name for name, figure in exhibits.draw(found, styles).items()}
    return drawn, theirs
