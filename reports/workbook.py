"""report.xlsx: every table of a report as a sheet, numbers as numbers, and a first sheet that says what they are.

What comes from models and files is text here and stays text: a cell that begins with = + - or @ is never a formula, and
no text becomes a link. Sheets are written row by row, so memory does not grow with them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from reports.exhibits import Exhibit
from reports.kinds import shown
from reports.load import LoadedRun
from reports.paper import paper
from reports.text import flatten

NAME_LENGTH = 31  # what spreadsheets allow in a sheet's name
FORBIDDEN = "[]:*?/\\"
RESERVED = ("history", "about")
MOST_ROWS = 1_048_575  # below the header
MOST_TEXT = 32_767  # characters in a cell
ABOUT = "about"
SHARES = ("avg", "pass", "maj", "truncated", "kept_share", "pad_ratio", "area", "cut", "avg_gap", "pass_gap")
# Times of load runs have no unit in their names, and their rates end as times do.
TIMES = ("ttft", "first_pair", "tpot", "gap", "longest_gap", "itl", "e2e", "queue", "send_delay")
RATES = ("tokens_s", "prompt_tokens_s", "offered_s", "achieved_s", "in_window_s", "full_tokens_s", "rate_s")
ENDS = ("value", "low", "high", "se", "bootstrap_low", "bootstrap_high", "seed_low", "seed_high")
CHANCES = ("p", "p_holm", "p_bh", "p_margin")
FORMATS = {
    "count": "#,##0", "number": "#,##0.000", "share": "0.0%", "chance": "0.0000", "seconds": "0.000000", "text": "@",
}  # fmt: skip
GUIDE = (
    "Shares (avg, pass, kept share and the like) and their differences are fractions shown as percent; times in s.",
    "low and high are the ends of the 95% interval, se is the standard error, n the number of questions or trials.",
    "Where a column source stands, paper marks values of the paper and here what was measured.",
)


class Sheet(NamedTuple):
    """One table: wanted name of the sheet, what it is, where its numbers come from, and its rows (nested dicts)."""

    name: str
    about: str
    source: str
    rows: Sequence[Mapping[str, Any]]


# What a run's further tables are, by the words that their files end in.
WORDS = {
    "": "the rows of the run", "differences": "paired differences with their tests", "failures": "failed generations",
    "ratios": "reference over variant, above 1 is faster", "floor": "what the floor allows beside what was measured",
    "cells": "the cells of the map", "curves": "quality over the budget", "costs": "what a right answer took",
    "cost_ratios": "device seconds of a right answer, variant over reference", "equal_time": "pass@k at equal time",
    "equal_time_differences": "differences of those", "keys": "best points, areas, kept share at no loss",
    "trainings": "what each row was trained with", "points": "what each point is",
    "lossless": "points that must be equal to their reference", "series": "each point over time",
    "probes": "rates that searches tried",
}  # fmt: skip


def sheets(runs: Sequence[LoadedRun], stems: Sequence[str], found: Sequence[Exhibit]) -> list[Sheet]:
    """All tables of a report, each under the name of its CSV file: the runs' own, then the paper's beside ours."""
    out = []
    for run, stem in zip(runs, stems, strict=True):
        source = f"{run.run.kind}, {run.folder}"
        tables = {"": run.rows, **shown(run.kind).lists(run)}
        for word, rows in tables.items():
            if rows:
                about = f"{run.run.kind}: {WORDS.get(word, word.replace('_', ' '))}"
                out.append(Sheet(f"{stem}-{word}" if word else stem, about, source, rows))
    source = f"the paper ({paper()['source']}) and these runs"
    return out + [Sheet(e.name, f"{e.title}: the paper's values beside ours", source, e.rows) for e in found]


def write(path: Path, tables: Sequence[Sheet], runs: Sequence[LoadedRun]) -> None:
    """Write the workbook, by rename. Raises OSError where it cannot be written."""
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    draft = path.with_name(path.name + ".tmp")
    book = xlsxwriter.Workbook(
        str(draft),
        {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False},
    )
    book.set_properties({"title": "pipo report", "created": _newest(runs)})  # equal runs give equal files
    looks = {kind: book.add_format({"num_format": pattern}) for kind, pattern in FORMATS.items()}
    looks["head"] = book.add_format({"bold": True, "bottom": 1})
    names = sheet_names([t.name for t in tables])
    front = book.add_worksheet(ABOUT)
    for table, name in zip(tables, names, strict=True):
        _fill(book.add_worksheet(name), table.rows, looks)
    _front(front, tables, names, runs, looks)
    try:
        book.close()
    except FileCreateError as e:
        raise OSError(str(e)) from e
    os.replace(draft, path)


def sheet_names(wanted: Sequence[str]) -> list[str]:
    """Names that spreadsheets take, at most 31 characters, each once whatever its case."""
    taken = set(RESERVED)
    out = []
    for text in wanted:
        plain = "".join("-" if c in FORBIDDEN or ord(c) < 32 else c for c in text).strip("' ") or "sheet"
        name, count = plain[:NAME_LENGTH], 1
        while name.lower() in taken:
            count += 1
            end = f"~{count}"
            name = plain[: NAME_LENGTH - len(end)] + end
        taken.add(name.lower())
        out.append(name)
    return out


def _newest(runs: Sequence[LoadedRun]) -> datetime:
    """When the newest of the runs began; a fixed day where none says it."""
    found = []
    for run in runs:
        try:
            found.append(datetime.fromisoformat(run.run.provenance.started).replace(tzinfo=None))
        except ValueError:
            continue
    return max(found, default=datetime(2000, 1, 1))


def _fill(sheet: Any, rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Any]) -> None:
    """Header, rows, widths; the header stays in sight and has filters."""
    some = rows[:MOST_ROWS]
    columns = list(dict.fromkeys(key for row in some for key in flatten(row)))
    for i, column in enumerate(columns):
        sheet.set_column(i, i, min(48, max(9, len(column) + 3)))
        sheet.write_string(0, i, column, looks["head"])
    for n, row in enumerate(some, 1):
        flat = flatten(row)
        metric = str(flat["metric"]) if "metric" in flat else None
        for i, column in enumerate(columns):
            if column in flat:
                put(sheet, n, i, flat[column], looks, kind_of(column, metric))
    sheet.freeze_panes(1, 0)
    if columns:
        sheet.autofilter(0, 0, max(1, len(some)), len(columns) - 1)


def put(sheet: Any, row: int, column: int, value: Any, looks: Mapping[str, Any], kind: str = "number") -> None:
    """One cell by its type: numbers as numbers, the rest as text that nothing reads as a formula; None is empty."""
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float) and math.isfinite(value):
        whole = isinstance(value, int) and kind in ("number", "share")  # shares are floats: a whole one is a count
        sheet.write_number(row, column, value, looks["count" if whole else kind])
    else:
        sheet.write_string(row, column, text_of(value), looks["text"])


@lru_cache(maxsize=4096)
def kind_of(column: str, metric: str | None) -> str:
    """How a number of this column is shown, by its name and by the metric that its row speaks of (None: of none)."""
    first, last = column.split(".")[0], column.split(".")[-1]
    if last in ("n", "seeds", "items", "only", "only_reference"):
        return "count"
    if last in CHANCES:
        return "chance"
    if first in ENDS and metric is not None:
        return "share" if metric in ("avg", "area") or metric.startswith("pass@") else "number"
    if first in SHARES:
        return "share"
    return "seconds" if first in TIMES or (first.endswith("_s") and last not in RATES) else "number"


def text_of(value: Any) -> str:
    """A value as the text of a cell: lists as JSON, nothing that XML or a cell cannot hold."""
    text = value if isinstance(value, str) else _plain(value)
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= MOST_TEXT:
        return text
    end = f" … ({len(text)} characters, cut here; the CSV has all)"
    return text[: MOST_TEXT - len(end)] + end


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return str(value)  # nan and infinities
    return json.dumps(value, ensure_ascii=False, default=str)


def _front(
    sheet: Any, tables: Sequence[Sheet], names: Sequence[str], runs: Sequence[LoadedRun], looks: Mapping[str, Any]
) -> None:  # fmt: skip
    """The first sheet: what each sheet is, with a way there; the runs behind them; how to read the numbers."""
    for i, width in enumerate((34, 64, 64, 12)):
        sheet.set_column(i, i, width)
    line = 0
    for i, word in enumerate(("sheet", "what it holds", "where its numbers come from", "rows")):
        sheet.write_string(line, i, word, looks["head"])
    for table, name in zip(tables, names, strict=True):
        line += 1
        sheet.write_url(line, 0, f"internal:'{name.replace(chr(39), chr(39) * 2)}'!A1", string=name)
        about = table.about
        if len(table.rows) > MOST_ROWS:
            about += f" (the first {MOST_ROWS} rows; the CSV has all)"
        put(sheet, line, 1, about, looks)
        put(sheet, line, 2, table.source, looks)
        put(sheet, line, 3, len(table.rows), looks)
    line += 2
    for i, word in enumerate(("run", "settings, commit, models", "versions, device, start", "records")):
        sheet.write_string(line, i, word, looks["head"])
    for run in runs:
        line += 1
        p = run.run.provenance
        models = ", ".join(f"{name} {mark}" for name, mark in p.models.items())
        versions = ", ".join(f"{name} {version}" for name, version in sorted(p.versions.items()))
        changes = ", with uncommitted changes" if p.git_dirty else ""
        put(sheet, line, 0, f"{run.run.kind}: {run.folder}", looks)
        put(
            sheet,
            line,
            1,
            f"settings {p.settings_hash}, commit {p.git_commit}{changes}, seed {p.seed}; {models}",
            looks,
        )
        put(sheet, line, 2, f"{versions}; {p.device}, {p.cpu_count} cores, {p.threads} threads; {p.started}", looks)
        put(sheet, line, 3, run.records, looks)
    line += 1
    for text in GUIDE:
        line += 1
        put(sheet, line, 0, text, looks)
    sheet.freeze_panes(1, 0)
