"""Report sections of the geometry and lossiness studies: what stands on the page and in the tables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipo.errors import BadRecord
from reports import build
from reports.geometry_figures import FIGURES, WORDS
from reports.load import load
from reports.paper import paper
from tests.unit.looks_runs import QUANTITIES, geometry_summary, lossiness_summary, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("looks")
    runs = [write_run(home / "g", geometry_summary()), write_run(home / "l", lossiness_summary())]
    build(runs, home / "report")
    return home / "report"


def lines(out: Path, start: str) -> list[str]:
    return [line for line in (out / "report.md").read_text().splitlines() if line.startswith(start)]


def test_every_quantity_of_the_paper_stands_beside_ours(out: Path) -> None:
    facts = paper()["appendix_e"]
    assert set(WORDS) == set(FIGURES) == set(QUANTITIES) == set(facts) - {"prompts", "pairs"}
    for quantity, word in WORDS.items():
        (line,) = lines(out, f"| {FIGURES[quantity]} | {word.replace('|', chr(92) + '|')} |")
        assert line.endswith(f"| {facts[quantity]:.2f} |") and "0.765 ±0.010" in line, line


def test_differences_that_are_settled_are_bold(out: Path) -> None:
    found = lines(out, "| cos(C(a, b), C(b, a)) | ")[-1]
    assert "**+0.2350 [+0.2300, +0.2400]**" in found and "| −0.0010 [−0.0060, +0.0040] |" in found, found


def test_figures_and_tables_stand_beside_the_page(out: Path) -> None:
    page = (out / "report.md").read_text()
    for name in ("geometry", "geometry-space", "geometry-pads", "lossiness"):
        assert (out / f"{name}.png").stat().st_size > 10_000 and f"({name}.png)" in page
    with open(out / "geometry-pads-confidence.csv") as f:
        rows = list(csv.DictReader(f))
    assert {r["entry"] for r in rows} == {"lab/pipo-opd", "lab/pipo-sft", "mine, compare-1"}
    assert sum(int(r["kept"]) for r in rows if r["entry"] == "lab/pipo-opd") == 500
    for name in ("geometry", "geometry-differences", "geometry-points", "lossiness", "lossiness-calibration"):
        assert len((out / f"{name}.csv").read_text().splitlines()) > 3


def test_lossiness_says_what_loses_nothing_and_by_how_much_the_others_do(out: Path) -> None:
    page = (out / "report.md").read_text()
    assert "eagle loses nothing (largest total variation 8e-08)" in page
    assert "loses nothing: min(p, q)" in page
    assert len(lines(out, "| pipo 0.95 | lab/pipo-opd | 11.50 ±1.00 |")) == 4, "over all, and a task each"
    assert len(lines(out, "| regular | lab/base | 0 (the reference) |")) == 4
    assert "**+8.00 [+7.00, +9.00]**" in page


def test_a_verification_that_loses_is_called_a_fault(tmp_path: Path) -> None:
    summary = lossiness_summary()
    summary["lossless"] |= {"largest_tv": 0.02, "holds": False}
    page = build([write_run(tmp_path / "l", summary)], tmp_path / "report").read_text()
    assert "eagle **is not lossless**" in page and "**loses something: a fault**" in page


def test_runs_without_pads_or_with_one_task_have_a_page_too(tmp_path: Path) -> None:
    geometry = geometry_summary() | {"pads": []}
    lossiness = lossiness_summary()
    lossiness["tasks"] = ["lab-chain"]
    lossiness["rows"] = [r for r in lossiness["rows"] if r["task"] == "lab-chain"]
    runs = [write_run(tmp_path / "g", geometry), write_run(tmp_path / "l", lossiness)]
    page = build(runs, tmp_path / "report").read_text()
    assert "PADs in decoding" not in page and "| mtp | lab/base | 4.00 ±1.00 |" in page


@pytest.mark.parametrize("key", ["subjects", "spaces", "pads", "definitions"])
def test_a_summary_of_another_version_is_refused(tmp_path: Path, key: str) -> None:
    summary = geometry_summary()
    del summary[key]
    with pytest.raises(BadRecord, match=f"has no '{key}': another version wrote it"):
        load(write_run(tmp_path / "g", summary))
