"""From roll-outs to training files: what is kept, what is dropped and why, shards together, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipo.data.build import build_opd, build_sft
from pipo.data.lines import write_lines
from pipo.data.rows import read_prompts, read_rows
from pipo.data.runs import RolloutRun
from pipo.errors import BadInput, BadRecord
from tests.unit.data_chat import chat_tokenizer
from tests.unit.rollout_runs import PAD, sample, write_run

LOOP = [1, 2, 3, 4] + [7, 8, 9] * 20 + [5]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> RolloutRun:
    folder = write_run(
        tmp_path / "run",
        sample("q1", 0, True, 9), sample("q1", 1, True, 4), sample("q1", 2, True, 4), sample("q1", 3, False),
        sample("q0", 0, False), sample("q0", 1, True, ids=LOOP), sample("q0", 2, False, finish="slots"),
        sample("q0", 3, False, finish="failed"),
        sample("q2", 0, True, ids=list(range(100, 125)) * 3 + [5]), sample("q2", 1, True, 30),
    )  # fmt: skip
    return RolloutRun(folder)


def kept(path: Path) -> list[tuple[str, int]]:
    return [(r["id"], r["sample"]) for r in lines(path)]


def test_all_right_answers_are_kept_in_the_questions_order(run: RolloutRun, tmp_path: Path) -> None:
    report = build_sft([run], tmp_path / "sft.jsonl")
    assert kept(tmp_path / "sft.jsonl") == [("q0", 1), ("q1", 0), ("q1", 1), ("q1", 2), ("q2", 0), ("q2", 1)]
    assert lines(tmp_path / "sft.jsonl")[0] == {
        "id": "q0", "task": "toy", "sample": 1, "prompt": "what is q0", "response": "q0 1 <eos>"
    }  # fmt: skip
    assert {reason: d["count"] for reason, d in report["dropped"].items()} == {
        "cut by the budget": 1, "failed": 1, "wrong": 2
    }  # fmt: skip
    assert (report["considered"], report["kept"], report["questions"]) == (10, 6, 3)
    assert report["tokens"]["sum"] == 9 + 4 + 4 + len(LOOP) + 76 + 30


def test_the_report_lies_beside_the_file(run: RolloutRun, tmp_path: Path) -> None:
    report = build_sft([run], tmp_path / "sft.jsonl", max_length=40)
    assert json.loads((tmp_path / "sft.jsonl.report.json").read_text()) == json.loads(json.dumps(report))
    assert report["dropped"]["longer than max_length"] == {"count": 2, "ids": ["toy/q0/1", "toy/q2/0"]}
    assert report["settings"]["max_length"] == 40
    (source,) = report["sources"]
    assert (source["folder"], source["k"], source["finished"]) == (str(run.folder), 2, True)


def test_shortest_keeps_one_answer_a_question(run: RolloutRun, tmp_path: Path) -> None:
    report = build_sft([run], tmp_path / "sft.jsonl", shortest=True)
    assert kept(tmp_path / "sft.jsonl") == [("q0", 1), ("q1", 1), ("q2", 1)], "of two as short, the first"
    assert report["dropped"]["not the shortest of its question"]["ids"] == ["toy/q1/2", "toy/q1/0", "toy/q2/0"]


def test_max_length_counts_the_prompt(run: RolloutRun, tmp_path: Path) -> None:
    build_sft([run], tmp_path / "sft.jsonl", max_length=3 + 9)
    assert ("q1", 0) in kept(tmp_path / "sft.jsonl")
    build_sft([run], tmp_path / "sft.jsonl", max_length=3 + 8)
    assert kept(tmp_path / "sft.jsonl") == [("q1", 1), ("q1", 2)]


def test_repeating_answers_are_dropped_when_asked(run: RolloutRun, tmp_path: Path) -> None:
    report = build_sft([run], tmp_path / "sft.jsonl", max_repeats=2)
    assert report["dropped"]["ends in a loop"]["ids"] == ["toy/q0/1"]
    assert report["dropped"]["20 tokens repeated more than 2 times"]["ids"] == ["toy/q2/0"]
    report = build_sft([run], tmp_path / "sft.jsonl", max_repeats=3)
    assert "20 tokens repeated more than 3 times" not in report["dropped"] and ("q2", 0) in kept(tmp_path / "sft.jsonl")


def test_pads_of_pairs_are_not_looked_at(tmp_path: Path) -> None:
    ids = [i for t in range(10, 80) for i in (t, PAD)]
    run = RolloutRun(write_run(tmp_path / "pairs", sample("q0", 0, True, ids=ids)))
    assert build_sft([run], tmp_path / "sft.jsonl", max_repeats=1, ngram=2)["kept"] == 1


@pytest.mark.parametrize(("rho", "questions"), [(0, ["q0", "q1", "q2"]), (0.5, ["q1", "q2"]), (0.75, ["q1", "q2"]),
                                                (0.76, ["q2"]), (1, ["q2"])])  # fmt: skip
def test_opd_keeps_questions_that_are_solved_often_enough(
    run: RolloutRun, tmp_path: Path, rho: float, questions: list[str]
) -> None:
    report = build_opd([run], tmp_path / "opd.jsonl", rho=rho)
    rows = lines(tmp_path / "opd.jsonl")
    assert [r["id"] for r in rows] == questions
    assert rows[-1] == {"id": "q2", "task": "toy", "prompt": "what is q2", "answer": "4", "accuracy": 1.0, "samples": 2}
    assert report["dropped"].get("below rho", {"count": 0})["count"] == 3 - len(questions)


def test_runs_together_are_the_run_that_holds_all(run: RolloutRun, tmp_path: Path) -> None:
    """Samples of one question in two runs count together; order and repetition of runs change nothing."""
    samples = [sample("q0", n, n == 0) for n in range(2)] + [sample("q1", n, True) for n in range(2)]
    more = [sample("q0", n, True, seed=99 + n) for n in range(2)]
    first, second = (
        RolloutRun(write_run(tmp_path / name, *rows)) for name, rows in (("a", samples), ("b", more))
    )  # fmt: skip
    build_opd([first, second], tmp_path / "both.jsonl", rho=0.75)
    assert [(r["id"], r["accuracy"], r["samples"]) for r in lines(tmp_path / "both.jsonl")] == [
        ("q0", 0.75, 4), ("q1", 1.0, 2)
    ]  # fmt: skip
    build_opd([second, first, second], tmp_path / "again.jsonl", rho=0.75)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "both.jsonl").read_bytes()
    report = build_sft([second, first, second], tmp_path / "sft.jsonl")
    assert report["dropped"]["same sample twice"]["count"] == 2 and report["kept"] == 5


def test_files_are_read_by_the_trainer(run: RolloutRun, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    build_sft([run], tmp_path / "sft.jsonl")
    build_opd([run], tmp_path / "opd.jsonl")
    rows = read_rows(tmp_path / "sft.jsonl", tokenizer).rows
    assert tokenizer.decode(rows[1].prompt) == "what is q1" and tokenizer.decode(rows[1].response) == "q1 0 <eos>"
    assert [tokenizer.decode(p) for p in read_prompts(tmp_path / "opd.jsonl", tokenizer)] == [
        "what is q1",
        "what is q2",
    ]


def test_a_torn_record_is_left_out(run: RolloutRun, tmp_path: Path) -> None:
    with open(run.folder / "records.jsonl", "a") as f:
        f.write('{"type":"sample","task":"toy","item":"q0"')
    assert build_sft([run], tmp_path / "sft.jsonl")["considered"] == 10


def test_nothing_kept_writes_nothing(run: RolloutRun, tmp_path: Path) -> None:
    (tmp_path / "sft.jsonl").write_text("what was there\n")
    with pytest.raises(
        BadInput, match=r"none of 10 samples is kept \(cut by the budget: 1, failed: 1, longer than max"
    ):
        build_sft([run], tmp_path / "sft.jsonl", max_length=2)
    never = RolloutRun(write_run(tmp_path / "never", sample("q0", 0, False)))
    with pytest.raises(BadInput, match=r"none of 1 questions is solved in 0\.5 of its samples; lower rho"):
        build_opd([never], tmp_path / "sft.jsonl")
    assert (tmp_path / "sft.jsonl").read_text() == "what was there\n"


@pytest.mark.parametrize(("settings", "words"), [({"max_length": 1}, "max_length 1 must be at least 2"),
                                                 ({"max_repeats": 0}, "max_repeats 0 must be at least 1"),
                                                 ({"ngram": 1}, "ngram 1 must be at least 2")])  # fmt: skip
def test_settings_out_of_range(run: RolloutRun, tmp_path: Path, settings: dict[str, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        build_sft([run], tmp_path / "x.jsonl", **settings)


@pytest.mark.parametrize("rho", [-0.1, 1.1, float("nan")])
def test_rho_out_of_range(run: RolloutRun, tmp_path: Path, rho: float) -> None:
    with pytest.raises(BadInput, match=r"rho .* must lie in \[0, 1\]"):
        build_opd([run], tmp_path / "x.jsonl", rho=rho)


def test_a_folder_or_its_records_may_be_named(run: RolloutRun) -> None:
    assert RolloutRun(run.folder / "records.jsonl").questions == run.questions


def test_what_is_no_run_of_rollouts_is_refused(run: RolloutRun, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere holds no records\.jsonl; name the folder of a finished"):
        RolloutRun(tmp_path / "nowhere")
    other = Path(shutil.copytree(run.folder, tmp_path / "other"))
    (other / "questions.jsonl").unlink()
    with pytest.raises(BadInput, match="its job is no roll-out, and prompts are not in records"):
        RolloutRun(other)
    (other / "questions.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(BadRecord, match=r"questions\.jsonl:1: .* is no question of a run"):
        RolloutRun(other)
    (other / "questions.jsonl").write_bytes((run.folder / "questions.jsonl").read_bytes())
    (other / "run.json").write_text("[]")
    with pytest.raises(BadRecord, match=r"run\.json is no header of a run"):
        RolloutRun(other)


def test_records_of_other_questions_are_refused(run: RolloutRun, tmp_path: Path) -> None:
    write_lines(run.folder / "questions.jsonl", [{"id": "q0", "task": "toy", "prompt": "what is q0"}])
    with pytest.raises(BadRecord, match=r"records\.jsonl:1: toy/q1 is none of the questions"):
        build_sft([RolloutRun(run.folder)], tmp_path / "x.jsonl")


def test_a_broken_record_is_named(run: RolloutRun, tmp_path: Path) -> None:
    path = run.folder / "records.jsonl"
    path.write_text(path.read_text().replace('"correct":true', '"correct":"yes"', 1))
    with pytest.raises(BadRecord, match=r"records\.jsonl:1: .* is no record of a sample"):
        build_sft([run], tmp_path / "x.jsonl")


def test_one_id_with_two_prompts_is_refused(run: RolloutRun, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run.folder, tmp_path / "other"))
    questions = other / "questions.jsonl"
    questions.write_text(questions.read_text().replace("what is q1", "what was q1"))
    with pytest.raises(BadInput, match="question toy/q1 reads 'what was q1', in an earlier run 'what is q1'"):
        build_opd([run, RolloutRun(other)], tmp_path / "x.jsonl")


def test_a_place_that_cannot_be_written_is_named(run: RolloutRun, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder; name a file to write"):
        build_sft([run], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        build_sft([run], tmp_path / "file" / "sft.jsonl")
