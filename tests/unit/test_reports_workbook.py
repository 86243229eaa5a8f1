"""report.xlsx, read back as the XML that it is: types, formats, hostile text, names of sheets."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import reports
from reports import workbook
from reports.load import LoadedRun, load
from reports.workbook import Sheet, sheet_names, write
from tests.unit.reports_runs import compare_summary, latency_summary, write_run

NS = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
REL = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


class Book:
    """What a spreadsheet program would see: sheets by name, cells by place as (type, value, number format)."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        assert self.zip.testzip() is None
        targets = {r.get("Id"): r.get("Target") for r in self.xml("xl/_rels/workbook.xml.rels")}
        found = self.xml("xl/workbook.xml").findall("m:sheets/m:sheet", NS)
        self.sheets = {s.get("name"): self.xml(f"xl/{targets[s.get(REL)]}") for s in found}
        styles = self.xml("xl/styles.xml")
        formats = {f.get("numFmtId"): f.get("formatCode") for f in styles.iterfind("m:numFmts/m:numFmt", NS)}
        builtin = {"0": "General", "49": "@", "3": "#,##0"}
        self.formats = [formats.get(x.get("numFmtId"), builtin.get(x.get("numFmtId") or "", "?"))
                        for x in styles.iterfind("m:cellXfs/m:xf", NS)]  # fmt: skip

    def xml(self, name: str) -> ElementTree.Element:
        return ElementTree.fromstring(self.zip.read(name))

    def cells(self, sheet: str) -> dict[str, tuple[str, Any, str]]:
        out: dict[str, tuple[str, Any, str]] = {}
        for c in self.sheets[sheet].iterfind(".//m:c", NS):
            assert c.find("m:f", NS) is None, f"a formula in {sheet}!{c.get('r')}"
            text = "".join(t.text or "" for t in c.iterfind(".//m:t", NS))
            value = c.findtext("m:v", namespaces=NS)
            kind = c.get("t") or "n"
            out[c.get("r") or ""] = (
                kind,
                text if kind == "inlineStr" else float(value or 0),
                self.formats[int(c.get("s") or 0)],
            )
        return out

    def column(self, sheet: str, head: str) -> str:
        """The letters of a column by its header."""
        found = [place for place, (_, value, _) in self.cells(sheet).items() if value == head and place.endswith("1")]
        return re.sub(r"\d", "", found[0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load(write_run(tmp_path_factory.mktemp("run") / "compare", compare_summary()))


def book(tmp_path: Path, rows: list[dict[str, Any]], run: LoadedRun, name: str = "t") -> Book:
    write(tmp_path / "report.xlsx", [Sheet(name, "a table", "a run", rows)], [run])
    return Book(tmp_path / "report.xlsx")


HOSTILE = ["=1+1", "+1", "-2+3", "@SUM(A1)", '=HYPERLINK("http://x","y")', "=cmd|' /C calc'!A0", "\t=1", "http://x.y",
           "mailto:a@b", "internal:A1", "1234", "0x1F", "<b>&\"'</b>", "]]>", "a\x00b\x1f\x0b", "\ud800 lone", "‮rtl",
           "nan", "TRUE", "\r\nline", "x" * 40_000]  # fmt: skip


def test_hostile_text_stays_text(run: LoadedRun, tmp_path: Path) -> None:
    found = book(tmp_path, [{"text": text} for text in HOSTILE], run)
    cells = found.cells("t")
    for n, text in enumerate(HOSTILE, 2):
        kind, value, pattern = cells[f"A{n}"]
        assert (kind, pattern) == ("inlineStr", "@"), repr(text)
        if text.isprintable() and len(text) < 100:
            assert value == text
    assert cells["A22"][1].startswith("x" * 32_000) and "40000 characters, cut here" in cells["A22"][1]
    assert len(cells["A22"][1]) <= 32_767
    links = [x for x in found.zip.namelist() if "_rels/sheet" in x]
    assert all("http" not in found.zip.read(x).decode().replace("http://schemas", "") for x in links)


def test_load_runs_have_times_rates_and_counts(run: LoadedRun, tmp_path: Path) -> None:
    """A time a token of 1.7 ms is not 0.002, 4 requests a second are no time, and 3 cut ones are not 300%."""
    row = {"tpot": {"p50": {"value": 0.00168}}, "offered_s": 3.64, "wall_s": 9.9, "cut": 3}
    cells = book(tmp_path, [row, {"cut": 0.25}], run).cells("t")
    assert [cells[f"{c}2"][2] for c in "ABCD"] == ["0.000000", "#,##0.000", "0.000000", "#,##0"]
    assert cells["D3"][2] == "0.0%", "a share of the curves"


def test_numbers_are_numbers_by_what_they_are(run: LoadedRun, tmp_path: Path) -> None:
    row = {
        "variant": "x", "samples": 12345, "avg": {"value": 0.373, "low": 0.3, "n": 200}, "ttft_s": {"p50": 0.021},
        "slots": {"value": 59.9}, "p": 0.0123, "kept": True, "none": None, "list": [1, 2], "bad": float("nan"),
    }  # fmt: skip
    found = book(tmp_path, [row], run)
    heads = [
        "samples",
        "avg.value",
        "avg.low",
        "avg.n",
        "ttft_s.p50",
        "slots.value",
        "p",
        "kept",
        "none",
        "list",
        "bad",
    ]
    cells = {head: found.cells("t").get(f"{found.column('t', head)}2") for head in heads}
    assert cells == {
        "samples": ("n", 12345.0, "#,##0"), "avg.value": ("n", 0.373, "0.0%"), "avg.low": ("n", 0.3, "0.0%"),
        "avg.n": ("n", 200.0, "#,##0"), "ttft_s.p50": ("n", 0.021, "0.000000"), "slots.value": ("n", 59.9, "#,##0.000"),
        "p": ("n", 0.0123, "0.0000"), "kept": ("b", 1.0, "General"), "none": None,
        "list": ("inlineStr", "[1, 2]", "@"), "bad": ("inlineStr", "nan", "@"),
    }  # fmt: skip


@pytest.mark.parametrize(("metric", "pattern"), [("avg", "0.0%"), ("pass@4", "0.0%"), ("slots", "#,##0.000")])
def test_differences_are_shown_by_their_metric(metric: str, pattern: str, run: LoadedRun, tmp_path: Path) -> None:
    found = book(tmp_path, [{"metric": metric, "value": 0.25, "low": -0.5}], run)
    assert [found.cells("t")[f"{c}2"][2] for c in "BC"] == [pattern] * 2


def test_headers_stay_in_sight_and_have_filters(run: LoadedRun, tmp_path: Path) -> None:
    found = book(tmp_path, [{"a": 1, "b": 2}] * 5, run)
    sheet = found.sheets["t"]
    pane = sheet.find(".//m:pane", NS)
    assert pane is not None and (pane.get("ySplit"), pane.get("state")) == ("1", "frozen")
    filters = sheet.find("m:autoFilter", NS)
    assert filters is not None and filters.get("ref") == "A1:B6"


def test_names_of_sheets_are_short_and_each_once() -> None:
    wanted = ["a" * 40, "a" * 40, "A" * 33, "x/y:[z]*?\\", "", "'quoted'", "about", "History", "b", "B"]
    found = sheet_names(wanted)
    assert all(1 <= len(n) <= 31 and not set(n) & set("[]:*?/\\") and n.strip("'") == n for n in found)
    assert len({n.lower() for n in found}) == len(found) and not {"about", "history"} & {n.lower() for n in found}
    assert found[:3] == ["a" * 31, "a" * 29 + "~2", "A" * 29 + "~3"] and found[3] == "x-y--z----"


def test_long_tables_are_cut_and_it_is_said(run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MOST_ROWS", 3)
    found = book(tmp_path, [{"a": i} for i in range(5)], run)
    assert set(found.cells("t")) == {"A1", "A2", "A3", "A4"}
    assert "the first 3 rows; the CSV has all" in found.cells("about")["B2"][1]


def test_the_first_sheet_says_what_the_others_are(run: LoadedRun, tmp_path: Path) -> None:
    latency = write_run(tmp_path / "latency", latency_summary())
    reports.build([run.folder, latency], tmp_path / "out")
    found = Book(tmp_path / "out" / "report.xlsx")
    names = list(found.sheets)
    csvs = {p.stem for p in (tmp_path / "out").glob("*.csv")}
    assert names[0] == "about" and set(names[1:]) == csvs, "a sheet for each CSV file"
    about = found.cells("about")
    said = {value for _, value, _ in about.values()}
    assert csvs <= said and "Table 1: quality by benchmark: the paper's values beside ours" in said
    assert any("settings 5f1c09, commit 0123abcd, with uncommitted changes" in str(v) for v in said)
    links = {h.get("location") for h in found.sheets["about"].iterfind(".//m:hyperlink", NS)}
    assert links == {f"'{n}'!A1" for n in names[1:]}
    rows = json.loads((run.folder / "summary.json").read_text())["rows"]
    values = found.cells("comparison")
    column = found.column("comparison", "avg.value")
    assert [values[f"{column}{i}"][1] for i in range(2, len(rows) + 2)] == [
        pytest.approx(r["avg"]["value"]) for r in rows
    ]


def test_equal_runs_give_equal_files(run: LoadedRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.xlsx", [Sheet("t", "", "", run.rows)], [run])
    assert (tmp_path / "a.xlsx").read_bytes() == (tmp_path / "b.xlsx").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_that_is_not_there_is_an_os_error(run: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write(tmp_path / "no" / "a.xlsx", [], [run])
