"""Load runs in a report: the section, the figures, the tables beside it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from reports import loadtest
from reports.build import build
from reports.load import load
from reports.style import looks, styled
from tests.unit.load_runs import folder

SHARE = {"value": 0.97, "se": 0.01, "low": 0.93, "high": 0.99, "n": 100}
FOUND = [
    {
        "variant": "regular",
        "rate": 3.5,
        "share": SHARE,
        "next": 4.0,
        "probes": [{"rate": 3.5, "share": SHARE, "met": True}],
    }
]


def test_a_report_has_the_answer_the_tables_and_the_remarks(tmp_path: Path) -> None:
    text = build([folder(tmp_path / "run")], tmp_path / "out").read_text()
    assert "Load: random prompts on torch at 2/s and 4/s: regular and pipo." in text
    assert "**pipo under load, 4/s:** times as fast as regular over the same requests: first token 1.00" in text
    assert "per token 1.57 [1.57, 1.57], better" in text
    assert "| pipo | 2/s | 40/40 | 0 |" in text and "| regular | 4/s | 38/40 | 2 |" in text
    assert "timed out |" not in text, "columns in which nothing is are left out"
    assert "- pipo, 4/s: 2 × HTTP 500: lost" in text
    assert "The client against what answers at once (engine): 0.01 ms a request" in text
    assert (tmp_path / "out" / "load.png").stat().st_size > 10_000
    with open(tmp_path / "out" / "load-series.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 4 * 60 and {r["point"] for r in rows} == {
        f"{v} rate={n}" for v in ("pipo", "regular") for n in (2, 4)
    }


def test_a_trace_is_drawn_over_time(tmp_path: Path) -> None:
    run = load(folder(tmp_path / "run", "trace"))
    with styled():
        figure = loadtest.draw(run, "load", looks(loadtest.series(run)))["load"]
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        "requests of azure-conv that came, a second",
        "requests in flight",
        "first token, ms: median of those due then",
    ]
    bars = sum(p.get_height() * p.get_width() for p in figure.axes[0].patches)
    assert bars == pytest.approx(40, abs=0.01), "the bars' area is the requests"


def test_a_search_is_in_the_answer_and_its_probes_in_a_table(tmp_path: Path) -> None:
    run = load(folder(tmp_path / "run", found=FOUND))
    assert loadtest.answer(run).startswith("- **regular:** 3.5 requests a second keep 97.0 [93.0, 99.0] % within")
    assert loadtest.lists(run)["probes"] == [{"variant": "regular", **FOUND[0]["probes"][0]}]  # type: ignore[index]
    assert any("Highest rate" in part for part in loadtest.section(run, []))


def test_percentiles_that_too_few_requests_lie_beyond_are_dashes(tmp_path: Path) -> None:
    table = loadtest.percentiles(load(folder(tmp_path / "run")))
    line = next(x for x in table.splitlines() if x.startswith("| regular | 2/s | first token"))
    assert line.rstrip(" |").endswith("–")


def test_points_that_others_disturbed_say_so() -> None:
    rows = [{"client": {"waited_share": share}} for share in (None, 0.01, 0.42)]
    assert loadtest.disturbed(rows[:2]) == ""
    assert loadtest.disturbed(rows) == " Others had the CPU for up to 42 % of the time: do not lean on this."
