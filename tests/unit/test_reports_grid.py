"""Grid studies in a report: a section, a figure and tables from the folder that a real small study leaves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reports
from pipo.cli import show_grid
from pipo.errors import BadRecord
from reports import grid, grid_figure
from reports.load import LoadedRun, load
from reports.style import looks, styled
from tests.unit.bench_jobs import make_home
from tests.unit.grid_runs import base, run, study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Budgets of three methods, and greedy decoding beside EAGLE."""
    home, out = make_home(tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("study")
    bases = [base(home, "regular"), base(home, "eagle"), base(home, "pipo", name="pipo-opd")]
    greedy = [base(home, "regular", name="greedy", temperature=0, reference="greedy"),
              base(home, "eagle", name="greedy-eagle", temperature=0, reference="greedy")]  # fmt: skip
    axes = [{"key": "budget", "values": [0.4, 1.0], "only": ["regular", "eagle", "pipo-opd"]}]
    run(study(home, *bases, *greedy, axes=axes, name="toy", paper="figure 2"), out)
    return out


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedRun:
    return load(folder)


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> LoadedRun:
    """The same run with another summary."""
    summary = json.loads((folder / "summary.json").read_text())
    change(summary)
    target.mkdir()
    (target / "run.json").write_bytes((folder / "run.json").read_bytes())
    (target / "summary.json").write_text(json.dumps(summary))
    (target / "units").symlink_to(folder / "units")
    return load(target)


def test_a_report_has_the_study_with_figure_and_tables(folder: Path, tmp_path: Path) -> None:
    page = reports.build([folder], tmp_path).read_text()
    for words in ("## Study: toy", "Which?", "![Study toy: quality and pace", "### Against the reference, all tasks",
                  "### Must be equal, and is it?", "### The paper's values", "In the paper: figure 2."):  # fmt: skip
        assert words in page, words
    with open(tmp_path / "study-differences.csv") as f:
        rows = list(csv.DictReader(f))
    assert {r["metric"] for r in rows} >= {"avg", "pass@2", "slots", "tokens_per_step"} and "p_holm" in rows[0]
    for name in ("study.png", "study.csv", "study-points.csv", "study-lossless.csv"):
        assert (tmp_path / name).stat().st_size > 100, name


def test_records_of_all_units_are_counted(folder: Path, loaded: LoadedRun) -> None:
    lines = sum(len(p.read_bytes().splitlines()) for p in folder.glob("units/*/records.jsonl"))
    assert loaded.records == lines > 5 * 5 * 2


def test_every_point_has_a_line_with_its_numbers(loaded: LoadedRun) -> None:
    table = grid.points_table(loaded, "overall").splitlines()
    assert len(table) == 2 + 8
    (line,) = [x for x in table if x.startswith("| eagle budget=0.4 |")]
    row = next(r for r in loaded.rows if r["variant"] == "eagle budget=0.4" and r["task"] == "overall")
    assert f"| {row['acceptance']['value']:.2f} " in line and line.endswith("| – |"), "read off, so no pace"
    assert not table[-1].endswith("| – |")


def test_lines_of_the_figure_are_bases_over_the_axis(loaded: LoadedRun) -> None:
    assert grid_figure.axis_of(loaded) == "budget"
    assert list(grid_figure.lines_of(loaded)) == ["regular", "eagle", "pipo-opd", "greedy", "greedy-eagle"]
    assert grid.series(loaded) == list(grid_figure.lines_of(loaded))


def test_the_figure_shows_points_off_the_axis_as_level_lines_and_the_papers_ends(loaded: LoadedRun) -> None:
    with styled():
        drawn = grid_figure.figure(loaded, looks(grid.series(loaded)))
    first = drawn.axes[0]
    level = [x for x in first.lines if list(x.get_xdata()) == [0, 1]]
    assert len(level) == 2, "greedy and greedy-eagle"
    stars = [x for x in first.lines if x.get_marker() == "*"]
    assert [s.get_ydata()[0] for s in stars] == [52.16, 46.21, 46.52], "regular, eagle and pipo-opd of the paper"
    assert [t.get_text() for t in first.get_xticklabels()] == ["40", "100"]


def test_values_that_are_no_numbers_stand_in_turn() -> None:
    rows = [{"at": {"draft_vocab": v}, "variant": str(v)} for v in ("full", 16, 96)]
    assert grid_figure._places({"x": rows}, "draft_vocab") == {16: 0.0, 96: 1.0, "full": 2.0}


def test_what_survives_correction_is_told_from_what_does_not(folder: Path, tmp_path: Path) -> None:
    def change(summary: dict[str, Any]) -> None:
        for d in summary["differences"]:
            d.update(value=0.2, low=0.1, high=0.3, p=0.01, p_holm=0.2 if d["variant"].startswith("eagle") else 0.02)

    run = changed(folder, tmp_path / "run", change)
    lines = grid.differences(run).splitlines()
    of = {(x.split(" | ")[0].strip("| "), x.split(" | ")[1]): x.split(" | ")[-1].strip(" |") for x in lines[2:]}
    assert of["avg@2, points", "eagle budget=1"] == "better, but not after correction"
    assert of["avg@2, points", "pipo-opd budget=1"] == "better" and of["slots", "pipo-opd budget=1"] == "more"
    assert "avg@2 better at 3 and worse at 0 of 5" in grid.answer(run)


def test_greedy_samples_are_told_token_by_token(loaded: LoadedRun) -> None:
    table = grid.lossless(loaded)
    assert "| greedy-eagle | greedy | 10 of 10 |" in table
    assert "| eagle budget=1 | regular budget=1 | – (sampled) |" in table and "pipo" not in table


def test_the_terminal_says_the_same(loaded: LoadedRun, capsys: pytest.CaptureFixture[str]) -> None:
    show_grid.show(loaded.summary)
    said = capsys.readouterr().out
    assert "Which?" in said and "greedy-eagle: 10 of 10 greedy samples have the tokens of greedy" in said
    assert len([x for x in said.splitlines() if x.startswith(("regular budget", "eagle budget", "pipo-opd b"))]) == 6


def test_a_study_without_points_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="has no 'points': another version wrote it"):
        changed(folder, tmp_path / "run", lambda summary: summary.pop("points"))


def test_another_pass_at_k_that_was_asked_for_is_shown(tmp_path: Path) -> None:
    """And a study without axes has its points side by side."""
    (tmp_path / "home").mkdir()
    home = make_home(tmp_path / "home")
    run(study(home, base(home, "regular"), base(home, "eagle")), tmp_path / "run", pass_at=[1])
    loaded = load(tmp_path / "run")
    assert "| pass@1 % |" in grid.points_table(loaded, "overall") and grid_figure.axis_of(loaded) is None
    assert [p.metric for p in grid_figure.panels(loaded)][:2] == ["avg", "pass@1"]
    with styled():
        drawn = grid_figure.figure(loaded, looks(grid.series(loaded)))
    assert [t.get_text() for t in drawn.axes[0].get_xticklabels()] == ["regular", "eagle"]
    page = reports.build([tmp_path / "run"], tmp_path / "out").read_text()
    assert "pass@1, points" in page and "pass@2" not in page
