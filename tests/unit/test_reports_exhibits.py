"""The paper's tables and figures beside ours: values, what is said to compare, and what is said to be missing."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest

import reports
from bench.summary import summarise
from reports import exhibits
from reports.load import LoadedRun, load
from reports.paper import paper
from tests.unit.reports_runs import compare_summary, latency_summary, threshold_summary, write_run
from tests.unit.test_budget import RUN, records
from tests.unit.test_reports_training import write_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedRun]:
    top = tmp_path_factory.mktemp("runs")
    made = {"compare": compare_summary(), "latency": latency_summary(), "threshold": threshold_summary(),
            "curves": summarise(RUN, records(), k=4, pass_at=[1, 4], references=["regular"])}  # fmt: skip
    out = {name: load(write_run(top / name, summary)) for name, summary in made.items()}
    return {**out, "study": load(write_study(top / "study"))}


def found(*some: LoadedRun) -> dict[str, exhibits.Exhibit]:
    return {e.name: e for e in exhibits.exhibits(some)}


def changed(run: LoadedRun, **parts: Any) -> LoadedRun:
    return LoadedRun(run.folder, run.run, {**copy.deepcopy(run.summary), **parts}, run.records)


def lines(e: exhibits.Exhibit) -> list[list[str]]:
    table = [line for line in e.table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_each_kind_of_run_gives_its_exhibits(runs: dict[str, LoadedRun]) -> None:
    kinds = {"compare": ["table1", "table2"], "curves": ["table1", "table2", "figure2"], "latency": ["figure4"],
             "threshold": ["figure6"], "study": ["table3"]}  # fmt: skip
    assert {name: list(found(runs[name])) for name in kinds} == kinds


def test_table_1_has_the_papers_numbers_in_the_papers_columns(runs: dict[str, LoadedRun]) -> None:
    e = found(runs["compare"])["table1"]
    rows = lines(e)
    eagle = next(r for r in rows if r[0] == "eagle")
    assert eagle[1:5] == ["46.21", "60.26", "53.09", "63.43"], "4B and 9B: avg@4, pass@4"
    assert eagle[5:] == ["37.3 ±3.0", "60.2 ±3.5"], "ours, loose budget"
    assert ["control", "–", "–", "–", "–", "58.4 ±3.0", "90.6 ±3.5"] in rows
    assert ["pipo-opd", "Qwen3.5-9B", "59.17 / 83.33", "67.17 / 82.32", "46.56 / 62.60", "56.46 / 72.47",
            "57.34 / 75.18"] in rows  # fmt: skip
    assert "None of the tasks here (lab-chain, lab-choice and lab-recall) is one of the paper's" in e.note
    assert not e.lacking


def test_ours_stand_beside_the_paper_where_the_questions_are_the_same(runs: dict[str, LoadedRun]) -> None:
    text = compare_summary()
    for row in text["rows"]:
        row["task"] = {"lab-chain": "aime2025", "lab-choice": "gpqa-diamond"}.get(row["task"], row["task"])
    run = changed(runs["compare"], rows=text["rows"], tasks=["aime2025", "gpqa-diamond", "lab-recall"],
                  items={"aime2025": 30, "gpqa-diamond": 50})  # fmt: skip
    e = found(run)["table1"]
    here = next(r for r in lines(e) if r[:2] == ["regular", "here"])
    assert here[2] == "37.3 ±5.0 / 60.2 ±6.0" and here[3].startswith("45.3"), "aime2025, gpqa_diamond"
    assert here[4:] == ["–", "–", "–"], "no overall: two of the four benchmarks are not here"
    assert "aime2025 and gpqa-diamond: the paper's questions" in e.note and "50 of gpqa-diamond" in e.note
    assert "<details>" not in e.table


def test_table_1_as_rows_holds_all_of_the_papers_and_ours(runs: dict[str, LoadedRun]) -> None:
    rows = found(runs["compare"])["table1"].rows
    theirs = [r for r in rows if r["source"] == "paper"]
    assert len(theirs) == 2 * 5 * 5 and len(rows) - len(theirs) == 6 * 4
    for r in theirs:
        place = paper()["table1"]["benchmarks"].index(r["benchmark"])
        avg, best = paper()["table1"][r["model"]][r["method"]][place]
        assert r["avg"]["value"] == pytest.approx(avg / 100) and r["pass"]["value"] == pytest.approx(best / 100)


def test_table_2_is_relative_to_regular(runs: dict[str, LoadedRun]) -> None:
    opd = next(r for r in lines(found(runs["compare"])["table2"]) if r[0] == "pipo-opd")
    assert opd == ["pipo-opd", "19431", "0.96", "18590", "0.97", "44.0 ±1.4", "0.65"]


def test_table_3_has_differences_to_the_default(runs: dict[str, LoadedRun]) -> None:
    e = found(runs["study"])["table3"]
    linear = next(r for r in lines(e) if r[0] == "linear compressor")
    assert linear[1:5] == ["43.86", "60.38", "−1.42 / −4.63", "1"] and linear[5].startswith("40.0")
    assert all(cell.endswith("not settled") for cell in linear[7:])
    assert "--row shortest --row start-random" in e.lacking
    shortest = next(r for r in lines(e) if r[0].startswith("shortest"))
    assert shortest[4:] == ["–"] * 5


def test_figure_2_needs_curves_and_ends_with_the_papers(runs: dict[str, LoadedRun]) -> None:
    e = found(runs["curves"])["figure2"]
    ends = [r for r in e.rows if r["source"] == "paper" and r["model"] == "Qwen3.5-4B"]
    assert {r["method"]: r["pass"]["value"] for r in ends}["pipo-opd"] == 0.6731
    assert sum(r["source"] == "here" for r in e.rows) == 2 * 9
    assert "eagle, mtp, pipo-sft and pipo-opd; `pipo bench compare`" in e.lacking


def test_figure_4_has_the_papers_seconds_and_ratios(runs: dict[str, LoadedRun]) -> None:
    e = found(runs["latency"])["figure4"]
    rows = lines(e)
    assert ["regular, the paper", "131072", "20300.0", "27.90", "–", "–"] in rows
    assert ["pipo, the paper", "2048", "–", "12.70", "1.65", "2.07"] in rows
    ours = next(r for r in rows if r[:2] == ["pipo-opd", "2048"])
    assert ours[4].startswith("2.18 [2.05, 2.29]")
    assert {r[1] for r in rows[2:]} == {"2048", "131072"}, "other lengths are the latency part's"
    assert len(e.rows) > len(rows) - 2, "the CSV has all"
    assert "4K, 16K, 32K, 64K and 128K; `pipo bench latency --protocol paper`" in e.lacking


def test_figure_5_needs_two_points_of_the_filter(runs: dict[str, LoadedRun]) -> None:
    assert "figure5" not in found(runs["study"])
    study = copy.deepcopy(runs["study"].summary)
    for part in ("trainings", "rows", "differences"):
        linear = [r for r in study[part] if r["row"] == "linear"]
        study[part] += [{**r, "row": "opd-rho-1"} for r in linear]
    e = found(changed(runs["study"], **study))["figure5"]
    assert [r[:2] for r in lines(e)[2:]] == [["0.5", "pipo-opd"], ["1", "opd-rho-1"]]
    assert "opd-rho-0, opd-rho-0.25 and opd-rho-0.75; `pipo ablate training --row opd-rho-0 " in e.lacking


def test_figure_6_has_both_gates_and_the_papers_points(runs: dict[str, LoadedRun]) -> None:
    e = found(runs["threshold"])["figure6"]
    row = next(r for r in lines(e) if r[0] == "0.95")
    assert row[5:] == ["66.5", "65.01"] and "better" in row[4]
    assert [r[0] for r in lines(e)[2:]] == ["0.95", "1"], "other thresholds are the threshold part's"
    assert [r for r in e.rows if r["source"] == "paper"][-1] == {
        "source": "paper", "gate": "random", "threshold": None, "pad_ratio": {"value": 0.6}, "pass": {"value": 0.5964},
    }  # fmt: skip
    assert len(e.rows) == 4 + 14 and not e.lacking


def test_what_no_run_gives_is_listed_with_its_command(runs: dict[str, LoadedRun]) -> None:
    some = [runs["compare"]]
    text = "\n\n".join(exhibits.section(some, exhibits.exhibits(some), {}))
    wanted = {"figure 4, latency": "pipo bench latency", "table 3": "pipo ablate training",
              "figure 2": "pipo bench compare", "figures 8 to 12": "pipo ablate geometry"}  # fmt: skip
    for words, command in wanted.items():
        assert any(words in line and command in line for line in text.splitlines()), words
    assert exhibits.section([], [], {}) == []


def test_the_compressor_s_figures_are_not_missing_where_its_study_is_shown(runs: dict[str, LoadedRun]) -> None:
    some = runs["compare"]
    study = LoadedRun(some.folder, msgspec.structs.replace(some.run, kind="ablate-geometry"), {}, 0)
    both = [some, study]
    text = "\n\n".join(exhibits.section(both, exhibits.exhibits(both), {}))
    assert "Figures 8 to 12 stand in the part on the compressor." in text and "`pipo ablate geometry`" not in text


def test_a_report_has_a_file_of_each(runs: dict[str, LoadedRun], tmp_path: Path) -> None:
    from matplotlib.image import imread

    names = ("curves", "latency", "threshold", "study")
    written = reports.build([runs[name].folder for name in names], tmp_path / "out").read_text()
    assert "## The paper's tables and figures" in written
    for name in ("table1", "table2", "table3", "figure2", "figure4", "figure6"):
        with open(tmp_path / "out" / f"{name}.csv", newline="") as f:
            assert {"paper", "here"} == {r["source"] for r in csv.DictReader(f)}, name
    for name in ("figure2", "figure4", "figure6"):
        assert f"]({name}.png)" in written
        pixels = imread(tmp_path / "out" / f"{name}.png")
        ink = float((pixels[..., :3].mean(axis=2) < 0.9).mean())
        assert 0.005 < ink < 0.3, f"{name} is {100 * ink:.1f} % ink"


def test_the_run_with_most_of_the_papers_methods_is_shown(runs: dict[str, LoadedRun]) -> None:
    alone = changed(runs["compare"], rows=[r for r in runs["compare"].rows if r["variant"] == "mtp"])
    e = found(runs["curves"], alone, runs["compare"])["table1"]
    assert "lab/pipo-opd" in e.note, "the comparison of all six"
