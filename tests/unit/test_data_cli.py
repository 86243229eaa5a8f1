"""``pipo data`` as it is typed: what is submitted, what is built and printed here, exit codes and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipo.cli import main
from tests.unit.cli_fakes import FakeClient, job
from tests.unit.data_chat import write
from tests.unit.rollout_runs import sample, write_run


class Said(NamedTuple):
    code: int
    out: str
    err: str


Pipo = Callable[..., Said]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    return fake


@pytest.fixture
def pipo(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> Pipo:
    def run(*argv: str) -> Said:
        with pytest.raises(SystemExit) as end:
            main(argv)
        said = capsys.readouterr()
        return Said(end.value.code if isinstance(end.value.code, int) else 1, said.out, said.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples = [sample(f"q{q}", n, correct=n >= q) for q in range(3) for n in range(2)]
    return write_run(tmp_path / "run", *samples)


def test_rollouts_submit_only_what_was_given(pipo: Pipo, client: FakeClient) -> None:
    client.outcome = {"state": "done", "result": ROLLED}
    assert pipo("data", "rollouts", "lab/teacher", "lab-chain").code == 0
    ((kind, spec, _),) = client.submitted
    assert (kind, spec) == ("rollouts", {"model": "lab/teacher", "questions": "lab-chain", "k": 4, "seed": 0})


def test_rollouts_submit_all_that_was_given(pipo: Pipo, client: FakeClient, tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", {"id": 1})
    pipo("data", "rollouts", "lab/pipo-opd", str(file), "--k", "2", "--threshold", "0.5", "--temperature", "0.7",
         "--top-k", "20", "--top-p", "0.95", "--presence-penalty", "1.5", "--slots", "99",
         "--limit", "7", "--seed", "3", "--shard", "2/8", "--levels", "4-6", "--no-thinking",
         "--out", str(tmp_path / "out"), "-d")  # fmt: skip
    ((_, spec, _),) = client.submitted
    assert spec == {
        "model": "lab/pipo-opd", "questions": str(file), "k": 2, "method": {"name": "pipo", "threshold": 0.5},
        "sampling": {"temperature": 0.7, "top_k": 20, "top_p": 0.95, "presence_penalty": 1.5}, "slots": 99, "limit": 7,
        "seed": 3, "shard": "2/8", "levels": [4, 5, 6], "thinking": False, "out": str(tmp_path / "out"),
    }  # fmt: skip


ROLLED: dict[str, Any] = {
    "k": 2, "questions": 1234, "tasks": ["toy"], "shard": "1/2", "cut": 3, "failed": 0,
    "accuracy": {"value": 0.5, "low": 0.45, "high": 0.55}, "solved": {"0": 1, "1": 2, "2": 3},
    "tokens": {"mean": 9.0, "median": 8.0, "sd": 1.0}, "tokens_of_right": None, "throughput": {"tokens_s": 100.0},
}  # fmt: skip


def test_rollouts_print_how_often_the_teacher_was_right(pipo: Pipo, client: FakeClient) -> None:
    client.outcome = {"state": "done", "result": ROLLED}
    out = pipo("data", "rollouts", "lab/teacher", "lab-chain", "--shard", "1/2").out
    assert out.splitlines() == [
        "1,234 questions of toy, shard 1/2, 2 samples each",
        "right: 50.0 ±5.0 % of samples, ± half of the 95% interval clustered by question",
        "right samples a question: 0 of 2: 1, 1 of 2: 2, 2 of 2: 3",
        "cut by the budget: 3; failed: 0",
        "tokens a sample: mean 9, median 8, sd 1",
        "tokens a second: 100",
    ]


def test_build_sft_prints_what_was_kept_and_dropped(pipo: Pipo, folder: Path, tmp_path: Path) -> None:
    said = pipo("data", "build-sft", str(folder), "--out", str(tmp_path / "sft.jsonl"))
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "3 trajectories of 2 questions, of 6 samples" and "dropped, wrong: 3" in lines
    assert lines[1].startswith("tokens: sum 15, mean 5") and lines[-1].startswith(str(tmp_path / "sft.jsonl"))
    assert len((tmp_path / "sft.jsonl").read_text().splitlines()) == 3


def test_build_opd_takes_job_numbers(pipo: Pipo, client: FakeClient, folder: Path, tmp_path: Path) -> None:
    client.held[4] = job(4, "rollouts", folder=str(folder))
    said = pipo("data", "build-opd", "4", "--rho", "1", "--out", str(tmp_path / "opd.jsonl"), "--json")
    report = json.loads(said.out)
    assert (report["kept"], report["considered"], report["settings"]) == (1, 3, {"rho": 1.0})
    assert json.loads((tmp_path / "opd.jsonl").read_text())["prompt"] == "what is q0"


def test_unfinished_runs_are_told(pipo: Pipo, folder: Path, tmp_path: Path) -> None:
    (folder / "summary.json").unlink()
    said = pipo("data", "build-sft", str(folder), "--out", str(tmp_path / "sft.jsonl"))
    assert said.code == 0 and f"{folder} is not finished; building from the questions that are" in said.err


def test_import_prints_files_and_what_was_left_out(pipo: Pipo, tmp_path: Path) -> None:
    file = write(tmp_path / "set.jsonl", *({"problem": f"is {n % 20}", "answer": n % 20} for n in range(30)))
    said = pipo("data", "import", "math", str(file), "--out", str(tmp_path / "q.jsonl"), "--split", "90/10")
    assert said.out.splitlines() == [
        "20 questions from 30 rows", "left out, came before: 10", f"{tmp_path}/q-sft.jsonl: 18",
        f"{tmp_path}/q-opd.jsonl: 2",
    ]  # fmt: skip


def test_show_and_cache_are_jobs(pipo: Pipo, client: FakeClient, tmp_path: Path) -> None:
    file = write(tmp_path / "sft.jsonl", {"prompt": "a", "response": "b"})
    pipo("data", "show", str(file), "--model", "lab/base", "--rows", "1", "--max-length", "9", "--thinking", "-d")
    pipo("data", "cache", str(file), "--model", "lab/base", "-d")
    assert [(kind, spec) for kind, spec, _ in client.submitted] == [
        ("data-show", {"file": str(file), "model": "lab/base", "thinking": True, "rows": 1, "max_length": 9}),
        ("data-cache", {"file": str(file), "model": "lab/base"}),
    ]


def test_show_prints_headline_lengths_and_rows(pipo: Pipo, client: FakeClient, tmp_path: Path) -> None:
    file = write(tmp_path / "sft.jsonl", {"prompt": "a", "response": "b"})
    of = {name: 2.0 for name in ("mean", "sd", "min", "p5", "p25", "median", "p75", "p95", "max")}
    none = {"count": 0, "lines": []}
    client.outcome = {"state": "done", "result": {
        "headline": "7 rows (mean 4 tokens)", "rows": 7, "tokens": 28, "over_long": {"count": 9, "lines": [1, 2]},
        "torn": none, "no_eos": none, "lengths": {"prompt": of},
        "first": [{"source": "f:1", "text": "a│b", "prompt_tokens": 1, "response_tokens": 1, "last": [5]}],
    }}  # fmt: skip
    out = pipo("data", "show", str(file), "--model", "lab/base").out
    assert out.startswith("7 rows (mean 4 tokens)\nleft out, over-long: 9 (lines 1, 2, ...)\n\ntokens  mean  sd")
    assert out.endswith("f:1: 1 tokens │ 1 trained on; last ids [5]\na│b\n")


BAD = [
    (["rollouts", "lab/teacher", "no.jsonl"], ["no.jsonl is neither a question file nor one of lab-chain"]),
    (["rollouts", "lab/huge", "lab-chain"], ["lab/huge", "lab/base"]),
    (["rollouts", "lab/teacher", "lab-chain", "--shard", "3/2"], ["shard '3/2' must read I/N"]),
    (["rollouts", "lab/teacher", "lab-chain", "--levels", "9-4"], ["'9-4' must read A-B with A <= B"]),
    (["rollouts", "lab/teacher", "lab-chain", "--levels", "x"], ["'x' must read A-B"]),
    (["rollouts", "lab/teacher", "lab-chain", "--top-p", "2"], ["top_p 2.0"]),
    (["rollouts", "lab/teacher", "lab-chain", "--threshold", "2"], ["threshold 2.0"]),
    (["build-sft", "nowhere", "--out", "x"], ["nowhere holds no records.jsonl; name the folder of a finished"]),
    (["build-sft", "99", "--out", "x"], ["there is no job 99"]),
    (["build-opd", "8", "--out", "x"], ["job 8 is of kind compare; building takes rollouts"]),
    (["build-opd", "nowhere", "--rho", "0.5"], ["--out"]),
    (["import", "chess", "x.jsonl", "--out", "q"], ["unknown set 'chess'; known are dapo-math"]),
    (["import", "math", "no.jsonl", "--out", "q"], ["no.jsonl is not a file"]),
    (["show", "no.jsonl", "--model", "lab/base"], ["no.jsonl is not a file; name a JSONL file"]),
    (["cache", "no.jsonl", "--model", "lab/base"], ["no.jsonl is not a file; name a JSONL file"]),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(w)[:48] for w, _ in BAD])
def test_bad_words_end_with_a_message(
    words: list[str], said: list[str], pipo: Pipo, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client.held[8] = job(8, "compare")
    found = pipo("data", *words)
    text = " ".join(found.err.replace("│", " ").split())
    assert found.code == 2 and found.out == "" and all(s in text for s in said), found.err
    assert client.submitted == [] and list(tmp_path.iterdir()) == []


def test_models_lists_where_no_command_is_named(pipo: Pipo, client: FakeClient, root: Path) -> None:
    bare, named = pipo("models", "--json"), pipo("models", "list", "--json")
    assert bare == named and "lab/base" in {row["name"] for row in json.loads(bare.out)}
    found = json.loads(pipo("models", str(root / "pipo" / "lab" / "models" / "base"), "--json").out)
    assert len(found) == len(json.loads(bare.out)) + 1
    assert pipo("models", "no/such").code == 2
