"""The parts of a report on statistics, budgets and costs, from a summary that the bench made of simulated records."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import pytest

import reports
from bench.summary import summarise
from pipo.cli import show
from reports import budget, statistics, text
from reports.load import LoadedRun, load
from reports.page import page
from reports.style import looks
from tests.unit.reports_runs import compare_summary, write_run
from tests.unit.test_budget import RUN, records


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return summarise(RUN, records(), k=4, pass_at=[1, 4], references=["regular"])


@pytest.fixture(scope="module")
def run(summary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load(write_run(tmp_path_factory.mktemp("run"), summary))


def test_a_report_has_figures_tables_and_csv_of_budgets(run: LoadedRun, tmp_path: Path) -> None:
    from matplotlib.image import imread

    written = reports.build([run.folder], tmp_path / "out").read_text()
    for name in ("comparison-budget.png", "comparison-cost.png"):
        assert f"]({name})" in written
        pixels = imread(tmp_path / "out" / name)
        ink = float((pixels[..., :3].mean(axis=2) < 0.9).mean())
        assert 0.005 < ink < 0.3, f"{name} is {100 * ink:.1f} % ink: empty, or not a plot"
    rows = list(csv.DictReader((tmp_path / "out" / "comparison-curves.csv").read_text().splitlines()))
    assert len(rows) == 2 * 3 * 3 * 9, "variants, axes, two tasks and their mean, points"
    assert {"budget", "fraction", "pass.value", "pass.low", "used", "cut"} <= set(rows[0])
    for stem in ("costs", "cost_ratios", "equal_time", "equal_time_differences"):
        assert (tmp_path / "out" / f"comparison-{stem}.csv").is_file()


def test_curve_table_shows_shares_of_different_budgets(run: LoadedRun) -> None:
    lines = budget.curve_table(run, "slots").splitlines()
    assert lines[0] == "| variant | 1/16: % | 1/8: % | 1/4: % | 1/2: % | 1: % |"
    assert lines[2].startswith("| regular |") and lines[3].startswith("| pipo |")


def test_curve_table_names_the_budgets_where_all_tasks_have_the_same(run: LoadedRun) -> None:
    alike = copy.deepcopy(run.summary)
    for curve in alike["curves"]:
        if curve["axis"] == "slots" and curve["task"] == "overall":
            curve["budgets"] = [2, 2, 4, 5, 8, 11, 16, 22, 32]
    lines = budget.curve_table(changed(run, alike), "slots").splitlines()
    assert lines[0].startswith("| variant | 2: % | 4: % | 8: % | 16: % | 32: % |")


def changed(run: LoadedRun, summary: dict[str, Any]) -> LoadedRun:
    return LoadedRun(run.folder, run.run, summary, run.records)


def test_cost_and_equal_time_tables(run: LoadedRun) -> None:
    costs = budget.cost_table(run)
    assert "| variant | budget | right | slots each | tokens each | device s each | s ÷ regular |" in costs
    assert costs.count("\n") == 1 + 2 * 2
    ratio = next(r for r in run.summary["cost_ratios"] if (r["task"], r["budget"]) == ("overall", "loose"))
    assert text.interval(ratio, digits=2) in costs
    equal = budget.equal_table(run)
    assert "| pipo | t | 0.250 | 4.00 |" in equal and "| regular | t | 0.250 | 2.00 |" in equal


def test_a_run_without_times_has_curves_and_no_seconds(run: LoadedRun) -> None:
    bare = summarise(RUN, [r for r in records() if hasattr(r, "slots") and hasattr(r, "item")], k=4, pass_at=[4],
                     references=["regular"])  # fmt: skip
    without = changed(run, bare)
    assert list(budget.figures(without, looks(["regular", "pipo"]))) == ["budget"]
    section = "\n".join(budget.section(without, ["x.png"]))
    assert "within tokens" in section and "within device seconds" not in section and "equal device time" not in section


def test_nothing_right_still_draws_and_has_no_price(run: LoadedRun) -> None:
    rows = records()
    for r in rows:
        if hasattr(r, "correct"):
            r.correct = False
    wrong = changed(run, summarise(RUN, rows, k=4, pass_at=[4], references=["regular"]))
    assert list(budget.figures(wrong, looks(["regular", "pipo"]))) == ["budget"]
    assert "| regular | tight | 0 | – | – | – | – |" in budget.cost_table(wrong)
    assert "0 of" in statistics.spoken(wrong.summary)[0] and "not settled" in page([wrong], {})


def test_summaries_without_these_keys_have_no_such_sections(tmp_path: Path) -> None:
    old = load(write_run(tmp_path / "run", compare_summary()))
    assert budget.section(old, []) == [] and budget.figures(old, {}) == {} and budget.points(old) == []
    assert statistics.section(old) == [] and statistics.spoken(old.summary) == []


def difference(variant: str, reference: str, **more: Any) -> dict[str, Any]:
    low, high = more.pop("ends", (-0.02, 0.06))
    need = {"points": 0.03, "power": 0.8, "questions": 2623, "k": 4, "samples": None, "detectable": 0.057}
    return {
        "variant": variant, "reference": reference, "task": "overall", "budget": "loose", "metric": "avg",
        "value": 0.02, "low": low, "high": high, "n": 300, "p": 0.3, "p_holm": 0.6, "p_bh": 0.5,
        "bootstrap_low": -0.03, "bootstrap_high": 0.07, "mcnemar": {"only": 9, "only_reference": 4, "p": 0.267},
        "power": need if low <= 0 <= high else None,
    } | more  # fmt: skip


def test_what_an_open_difference_needs_is_said_in_words() -> None:
    open_ = difference("a", "b")
    said = statistics.spoken({"k": 4, "differences": [open_]})
    assert said == [
        "avg@4: 0 of 1 differences settled.",
        "avg@4, not settled: a difference of 3 points would need about 2,700 questions at 4 samples; the 300 here show "
        "differences from 5.7 points on. No number of samples of these questions is enough.",
    ]
    more = difference("c", "b", power={**open_["power"], "questions": 900, "samples": 12, "detectable": 0.04})
    assert statistics.spoken({"k": 4, "differences": [open_, more]})[1] == (
        "avg@4, not settled: a difference of 3 points would need about 900 to 2,700 questions at 4 samples; the 300 "
        "here show differences from 4.0 to 5.7 points on. About 12 samples of each would do as well for 1 of 2 "
        "differences."
    )


def test_a_settled_difference_may_not_survive_correction() -> None:
    one = difference("a", "b", ends=(0.001, 0.08), p=0.04, p_holm=0.08)
    two = difference("c", "b", ends=(0.02, 0.08), p=0.001, p_holm=0.002)
    said = statistics.spoken({"k": 4, "differences": [one, two, difference("b", "a", ends=(-0.08, -0.001))]})
    assert said == ["avg@4: 2 of 2 differences settled, 1 still after correction for their number (Holm)."]


def test_tests_stand_beside_each_other(run: LoadedRun) -> None:
    rows = [difference("a", "b"), difference("c", "b", ends=(0.02, 0.08), p=0.0004, p_holm=0.0008)]
    shown = "\n".join(statistics.section(changed(run, run.summary | {"differences": rows})))
    assert (
        "| a | b | loose | avg@4 | +2.0 [−2.0, +6.0] | [−3.0, +7.0] | 0.300 | 0.600 | 0.500 | 9 : 4 | 0.267 "
        "| 3 points: 2,700 questions |"
    ) in shown
    assert "| +2.0 [+2.0, +8.0] | [−3.0, +7.0] | < 0.001 | < 0.001 | 0.500 | 9 : 4 | 0.267 |  |" in shown


def test_the_command_line_says_it_too(summary: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    show.compare(summary)
    said = capsys.readouterr().out
    assert all(line in said for line in statistics.spoken(summary))
    assert show.percent({"value": 0.01, "low": 0.001, "high": 0.08}) == "1.0 [0.1, 8.0]"
    assert show.percent({"value": 0.5, "low": 0.45, "high": 0.56}) == "50.0 ±5.5"


def test_lopsided_intervals_show_both_ends() -> None:
    assert text.percent({"value": 0.01, "low": 0.001, "high": 0.08}) == "1.0 [0.1, 8.0]"
    assert text.percent({"value": 0.5, "low": 0.45, "high": 0.56}) == "50.0 ±5.5"
    assert statistics.rounded(99) == "99" and statistics.rounded(2601) == "2,700"
