"""The paper's numbers: all there, each once, and in the places where tables look for them."""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pipo.data import benchmarks
from reports.paper import paper, quality_rows

ROOT = Path(__file__).resolve().parents[2]
# Where the facts were written down first: a folder beside the checkout that not everyone has.
NOTES = ROOT.parent / "shared" / "paper_reference.toml"
TABLES = ("table1", "table2", "table3", "figure2", "figure4", "figure5", "figure6", "appendix_e")


def numbers(value: Any) -> Iterator[float]:
    """All numbers in the values, in order; not those in keys."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def raw() -> dict[str, Any]:
    return tomllib.loads((files("reports") / "paper.toml").read_text())


@pytest.mark.skipif(not NOTES.is_file(), reason=f"{NOTES.name} is not beside this checkout")
def test_no_number_of_the_notes_is_lost() -> None:
    theirs, ours = tomllib.loads(NOTES.read_text()), raw()
    for table in TABLES:
        missing = Counter(numbers(theirs[table])) - Counter(numbers(ours[table]))
        assert not missing, f"[{table}] lacks {dict(missing)}"


def test_numbers_are_as_many_and_add_up_as_when_they_were_written_down() -> None:
    found = {table: list(numbers(raw()[table])) for table in TABLES}
    assert {table: (len(v), round(sum(v), 3)) for table, v in found.items()} == {
        "table1": (100, 5661.14), "table2": (10, 199077.0), "table3": (8, 413.75), "figure2": (5, 63488.0),
        "figure4": (20, 260245.469), "figure5": (6, 3.0), "figure6": (13, 257.525), "appendix_e": (12, 1389.17),
    }  # fmt: skip


@pytest.mark.parametrize("model", ["Qwen3.5-4B", "Qwen3.5-9B"])
def test_the_overall_column_is_the_mean_of_the_benchmarks(model: str) -> None:
    """A typing error in any cell would show."""
    for method, rows in paper()["table1"][model].items():
        for i in (0, 1):
            mean = sum(row[i] for row in rows[:-1]) / 4
            assert rows[-1][i] == pytest.approx(mean, abs=0.011), f"{method}, column {i}"


def test_latency_ratios_are_those_of_the_times() -> None:
    facts = paper()["figure4"]
    for metric, unit in (("ttft", "ttft_s"), ("tpot", "tpot_ms")):
        for length, seconds in facts[unit]["pipo"].items():
            ratio = facts[unit]["regular"][length] / seconds
            assert facts[f"{metric}_times"][length] == pytest.approx(ratio, abs=0.011), f"{metric} at {length}"


def test_tables_say_the_same_where_they_meet() -> None:
    facts = paper()
    assert facts["table3"]["pipo-sft"] == facts["table1"]["Qwen3.5-4B"]["pipo-sft"][-1]
    assert facts["figure6"]["pass_at_threshold"]["0.95"] == facts["table3"]["pipo-sft"][1]
    assert facts["figure2"]["budgets"] == [2048 << i for i in range(5)]
    claims = {c["row"]: c for c in facts["training"] if c["row"] in facts["table3"]}
    for row, (claim, i) in itertools.product(claims, (("avg", 0), ("pass", 1))):
        assert claims[row][claim] == pytest.approx(facts["table3"][row][i] - facts["table3"]["pipo-sft"][i])


def test_benchmarks_have_the_names_of_our_tasks() -> None:
    tasks = paper()["table1"]["tasks"]
    assert set(tasks) <= set(benchmarks.NAMES)
    assert list(tasks.values()) == paper()["table1"]["benchmarks"][:-1]


def test_rows_for_tables() -> None:
    assert quality_rows(["eagle", "control"]) == [("eagle", 46.21, 60.26, 21667)]
    assert paper()["threshold"]["pad_ratio_at_0_95"] == pytest.approx(66.5)
