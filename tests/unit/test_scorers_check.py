"""Checking the scorers with known solutions: the job, its exit status, and that it notices a scorer that is wrong."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from bench.sandbox import probe
from bench.scorers import check, judge
from bench.scorers.check import mutated
from bench.scorers.judge import Answer, Judge
from bench.scorers.reading import compare
from bench.scorers.verdict import Verdict
from pipo.cli import main
from pipo.errors import BadInput, BadRecord
from pipo.jobs import LocalContext
from tests.unit.cli_fakes import FakeClient

needs_walls = pytest.mark.skipif(probe.why_not("namespaces") is not None, reason="no namespaces of our own here")


@pytest.fixture
def few(shared_folder: Path, tmp_path: Path) -> Path:
    """The first items of the real files."""
    for name, count in (("math500.jsonl", 8), ("gsm8k_test.jsonl", 5)):
        lines = (shared_folder / "data" / name).read_bytes().splitlines(keepends=True)[:count]
        (tmp_path / name).write_bytes(b"".join(lines))
    with gzip.open(shared_folder / "data" / "HumanEval.jsonl.gz") as f:
        (tmp_path / "HumanEval.jsonl").write_bytes(b"".join(f.readlines()[:3]))
    return tmp_path


@needs_walls
def test_known_solutions_score_as_they_should(few: Path, tmp_path: Path) -> None:
    found = check.run({"data": str(few)}, LocalContext(tmp_path / "run"))
    assert found["good"], found
    counts = {n: (b["right"], b["scored_right"], b["wrong"], b["scored_wrong"]) for n, b in found["benchmarks"].items()}
    assert counts == {"math500": (8, 8, 8, 8), "gsm8k": (10, 10, 5, 5), "humaneval": (6, 6, 6, 6)}
    assert (tmp_path / "run" / "summary.json").exists()


@needs_walls
@pytest.mark.slow
def test_all_known_solutions_score_as_they_should(shared_folder: Path, tmp_path: Path) -> None:
    found = check.run({"data": str(shared_folder / "data")}, LocalContext(tmp_path))
    assert found["good"], [b["exceptions"] for b in found["benchmarks"].values()]
    assert {n: b["items"] for n, b in found["benchmarks"].items()} == {"math500": 500, "gsm8k": 1319, "humaneval": 164}


@pytest.mark.parametrize("right", [True, False])
def test_scorer_that_is_wrong_is_noticed(
    right: bool, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (few / "HumanEval.jsonl").unlink()
    monkeypatch.setattr("bench.scorers.pool.compare", lambda answer, gold: Verdict(right, "as always", "exact"))
    found = check.run({"data": str(few)}, LocalContext(tmp_path / "run"))
    row = found["benchmarks"]["math500"]
    assert not found["good"] and found["missing"] == ["humaneval"]
    assert len(row["exceptions"]) == 8 and all(e["reason"] == "as always" for e in row["exceptions"])
    assert all(e["is_right"] != right for e in row["exceptions"])


def test_missing_data_and_other_files_are_named(few: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match=r"math500.jsonl"):
        check.run({"data": str(empty)}, LocalContext(tmp_path / "run"))
    (empty / "gsm8k_test.jsonl").write_text('{"question": "a"}\n')
    with pytest.raises(BadRecord, match=r"gsm8k_test.jsonl:1.*answer"):
        check.run({"data": str(empty)}, LocalContext(tmp_path / "run"))
    with pytest.raises(BadInput, match="nonsense"):
        check.run({"nonsense": 1}, LocalContext(tmp_path / "run"))


@pytest.mark.parametrize("gold", ["5", "0.15", r"\frac{1}{2}", r"\text{(E)}", r"\text{east}", "p - q", r"\pi", "(3,4]"])
def test_mutated_answer_is_another(gold: str) -> None:
    cheap = compare(mutated(gold), gold)
    assert mutated(gold) != gold and (cheap is None or not cheap.right)


def test_judge_scores_by_the_scorer_that_is_named() -> None:
    with Judge(workers=1) as made:
        assert made.score("math", [Answer(r"\boxed{0.5}", r"\frac12")])[0].right
        assert made.score("choice", [Answer(r"\boxed{B}", "B"), Answer("A", "B")])[1].reason == "A, not B"
        assert [v.right for v in made.score("exact", [Answer(" a ", "a"), Answer("b", "a")])] == [True, False]
        with pytest.raises(BadInput, match="'taste'"):
            made.score("taste", [])
        with pytest.raises(BadInput, match="no program"):
            made.score("code", [Answer("x", "")])


def test_judge_refuses_code_where_it_cannot_be_shut_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "why_not", lambda way: "switched off")
    with Judge() as made, pytest.raises(BadInput, match="--unsafe-code-execution"):
        made.way
    with Judge(unsafe=True) as made:
        assert made.way == "none"
    assert judge.find_way(unsafe=True) == "none"


def answered(argv: list[str], result: dict, monkeypatch: pytest.MonkeyPatch) -> tuple[int, FakeClient]:
    client = FakeClient()
    client.outcome = {"state": "done", "result": result}
    monkeypatch.setattr("pipod.client.connect", client.connect)
    with pytest.raises(SystemExit) as end:
        main(argv)
    return int(end.value.code or 0), client


def test_command_prints_counts_and_ends_with_status_1_on_an_exception(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"items": 1, "right": 1, "scored_right": 0, "wrong": 1, "scored_wrong": 1, "by": {}}
    e = {"item": "7", "is_right": True, "reason": "not equal by algebra", "by": "symbolic", "gold": "1", "answer": "2"}
    bad = {"benchmarks": {"gsm8k": {**row, "exceptions": [e]}}, "missing": ["math500"], "good": False}
    for flags in ([], ["--json"]):
        assert answered(["eval", "check-scorers", "--data", "/", *flags], bad, monkeypatch)[0] == 1
    said = capsys.readouterr().out
    assert "gsm8k 7: scored wrong, it is right (not equal by algebra)" in said and "math500: not here" in said
    good = {"benchmarks": {"gsm8k": {**row, "exceptions": []}}, "missing": [], "good": True}
    code, client = answered(["eval", "check-scorers", "--data", "/"], good, monkeypatch)
    assert code == 0 and client.submitted[0][:2] == ("check-scorers", {"data": "/", "unsafe": False})


def test_a_word_that_is_no_command_is_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in (["eval", "lab/base", "--k", "2"], ["eval", "--k", "2", "lab/base"]):
        code, client = answered([*argv, "--detach"], {}, monkeypatch)
        assert code == 0 and client.submitted[0][0] == "eval"
        assert client.submitted[0][1] == {"model": "lab/base", "k": 2, "seed": 0}
    capsys.readouterr()
    assert answered(["eval", "--list"], {}, monkeypatch)[0] == 0
    assert "gsm8k" in capsys.readouterr().out
    assert answered(["eval"], {}, monkeypatch)[0] == 2


def test_scoring_loads_no_torch() -> None:
    import subprocess

    code = "import sys, bench.scorers.check, bench.scorers.algebra as a\na.compare('2x', 'x+x')\n"
    code += "print('torch' in sys.modules, 'math_verify' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
