"""Files of benchmarks: real ones counted, broken ones named with their line, absent ones with a way out."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo.data import benchmarks
from pipo.errors import BadInput, BadRecord
from tests.unit.benchmark_rows import gpqa_row, lcb_row, write_csv, write_jsonl

MATH = {"problem": "1+1?", "answer": "2", "unique_id": "a"}
MMLU = {"question": "Who?", "choices": ["I", "you"], "answer": 1, "type": "t"}
HUMAN = {"task_id": "h/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f): pass"}
LONG = {"_id": "a", "question": "Who?", "choice_A": "I", "choice_B": "you", "choice_C": "he", "choice_D": "it",
        "answer": "C", "context": "He did.", "length": "short"}  # fmt: skip
REAL = {
    "aime2024": 30, "aime2025": 30, "math500": 500, "gsm8k": 1319, "mmlu-stem": 3018, "humaneval": 164,
    "longbench-v2-short": 180,
}  # fmt: skip


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in keys}


def load(name: str, folder: Path) -> benchmarks.Benchmark:
    return benchmarks.load(benchmarks.shipped(name), folder)


@pytest.mark.parametrize("name", REAL)
def test_the_published_items_are_all_there(name: str, shared_folder: Path) -> None:
    found = load(name, shared_folder / "data")
    of = found.definition
    assert len(found.items) == REAL[name] == of.items and found.left_out == {}
    assert len({a.entry.id for a in found.items}) == REAL[name]
    for asked in found.items:
        entry = asked.entry
        assert entry.gold.strip() == entry.gold and bool(entry.gold) == (of.scorer != "code"), entry.id
        assert of.scorer != "choice" or entry.gold in "ABCD"
        assert of.scorer != "math" or asked.plain.endswith("within \\boxed{}.")
        assert of.scorer != "code" or (entry.program is not None and entry.program.entry_point in asked.plain)
    same = len(found.items) - len({a.plain for a in found.items})
    assert same == (12 if name == "mmlu-stem" else 0), "twelve questions of MMLU stand in it twice"
    assert any("word for word" in n for n in found.notes) == (same > 0)


def test_the_golds_of_aime_are_whole_numbers(shared_folder: Path) -> None:
    for name in ("aime2024", "aime2025"):
        golds = [a.entry.gold for a in load(name, shared_folder / "data").items]
        assert all(g.isdecimal() and 0 <= int(g) <= 999 for g in golds)


def test_documents_keep_their_line_breaks(shared_folder: Path) -> None:
    lengths = [len(a.plain) for a in load("longbench-v2-short", shared_folder / "data").items]
    assert min(lengths) > 49_000 and max(lengths) > 840_000


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_a_missing_file_says_the_way_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPO_DATA", raising=False)
    of = benchmarks.shipped(name)
    with pytest.raises(BadInput, match=f"^{name}: no .*{tmp_path}.*pipo data pull {of.hub}.*--data or PIPO_DATA$") as e:
        load(name, tmp_path)
    assert "\n" not in str(e.value)
    with pytest.raises(BadInput, match="is no folder"):
        load(name, tmp_path / "none")


def test_folders_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("PIPO_HOME", str(home))
    monkeypatch.delenv("PIPO_DATA", raising=False)
    pulled = write_jsonl(home / "data" / "HuggingFaceH4" / "MATH-500" / "test.jsonl", MATH)
    assert benchmarks.find(benchmarks.shipped("math500")) == [pulled]
    mine = write_jsonl(tmp_path / "mine" / "math500.jsonl", MATH)
    monkeypatch.setenv("PIPO_DATA", str(tmp_path / "mine"))
    assert benchmarks.find(benchmarks.shipped("math500")) == [mine]
    named = write_jsonl(tmp_path / "named" / "math500.jsonl", MATH)
    assert benchmarks.find(benchmarks.shipped("math500"), tmp_path / "named") == [named]


@pytest.mark.parametrize(
    ("name", "file", "rows", "says"),
    [
        ("math500", "math500.jsonl", [MATH, {**MATH, "unique_id": "b", "answer": " "}], ":2: no gold: .*'answer'"),
        ("math500", "math500.jsonl", [MATH, without(MATH, "answer")], ":2: no field 'expected_answer' or 'answer'"),
        ("math500", "math500.jsonl", [MATH, {**MATH, "problem": "other"}], ":2: id 'a' came before, in .*:1"),
        ("math500", "math500.jsonl", [{**MATH, "problem": ["x"]}], ":1: field 'problem' is .*, no text"),
        ("math500", "math500.jsonl", [MATH, 7], ":2: 7 is no JSON object"),
        ("math500", "math500.jsonl", [], "no item of math500"),
        ("gsm8k", "gsm8k_test.jsonl", [{"question": "q", "answer": "it is 4"}], ":1: .*has no '####'"),
        ("gsm8k", "gsm8k_test.jsonl", [{"question": "q", "answer": "it is\n####  "}], ":1: no gold"),
        ("gsm8k", "gsm8k_test.jsonl", [MATH], ":1: no field 'question'.*schema 'gsm8k'"),
        ("mmlu-stem", "mmlu_stem.jsonl", [{**MMLU, "answer": 2}], ":1: no gold: choice 2 of 2 does not exist"),
        ("mmlu-stem", "mmlu_stem.jsonl", [{**MMLU, "answer": None}], ":1: no gold: field 'answer' is None"),
        ("mmlu-stem", "mmlu_stem.jsonl", [{**MMLU, "answer": True}], ":1: no gold: field 'answer' is True"),
        ("mmlu-stem", "mmlu_stem.jsonl", [{**MMLU, "choices": "AB"}], ":1: field 'choices' is 'AB'"),
        ("mmlu-stem", "mmlu_stem.jsonl", [{**MMLU, "choices": ["a"], "answer": 0}], ":1: 1 choices"),
        ("mmlu-stem", "mmlu_stem.jsonl", [{**MMLU, "choices": ["a", " "]}], ":1: field 'choice B' is empty"),
        ("longbench-v2-short", "longbench_v2_short.jsonl", [{**LONG, "answer": "E"}], ":1: no gold: .* is 'E'"),
        ("longbench-v2-short", "longbench_v2_short.jsonl", [{**LONG, "context": ""}], ":1: field 'context' is empty"),
        ("longbench-v2-short", "longbench_v2_short.jsonl", [without(LONG, "length")], ":1: no field 'length'"),
        ("longbench-v2-short", "longbench_v2_short.jsonl", [{**LONG, "length": "long"}], "no item of longbench"),
        ("humaneval", "HumanEval.jsonl", [without(HUMAN, "test")], ":1: no field 'test'"),
        ("humaneval", "HumanEval.jsonl", [{**HUMAN, "test": ""}], ":1: no gold: field 'test' is empty"),
        ("livecodebench", "livecodebench.jsonl", [without(lcb_row(), "contest_date")], ":1: no field 'contest_date'"),
        ("livecodebench", "livecodebench.jsonl", [lcb_row(day="2024-12-01")], "no item of livecodebench"),
        ("livecodebench", "livecodebench.jsonl", [lcb_row(public_test_cases="[")], ":1: .*must be JSON in a text"),
        ("livecodebench", "livecodebench.jsonl", [lcb_row(public_test_cases="[]", private_test_cases="")], "no gold"),
        ("livecodebench", "livecodebench.jsonl", [lcb_row(starter_code="x")], ":1: .*no 'func_name'"),
        ("codeforces-cpp", "codeforces_test.jsonl", [{"id": "1", "description": "d"}], "no item .*1 left out"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_with_their_line(name: str, file: str, rows: list[Any], says: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / file, *rows)
    with pytest.raises(BadRecord, match=says) as e:
        load(name, tmp_path)
    assert file in str(e.value)


def test_parquet_as_the_hub_has_it(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow, which pipo does not ask for")
    import pandas

    mmlu, gsm8k = tmp_path / "TIGER-Lab/MMLU-STEM/data", tmp_path / "openai/gsm8k/main"
    for folder in (mmlu, gsm8k):
        folder.mkdir(parents=True)
    pandas.DataFrame([MMLU, {**MMLU, "answer": 0}]).to_parquet(mmlu / "test-00000-of-00001.parquet")
    pandas.DataFrame([{"question": "q", "answer": "#### 4"}]).to_parquet(gsm8k / "test-00000-of-00001.parquet")
    pandas.DataFrame([{"question": "q", "answer": "#### 5"}]).to_parquet(gsm8k / "train-00000-of-00001.parquet")
    assert [a.entry.gold for a in load("mmlu-stem", tmp_path).items] == ["B", "A"]
    assert [a.entry.gold for a in load("gsm8k", tmp_path).items] == ["4"]
    pandas.DataFrame([MMLU, {**MMLU, "answer": 5}]).to_parquet(mmlu / "test-00000-of-00001.parquet")
    with pytest.raises(BadRecord, match=r"parquet: row 1: no gold: choice 5 of 2"):
        load("mmlu-stem", tmp_path)
    (mmlu / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="is no parquet file"):
        load("mmlu-stem", tmp_path)


LINES = [json.dumps({**MATH, "unique_id": str(n), "problem": f"How much is {n}+{n}?"}) + "\n" for n in range(400)]
TEXT = "".join(LINES).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            LINES[0].encode() + '{"problem": "caf\xe9", "answer": "1"}\n'.encode("latin-1"),
            r"math500\.jsonl:2: .* no JSON",
        ),
        (TEXT.decode().encode("utf-16"), r"math500\.jsonl:1: .* no JSON"),
        (LINES[0].encode() + b"\xef\xbb\xbf" + LINES[1].encode(), r"math500\.jsonl:2: .* no JSON"),
        (TEXT[:-9], r"math500\.jsonl:400: the last line is torn"),
        (b"<html>\n" + TEXT, r"math500\.jsonl:1: .* no JSON"),
        (gzip.compress(TEXT), r"math500\.jsonl:1: .* no JSON"),
    ],
)
def test_encodings_and_torn_lines_are_named(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "math500.jsonl").write_bytes(content)
    with pytest.raises(BadRecord, match=says):
        load("math500", tmp_path)


def test_a_byte_order_mark_in_front_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "math500.jsonl").write_bytes(b"\xef\xbb\xbf" + TEXT)
    assert len(load("math500", tmp_path).items) == 400


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_torn_packed_file_is_named_with_its_last_line(
    suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"mine.jsonl{suffix}"
    of = benchmarks.shipped("math500")
    path.write_bytes(pack(TEXT))
    whole = benchmarks.load(of, files=[path])
    (tmp_path / "math500.jsonl").write_bytes(TEXT)
    assert whole.items == load("math500", tmp_path).items and whole.fingerprint == load("math500", tmp_path).fingerprint
    for content in (pack(TEXT)[:-40], pack(TEXT)[:60], TEXT, b"", pack(TEXT)[:-40] + b"\x00" * 40):
        path.write_bytes(content)
        with pytest.raises(BadRecord, match=rf"mine\.jsonl{suffix}(:\d+: unpacking fails|: no item)"):
            benchmarks.load(of, files=[path])


def test_a_csv_is_named_with_the_line_a_row_begins_on(tmp_path: Path) -> None:
    path = tmp_path / "gpqa_diamond.csv"
    write_csv(path, [gpqa_row(1), gpqa_row(2, **{"Correct Answer": " "})])
    with pytest.raises(BadRecord, match=r"gpqa_diamond\.csv:5: field 'choice A' is empty"):
        load("gpqa-diamond", tmp_path)
    write_csv(path, [gpqa_row(1), gpqa_row(2, Question="caf\xe9")], encoding="latin-1")
    with pytest.raises(BadRecord, match=r"gpqa_diamond\.csv:5: byte 0xe9 is no UTF-8"):
        load("gpqa-diamond", tmp_path)
    path.write_bytes(write_csv(path, [gpqa_row(1), gpqa_row(2)]).read_bytes()[:-25])
    with pytest.raises(BadRecord, match=r"gpqa_diamond\.csv:5: a row of another length"):
        load("gpqa-diamond", tmp_path)
    path.write_bytes(path.read_bytes().replace(b'please."', b"please."))
    with pytest.raises(BadRecord, match=r"gpqa_diamond\.csv:\d+: "):
        load("gpqa-diamond", tmp_path)
    write_csv(path, [gpqa_row(1), gpqa_row(2)], encoding="utf-8-sig")
    assert len(load("gpqa-diamond", tmp_path).items) == 2
