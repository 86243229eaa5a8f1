"""``pipo tasks``, and what the flags that choose items become in a job's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipo.cli import main
from pipo.cli.tasks import selection
from pipo.data import benchmarks
from pipo.errors import BadInput
from pipo.lab import TASKS
from tests.unit.benchmark_rows import gpqa_row, write_csv, write_jsonl

MATH = {"problem": "1+1?", "answer": "2", "unique_id": "a"}


def pipo(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*words])
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPO_DATA", raising=False)


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert pipo("tasks", "--json", *words) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_all_tasks_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "math500.jsonl", MATH)
    rows = listed(capsys, "--data", str(tmp_path))
    assert [r["task"] for r in rows] == [*TASKS, *benchmarks.NAMES]
    by_name = {r["task"]: r for r in rows}
    assert by_name["math500"]["here"] and by_name["math500"]["files"] == [str(tmp_path / "math500.jsonl")]
    assert not by_name["gsm8k"]["here"] and by_name["gsm8k"]["hub"] == "openai/gsm8k"
    assert by_name["math500"]["items"] == 500, "without --check the published number"
    assert pipo("tasks", "--data", str(tmp_path)) == 0
    assert "math500" in capsys.readouterr().out


def test_checked_tasks_are_read_and_the_broken_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "math500.jsonl", MATH)
    (row,) = listed(capsys, "math500", "--check", "--data", str(tmp_path))
    assert row["items"] == 1 and len(row["fingerprint"]) == 16
    assert row["notes"] == ["math500: 1 items where the published set has 500"]
    write_jsonl(tmp_path / "gsm8k_test.jsonl", {"question": "q", "answer": "4"})
    assert pipo("tasks", "--check", "--data", str(tmp_path)) == 1
    told = capsys.readouterr()
    assert "gsm8k_test.jsonl:1: field 'answer' '4' has no '####'" in told.err and "Traceback" not in told.err
    assert "math500" in told.out, "one broken file does not hide the others"


def test_items_are_shown_as_they_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "gpqa_diamond.csv", [gpqa_row(n) for n in range(4)])
    assert pipo("tasks", "gpqa-diamond", "--show", "2", "--data", str(tmp_path)) == 0
    told = capsys.readouterr().out
    assert told.count("right answer") == 2 and "gpqa-diamond/rec0, right answer" in told and "\\boxed{}" in told


def test_a_users_toml_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "mine.jsonl", MATH)
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nfile = "mine.jsonl"\nschema = "math"\nprompt = "math-1"\nscorer = "math"\n')
    (row,) = listed(capsys, str(path), "--check")
    assert (row["task"], row["items"], row["here"]) == ("mine", 1, True)
    path.write_text('name = "mine"\nfile = "mine.jsonl"\n')
    write_jsonl(tmp_path / "mine.jsonl", {"prompt": "p", "answer": "1"})
    (row,) = listed(capsys, str(path), "--check")
    assert (row["items"], row["scorer"]) == (1, "exact")
    assert pipo("tasks", "chess") == 2
    assert "unknown task 'chess'; tasks are lab-chain" in capsys.readouterr().err


def test_the_selection_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "math500.jsonl", MATH)
    assert selection(None, None, None, None, None) == {}
    assert selection(["math500"], "0:1", "1/2", False, tmp_path) == {
        "tasks": ["math500"], "slice": "0:1", "shard": "1/2", "thinking": False, "data": str(tmp_path),
    }  # fmt: skip
    monkeypatch.setenv("PIPO_DATA", str(tmp_path))
    assert selection(["math500"], None, None, None, None)["data"] == str(tmp_path), "the worker may have another one"
    assert selection(["lab-chain"], None, None, None, None) == {"tasks": ["lab-chain"]}
    for words, says in (
        ((["gsm8k"], None, None), "no gsm8k_test.jsonl in"), ((["chess"], None, None), "unknown task 'chess'"),
        ((["math500"], "1", None), "must read A:B"), ((["math500"], None, "3/2"), "must read I/N"),
        ((["math500", "math500"], None, None), "named twice"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=says):
            selection(*words, None, None)
