"""A whole report from run folders: files, figures, page; and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import reports
from pipo.errors import BadInput, BadRecord
from reports import figures
from reports.build import series_names, stems
from reports.load import load
from reports.page import page
from reports.style import COLOURS, looks
from tests.unit.reports_runs import compare_summary, latency_summary, threshold_summary, write_run

SUMMARIES = {"comparison": compare_summary, "latency": latency_summary, "threshold": threshold_summary}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("report")
    folders = [write_run(top / name, make()) for name, make in reversed(SUMMARIES.items())]
    page = reports.build(folders, top / "out")
    assert page == top / "out" / "report.md"
    return page


@pytest.mark.parametrize("stem", SUMMARIES)
def test_figures_are_drawn(built: Path, stem: str) -> None:
    from matplotlib.image import imread

    pixels = imread(built.parent / f"{stem}.png")
    assert min(pixels.shape[:2]) > 600
    ink = float((pixels[..., :3].mean(axis=2) < 0.9).mean())
    assert 0.005 < ink < 0.3, f"{stem}.png is {100 * ink:.1f} % ink: empty, or not a plot"
    tree = ElementTree.parse(built.parent / f"{stem}.svg")
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) > 30


def test_series_differ_in_grey() -> None:
    """Neighbours differ in marker and dash, and the palette is ordered by lightness."""

    def lightness(colour: str) -> float:
        r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * r + 0.587 * g + 0.114 * b

    levels = [lightness(c) for c in COLOURS[:7]]
    assert all(b - a > 14 for a, b in itertools.pairwise(levels)), levels
    picked = list(looks([f"v{i}" for i in range(8)]).values())
    assert len({look.marker for look in picked}) == len({str(look.dash) for look in picked}) == 8


def test_tables_as_csv(built: Path) -> None:
    names = sorted(p.name for p in built.parent.glob("*.csv"))
    assert names == [
        "comparison-differences.csv", "comparison-failures.csv", "comparison.csv", "figure4.csv", "figure6.csv",
        "latency-floor.csv", "latency-ratios.csv", "latency.csv", "table1.csv", "table2.csv",
        "threshold-differences.csv", "threshold.csv",
    ]  # fmt: skip
    lines = (built.parent / "comparison.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 4 * 2
    assert "pass.4.low" in lines[0].split(",")


def test_page_has_answer_first_then_figures_guide_and_provenance(built: Path) -> None:
    page = built.read_text()
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == [
        "## In short: does it pay?", "## Comparison", "## Latency", "## Threshold",
        "## The paper's tables and figures", "## How to read this", "## Where the numbers come from",
    ]  # fmt: skip
    for needed in (
        "![Quality by task and budget](comparison.png)", "**lab-recall, tight budget (74 slots)**", "`5f1c09`",
        "`0123abcd`, with uncommitted changes", "cpu, 2 cores, 1 threads", "arXiv:2605.27255v2", "sha256:77aa",
        "pipo-opd: lab/pipo-opd, pipo threshold 0.95", "lab-chain: tight 74, loose 160", "pipo 0.1.0, torch 2.8",
    ):  # fmt: skip
        assert needed in page, needed
    for name in [line.split("](")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]:
        assert (built.parent / name).is_file(), f"{name} is shown but not there"


def test_same_runs_give_the_same_files(built: Path, tmp_path: Path) -> None:
    again = reports.build([built.parent.parent / "threshold"], tmp_path / "again").parent
    for name in ("threshold.svg", "threshold.csv", "threshold-differences.csv"):
        assert (again / name).read_bytes() == (built.parent / name).read_bytes(), name


def test_two_runs_of_a_kind_have_names_of_their_own(built: Path) -> None:
    runs = [load(built.parent.parent / name) for name in ("comparison", "threshold", "threshold")]
    assert stems(runs) == ["comparison", "threshold-1", "threshold-2"]


def test_runs_with_one_item_have_no_intervals_and_still_draw(tmp_path: Path) -> None:
    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: None if k in ("low", "high", "se") else bare(v) for k, v in value.items()}
        return [bare(v) for v in value] if isinstance(value, list) else value

    runs = [load(write_run(tmp_path / name, bare(make()))) for name, make in SUMMARIES.items()]
    text = page(runs, {})
    assert "not settled" in text
    assert ", better" not in text
    draws = (figures.quality, lambda run: figures.latency(run, looks(series_names([run]))), figures.threshold)
    for run, draw in zip(runs, draws, strict=True):
        assert draw(run).axes


def test_no_folders() -> None:
    with pytest.raises(BadInput, match="no run folder"):
        reports.build([], Path("nowhere"))


def broken(folder: Path, how: str) -> None:
    if how == "no folder":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    elif how == "no run.json":
        (folder / "run.json").unlink()
    elif how == "torn records":
        (folder / "records.jsonl").write_bytes(b'{"type":"sample","var\n')
    elif how == "empty records":
        (folder / "records.jsonl").write_bytes(b"")
    elif how == "not finished":
        (folder / "summary.json").unlink()
    elif how == "torn summary":
        (folder / "summary.json").write_text('{"schema": 1, ')
    elif how == "other summary":
        (folder / "summary.json").write_text(json.dumps({"schema": 99, "rows": []}))
    elif how == "no rows":
        (folder / "summary.json").write_text(json.dumps({"schema": 1, "rows": []}))


WORDS = {
    "no folder": "is not a folder",
    "no run.json": "run.json does not exist",
    "torn records": "records.jsonl:1",
    "empty records": "holds no whole record",
    "not finished": "has not finished",
    "torn summary": "summary.json cannot be read",
    "other summary": "no summary of schema 1",
    "no rows": "nothing was measured",
}


@pytest.mark.parametrize("how", WORDS)
def test_unusable_run_folders_are_named(how: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", compare_summary())
    broken(folder, how)
    with pytest.raises(BadRecord, match=WORDS[how]) as error:
        reports.build([folder], tmp_path / "out")
    assert str(folder) in str(error.value)
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists(), "nothing is written before all runs are read"


def test_other_kinds_of_runs_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", compare_summary() | {"kind": "lab-build"})
    with pytest.raises(BadInput, match="lab-build"):
        reports.build([folder], tmp_path / "out")


def test_torn_last_line_is_tolerated(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", threshold_summary())
    with open(folder / "records.jsonl", "ab") as f:
        f.write(b'{"type":"sam')
    assert load(folder).records == 1


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_unwritable_out(kind: str, tmp_path: Path) -> None:
    folder, out = write_run(tmp_path / "run", threshold_summary()), tmp_path / "out"
    if kind == "file":
        out.write_text("in the way")
    elif os.geteuid() == 0:
        out = Path("/proc/report")
    else:
        out.mkdir(mode=0o500)
    with pytest.raises(BadInput, match="--out"):
        reports.build([folder], out)
