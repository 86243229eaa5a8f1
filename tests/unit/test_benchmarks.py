"""Benchmarks by their published schemas: definitions, readers, choices, packed tests."""

from __future__ import annotations

import collections
import io
import os
import pickle
from pathlib import Path

import pytest

from pipo.data import benchmarks
from pipo.data.benchmarks.definitions import fill, prompts
from pipo.data.benchmarks.items import Case, unpack
from pipo.data.benchmarks.readers import order
from pipo.data.sets import ask
from pipo.errors import BadInput, BadRecord
from tests.unit.benchmark_rows import gpqa_row, lcb_row, packed, write_csv, write_jsonl


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_definition_says_where_its_items_come_from(name: str) -> None:
    of = benchmarks.shipped(name)
    assert of.name == name and of.source and of.licence and of.about and of.hub and of.files and of.hub_files
    assert (of.scorer == "code") == prompts()[of.prompt or ""].text.rstrip().endswith(("```.", "```"))


def test_the_wanted_ones_are_there() -> None:
    assert set(benchmarks.NAMES) == {
        "aime2024", "aime2025", "math500", "gsm8k", "gpqa-diamond", "mmlu-stem", "humaneval", "livecodebench",
        "longbench-v2-short", "codeforces-python", "codeforces-cpp",
    }  # fmt: skip


def test_math_is_asked_as_in_training() -> None:
    assert fill(prompts()["math-1"].text, {"question": "What?"}) == ask("What?")[0]["content"]


def test_fields_are_not_looked_into_again() -> None:
    assert fill("$question, $$5", {"question": "$question and $choices \\boxed{}"}) == (
        "$question and $choices \\boxed{}, $5"
    )


def test_gpqa_choices_are_shuffled_by_item_and_the_gold_goes_along(tmp_path: Path) -> None:
    rows = [gpqa_row(n) for n in range(40)]
    write_csv(tmp_path / "gpqa_diamond.csv", rows)
    found = benchmarks.load(benchmarks.shipped("gpqa-diamond"), tmp_path)
    for n, asked in enumerate(found.items):
        lines = asked.plain.splitlines()
        assert f"{asked.entry.gold}) right {n}" in lines
        assert {line[3:] for line in lines if line[1:2] == ")"} == {
            f"right {n}", f"wrong a {n}", f"wrong b {n}", f"wrong c {n}",
        }  # fmt: skip
        assert '\nAs a "number", please.' in asked.plain and "(A, B, C or D)" in asked.plain
    write_csv(tmp_path / "gpqa_diamond.csv", rows[::-1][:7])
    part = benchmarks.load(benchmarks.shipped("gpqa-diamond"), tmp_path)
    whole = {a.entry.id: a for a in found.items}
    assert all(whole[a.entry.id] == a for a in part.items), "neither order nor part of the set changes an item"
    assert part.fingerprint != found.fingerprint
    assert part.notes == ["gpqa-diamond: 7 items where the published set has 198"]


def test_the_order_of_choices_is_even_and_fixed() -> None:
    """Chi-squared over the 24 orders of four choices, 23 degrees of freedom: 49.7 is exceeded once in a thousand."""
    count = collections.Counter(tuple(order(4, 0, f"item {n}")) for n in range(4800))
    statistic = sum((seen - 200) ** 2 / 200 for seen in count.values())
    assert len(count) == 24 and statistic < 49.7, f"chi-squared {statistic:.1f}"
    assert [order(4, 0, "rec1"), order(4, 1, "rec1")] == [[1, 2, 0, 3], [2, 1, 3, 0]], "version 1 of the shuffle"


def test_livecodebench_keeps_the_window_and_its_tests(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "livecodebench" / "test5.jsonl", lcb_row(1, "2025-01-31"), lcb_row(2, "2025-02-01"))
    write_jsonl(tmp_path / "livecodebench" / "test6.jsonl", lcb_row(3, function=True))
    found = benchmarks.load(benchmarks.shipped("livecodebench"), tmp_path)
    assert [a.entry.id for a in found.items] == ["q2", "q3"]
    first, second = (a.entry.program for a in found.items)
    assert first is not None and second is not None
    assert first.form == "stdin" and first.cases() == [Case("2\n", "4\n"), Case("3\n", "6\n")]
    assert (second.form, second.entry_point) == ("function", "twice")
    assert "def twice(self, n: int) -> int:\n```" in found.items[1].plain
    assert "standard input" in found.items[0].plain and "Given $2$, print twice it." in found.items[0].plain


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (packed([], raw=pickle.dumps(_Runs())), "where one text is expected"),
        (packed([], raw=pickle.dumps(["a", "b"])), "where one text is expected"),
        (packed([], raw=pickle.dumps("{")), "cannot be read"),
        (packed([], raw=b"not a pickle"), "cannot be read"),
        (packed([{"input": "1", "output": "2"}])[:-8], "torn|cannot be read"),
        ("%%%", "cannot be read"),
        ('[{"input": 1}]', "cannot be read"),
    ],
)
def test_packed_tests_run_nothing(text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRecord, match=says):
        unpack(text)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_packed_tests_are_read_as_they_were_written(protocol: int) -> None:
    text = '[{"input": "é%s", "output": "2"}]' % ("x" * 70_000)
    assert unpack(packed([], raw=pickle.dumps(text, protocol))) == [Case("é" + "x" * 70_000, "2")]
    assert unpack(text) == unpack(packed([], raw=pickle.dumps(text, protocol)))


@pytest.mark.parametrize(("name", "language"), [("codeforces-python", "python"), ("codeforces-cpp", "cpp")])
def test_codeforces_in_two_languages(name: str, language: str, tmp_path: Path) -> None:
    row = {
        "id": "1/A", "title": "Sum", "description": "Add.", "time_limit": 2.0, "memory_limit": 256.0, "rating": 800,
        "examples": [{"input": "1 2", "output": "3"}], "official_tests": [{"input": "4 5", "output": "9"}],
        "generated_checker": "import sys", "input_mode": "stdio",
    }  # fmt: skip
    rows = [row, {**row, "id": "1/B", "interaction_format": "ask"}, {**row, "id": "1/C", "description": None}]
    write_jsonl(tmp_path / "codeforces_test.jsonl", *rows)
    found = benchmarks.load(benchmarks.shipped(name), tmp_path)
    assert found.left_out == {"interactive": 1, "no statement": 1} and len(found.items) == 1
    program = found.items[0].entry.program
    assert program is not None and program.cases() == [Case("4 5", "9")] and program.checker == "import sys"
    assert (program.language, program.time_limit, program.memory_limit) == (language, 2.0, 256.0)
    assert f"```{language}" in found.items[0].plain and found.items[0].entry.level == 800


def test_humaneval_is_continued_by_models_without_a_template(tmp_path: Path) -> None:
    stub = 'def f(a: int) -> int:\n    """Twice a."""\n'
    write_jsonl(
        tmp_path / "HumanEval.jsonl",
        {"task_id": "HumanEval/0", "prompt": stub, "entry_point": "f", "test": "def check(f):\n    assert f(1) == 2\n"},
    )
    (asked,) = benchmarks.load(benchmarks.shipped("humaneval"), tmp_path).items
    assert asked.plain == stub and asked.messages[0]["content"].endswith(f"```python\n{stub}```")
    assert asked.entry.program is not None and asked.entry.program.entry_point == "f"


def test_a_users_toml_names_a_schema_and_other_fields(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "mine.jsonl", {"q": "1+1?", "a": 2, "kind": "sum"}, {"q": "2*3?", "a": 6, "kind": "product"})
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nfile = "mine.jsonl"\nschema = "math"\nprompt = "math-1"\nscorer = "math"\n'
        '[fields]\nproblem = "q"\nanswer = "a"\n[only]\nkind = "product"\n'
    )
    found = benchmarks.load(benchmarks.read_definition(path), files=[tmp_path / "mine.jsonl"])
    assert [(a.entry.id, a.entry.gold) for a in found.items] == [("2", "6")]
    for old, new, says in (
        ('"math-1"', '"math-9"', "prompt 'math-9' is none of"),
        ('schema = "math"', 'schema = "x"', "schema 'x' is none"),
        ('prompt = "math-1"\n', "", "need one of prompts.toml"), ('file = "mine.jsonl"\n', "", "names no file"),
        ('scorer = "math"', 'scorer = "luck"', "scorer 'luck' is none of exact, math, choice, code"),
    ):  # fmt: skip
        other = tmp_path / "other.toml"
        other.write_text(path.read_text().replace(old, new))
        with pytest.raises(BadInput, match=says):
            benchmarks.read_definition(other)


def test_a_json_list_is_read_and_filtered(tmp_path: Path) -> None:
    row = {"_id": "a", "question": "Who?", "choice_A": "I", "choice_B": "you", "choice_C": "he", "choice_D": "it",
           "answer": "C", "context": "He did.", "length": "short"}  # fmt: skip
    buffer = io.BytesIO()
    buffer.write(
        b"\xef\xbb\xbf[" + b",".join(benchmarks_json({**row, "length": n, "_id": n}) for n in ("short", "long"))
    )
    (tmp_path / "longbench_v2").mkdir()
    (tmp_path / "longbench_v2" / "data.json").write_bytes(buffer.getvalue() + b"]")
    (asked,) = benchmarks.load(benchmarks.shipped("longbench-v2-short"), tmp_path).items
    assert asked.entry.gold == "C" and "<text>\nHe did.\n</text>" in asked.plain and "C) he" in asked.plain


def benchmarks_json(row: dict[str, str]) -> bytes:
    import json

    return json.dumps(row).encode()
