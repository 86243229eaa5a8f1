"""Published sets to questions: schemas as published, duplicates, splits, what is left out, bad input, real files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.tasks import boxed, is_right
from pipo.data.imports import import_questions
from pipo.data.questions import Question, read_questions
from pipo.data.sets import BOX
from pipo.errors import BadInput, BadRecord
from tests.unit.data_chat import write

FRAME = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)


def dapo(question: str, answer: str, index: str, frame: str = FRAME) -> dict[str, Any]:
    return {
        "data_source": "math_dapo", "prompt": [{"content": frame.format(question), "role": "user"}],
        "ability": "MATH", "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }  # fmt: skip


PROBLEM = {
    "id": "1/A", "aliases": None, "contest_id": "1", "contest_start": 1266580800, "index": "A", "time_limit": 1.0,
    "memory_limit": 64.0, "title": "Theatre Square", "description": "How many flagstones?", "input_format": "n, m, a.",
    "output_format": "The number.", "interaction_format": None, "note": None, "rating": 1000,
    "examples": [{"input": "6 6 4\n", "output": "4\n"}],
    "official_tests": [{"input": "6 6 4\n", "output": "4\n"}, {"input": "1 1 1\n", "output": "1\n"}],
    "official_tests_complete": True, "input_mode": "stdio", "generated_checker": None, "executable": True,
}  # fmt: skip


def imported(tmp_path: Path, kind: str, *rows: Any, **more: Any) -> tuple[list[Question], dict[str, Any]]:
    report = import_questions(kind, [write(tmp_path / "set.jsonl", *rows)], tmp_path / "q.jsonl", **more)
    return read_questions(tmp_path / "q.jsonl"), report


def test_dapo_questions_lose_their_frame_and_ask_for_a_box(tmp_path: Path) -> None:
    (question,), _ = imported(tmp_path, "dapo-math", dapo("What is $1+1$?\n\nGive it as an integer.", "2", "9a9b"))
    assert question == Question(
        id="9a9b", task="dapo-math", answer="2",
        messages=[{"role": "user", "content": f"What is $1+1$?\n\nGive it as an integer.\n\n{BOX}"}],
    )  # fmt: skip


def test_a_dapo_question_without_a_frame_stays_as_it_is(tmp_path: Path) -> None:
    (question,), _ = imported(tmp_path, "dapo-math", {**dapo("", "2", "x"), "prompt": "Solve x = 2.\n\nTwice."})
    assert question.messages == [{"role": "user", "content": f"Solve x = 2.\n\nTwice.\n\n{BOX}"}]


def test_questions_that_came_before_are_counted(tmp_path: Path) -> None:
    """The published file has each question about a hundred times."""
    rows = [dapo(f"What is {n}?", str(n), f"i{n}") for n in range(3)] * 4 + [dapo("What  is 1?", "7", "other")]
    questions, report = imported(tmp_path, "dapo-math", *rows)
    assert [q.answer for q in questions] == ["0", "1", "2"]
    assert report["rows"] == 13 and report["questions"] == 3
    assert report["left_out"]["came before"]["count"] == 9
    assert report["left_out"]["came before with another answer"] == {"count": 1, "rows": [f"{tmp_path}/set.jsonl:13"]}
    assert json.loads((tmp_path / "q.jsonl.report.json").read_text()) == report


def test_a_codeforces_statement_is_put_together(tmp_path: Path) -> None:
    (question,), _ = imported(tmp_path, "codeforces", {**PROBLEM, "note": "Round up.", "generated_checker": "check()"})
    assert question.messages is not None
    text = question.messages[0]["content"]
    pieces = ["Theatre Square", "Time limit: 1 seconds", "Memory limit: 64 megabytes", "How many flagstones?",
              "Input\nn, m, a.", "Output\nThe number.", "Example 1\nInput:\n6 6 4\nOutput:\n4", "Note\nRound up.",
              "```python"]  # fmt: skip
    places = [text.index(p) for p in pieces]
    assert places == sorted(places)
    assert question.tests == PROBLEM["official_tests"] and question.answer is None and question.checker == "check()"
    assert (question.id, question.level, question.time_limit, question.memory_limit) == ("1/A", 1000, 1.0, 64.0)


def test_codeforces_problems_that_no_program_can_be_tested_on_are_left_out(tmp_path: Path) -> None:
    bare = {**PROBLEM, "id": "2/B", "title": "other", "official_tests": None}
    rows = [bare, {**PROBLEM, "interaction_format": "ask"}, {**PROBLEM, "input_mode": "file"},
            {**PROBLEM, "description": None}, {**PROBLEM, "official_tests": [], "examples": None}]  # fmt: skip
    (question,), report = imported(tmp_path, "codeforces", *rows)
    assert question.tests == PROBLEM["examples"], "without official tests the examples are the tests"
    assert {r: n["count"] for r, n in report["left_out"].items()} == {
        "interactive": 1, "reads files": 1, "no statement": 1, "no tests": 1
    }  # fmt: skip


def test_gsm8k_answers_stand_behind_four_hashes(tmp_path: Path) -> None:
    rows = [{"question": "How much?", "answer": "1,000 + 80 = <<1000+80=1080>>1080\n#### $1,080"}]
    (question,), _ = imported(tmp_path, "gsm8k", *rows)
    assert (question.answer, question.id, question.task) == ("1080", "1", "gsm8k")


def test_chats_lose_their_answer_and_keep_their_system(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "four"}]
    rows = [{"messages": talk, "answer": 4, "system": "so", "id": 7, "task": "adding"}, {"messages": talk[:1]},
            {"messages": talk[1:], "answer": "4"}]  # fmt: skip
    (question,), report = imported(tmp_path, "messages", *rows)
    assert question == Question(
        id="7", task="adding", answer="4", messages=[{"role": "system", "content": "so"}, talk[0]]
    )  # fmt: skip
    assert set(report["left_out"]) == {"no answer to score by", "no question in it"}


def test_plain_questions_are_prompts(tmp_path: Path) -> None:
    (question,), _ = imported(tmp_path, "math", {"problem": "1 + 1", "answer": 2, "unique_id": "u"}, plain=True)
    assert question == Question(id="u", task="math", prompt=f"1 + 1\n\n{BOX}", answer="2")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(2, 60), sft=st.integers(1, 99), seed=st.integers(0, 5))
def test_a_split_shares_out_every_question_once(tmp_path: Path, n: int, sft: int, seed: int) -> None:
    file = write(tmp_path / "set.jsonl", *({"problem": f"is {i}", "answer": i, "id": i} for i in range(n)))
    cut = [tmp_path / "q-sft.jsonl", tmp_path / "q-opd.jsonl"]
    import_questions("math", [file], tmp_path / "q.jsonl", split=f"{sft}/{100 - sft}", seed=seed)
    ids = [[int(q.id) for q in read_questions(path)] for path in cut]
    assert sorted(ids[0] + ids[1]) == list(range(n)) and all(part == sorted(part) for part in ids)
    assert len(ids[0]) == min(max(round(sft * n / 100), 1), n - 1)
    before = [path.read_bytes() for path in cut]
    import_questions("math", [file], tmp_path / "q.jsonl", split=f"{sft}/{100 - sft}", seed=seed)
    assert [path.read_bytes() for path in cut] == before, "the same seed, the same split"


def test_another_seed_splits_otherwise(tmp_path: Path) -> None:
    file = write(tmp_path / "set.jsonl", *({"problem": f"is {i}", "answer": i} for i in range(50)))
    found = set()
    for seed in range(3):
        import_questions("math", [file], tmp_path / "q.jsonl", split="90/10", seed=seed)
        found.add((tmp_path / "q-opd.jsonl").read_bytes())
    assert len(found) == 3


def test_a_folder_gives_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for name in ("b", "a"):
        write(tmp_path / "set" / "data" / f"{name}.jsonl", {"problem": f"is {name}", "answer": "1"})
    (tmp_path / "set" / "README.md").write_text("# no rows")
    (tmp_path / "set" / ".cache").mkdir()
    write(tmp_path / "set" / ".cache" / "c.jsonl", "what a download left")
    import_questions("math", [tmp_path / "set"], tmp_path / "q.jsonl")
    questions = read_questions(tmp_path / "q.jsonl")
    assert [q.messages[0]["content"][:4] for q in questions if q.messages] == ["is a", "is b"]
    assert [q.id for q in questions] == ["1", "1-1"], "numbers of two files made different"


def test_limit_takes_the_first_questions(tmp_path: Path) -> None:
    rows = [dapo(f"What is {n // 2}?", str(n // 2), f"i{n}") for n in range(10)]
    questions, report = imported(tmp_path, "dapo-math", *rows, limit=3)
    assert len(questions) == 3 and report["rows"] == 5


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: parquet cannot be written here")
    for kind, rows in (
        ("dapo-math", [dapo("a", "1", "x"), dapo("b", "2", "y")]),
        ("codeforces", [PROBLEM, {**PROBLEM, "id": "2/B", "description": "And now?", "rating": None, "note": "So."}]),
    ):
        pandas.DataFrame(rows).to_parquet(tmp_path / "set.parquet")
        import_questions(kind, [tmp_path / "set.parquet"], tmp_path / "p.jsonl")
        imported(tmp_path, kind, *rows)
        assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "q.jsonl").read_bytes()


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"needs pyarrow \(`pip install pyarrow`\); or give the set as JSONL"):
        import_questions("dapo-math", [tmp_path / "set.parquet"], tmp_path / "q.jsonl")


def test_a_broken_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: parquet cannot be read here")
    (tmp_path / "set.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadInput, match=r"set\.parquet is no parquet file that can be read"):
        import_questions("dapo-math", [tmp_path / "set.parquet"], tmp_path / "q.jsonl")


BAD_ROWS = [
    ("dapo-math", {"question": "a", "answer": "#### 1"}, "field 'prompt' is None, not a list of messages"),
    ("dapo-math", {"prompt": [{"content": "a"}] * 2, "reward_model": {}}, "not one message"),
    ("dapo-math", {"prompt": "a", "reward_model": {"style": "rule"}}, "without a 'ground_truth'"),
    ("gsm8k", {"question": "a", "answer": "1"}, "field 'answer' '1' has no '####'"),
    ("gsm8k", {"question": 3, "answer": "#### 1"}, "field 'question' is 3, no text"),
    ("gsm8k", {"problem": "a"}, r"no field 'question' among \['problem'\]"),
    ("math", {"problem": "a"}, "no field 'expected_answer' or 'answer'"),
    ("codeforces", {"title": "a"}, r"no field 'id' among \['title'\]"),
    ("codeforces", {**PROBLEM, "examples": "6 6 4"}, "field 'examples' is '6 6 4', not a list of tests"),
    ("codeforces", {**PROBLEM, "time_limit": "1 s"}, "field 'time_limit' is '1 s', no number"),
    ("messages", {"messages": "a"}, "field 'messages' is 'a', not a list of messages"),
    ("messages", {"messages": [{"role": "user"}]}, r"no field 'content' among \['role'\]"),
    ("math", [1], r"\[1\] is no JSON object"),
]


@pytest.mark.parametrize(("kind", "row", "words"), BAD_ROWS, ids=[f"{k}: {w[:30]}" for k, _, w in BAD_ROWS])
def test_rows_of_another_set_are_named(tmp_path: Path, kind: str, row: Any, words: str) -> None:
    with pytest.raises(BadRecord, match=rf"set\.jsonl:1: .*{words}"):
        imported(tmp_path, kind, row)
    assert not (tmp_path / "q.jsonl").exists()


BAD_SETTINGS = [
    ("chess", {}, "unknown set 'chess'; known are dapo-math, codeforces, gsm8k, math, messages"),
    ("math", {"split": "90"}, "split '90' must read SFT/OPD, two whole numbers above 0, e.g. 90/10"),
    ("math", {"split": "100/0"}, "split '100/0' must read"),
    ("math", {"split": "90/10"}, "1 question cannot be split in two"),
    ("math", {"limit": 0}, "limit 0 must be at least 1"),
]


@pytest.mark.parametrize(("kind", "more", "words"), BAD_SETTINGS)
def test_settings_out_of_range(tmp_path: Path, kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        imported(tmp_path, kind, {"problem": "a", "answer": "1"}, **more)


def test_files_that_give_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.jsonl is not a file; .* see `pipo data pull`"):
        import_questions("math", [tmp_path / "absent.jsonl"], tmp_path / "q.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty holds no \.jsonl or \.parquet file"):
        import_questions("math", [tmp_path / "empty"], tmp_path / "q.jsonl")
    with pytest.raises(BadInput, match=r"gave no question \(no rows at all\)"):
        import_questions("math", [write(tmp_path / "none.jsonl")], tmp_path / "q.jsonl")
    with pytest.raises(BadInput, match=r"gave no question \(interactive: 1\)"):
        imported(tmp_path, "codeforces", {**PROBLEM, "interaction_format": "ask"})


def test_real_gsm8k(shared_folder: Path, tmp_path: Path) -> None:
    report = import_questions("gsm8k", [shared_folder / "data" / "gsm8k_test.jsonl"], tmp_path / "q.jsonl")
    questions = read_questions(tmp_path / "q.jsonl")
    assert report["rows"] == report["questions"] == len(questions) == 1319 and report["left_out"] == {}
    assert questions[0].answer == "18"
    for q in questions:
        assert q.answer is not None and float(q.answer) == int(float(q.answer)), "whole numbers all of them"
        assert is_right(boxed(f"so \\boxed{{{q.answer}}}."), q.answer)


def test_real_aime(shared_folder: Path, tmp_path: Path) -> None:
    paths = [shared_folder / "data" / f"aime{year}.jsonl" for year in (2024, 2025)]
    report = import_questions("math", paths, tmp_path / "q.jsonl", split="90/10")
    sft, opd = (read_questions(tmp_path / f"q-{name}.jsonl") for name in ("sft", "opd"))
    assert report["questions"] == 60 and (len(sft), len(opd)) == (54, 6)
    assert all(q.answer and q.answer.isdecimal() and 0 <= int(q.answer) <= 999 for q in [*sft, *opd])
    assert "aime25-0" in {q.id for q in [*sft, *opd]}
