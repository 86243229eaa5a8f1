"""The job ``rollouts`` on tiny random models, through the real engine: shards, resuming, chats, what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import record, rollouts
from bench.record import SampleRecord
from bench.runner import sample_seed
from bench.scorers.judge import Answer, Judge
from pipo.data.build import build_opd, build_sft
from pipo.data.questions import Question
from pipo.data.rows import read_rows
from pipo.data.runs import RolloutRun
from pipo.errors import BadInput, BadModel, BadRecord, Cancelled
from pipo.lab.tasks import draw_many, split_of
from pipo.lab.tokenizer import lab_tokenizer
from tests.unit import judged_runs
from tests.unit.bench_jobs import WORDS, Context, make_home
from tests.unit.judged_runs import walls

pytestmark = pytest.mark.slow

K = 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, a chat model, and questions of two tasks: what the random model answers to some is "right"."""
    home = make_home(tmp_path_factory.mktemp("rollouts"))
    rows = [
        {"id": n, "task": f"t{n % 2}", "prompt": " ".join(WORDS[: 6 + n % 7]) + f" {n}" * (n // 7), "answer": "4"}
        for n in range(11)
    ]
    (home / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return home


def spec(home: Path, model: str = "regular", **more: Any) -> dict[str, Any]:
    return {"model": str(home / model), "questions": str(home / "questions.jsonl"), "k": K, "slots": 12, "seed": 3,
            "max_batch": 4, **more}  # fmt: skip


def samples(folder: Path) -> list[dict[str, Any]]:
    rows = [r for r in record.read(folder / "records.jsonl") if isinstance(r, SampleRecord)]
    bare = [msgspec.structs.replace(r, ttft_s=0.0, first_pair_s=0.0) for r in rows]
    return sorted(msgspec.to_builtins(bare), key=lambda r: (r["task"], r["item"], r["sample"]))


def mark_right(folder: Path) -> None:
    """Random models never answer: call every sample of an even number of tokens right, as a scorer might."""
    path = folder / "records.jsonl"
    rows = [
        msgspec.structs.replace(r, correct=r.tokens % 2 == 0, finish="eos") if isinstance(r, SampleRecord) else r
        for r in record.read(path)
    ]
    record.rewrite(path, rows)


def test_every_question_is_sampled_k_times_and_kept_whole(home: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    summary = rollouts.run(spec(home), ctx)
    rows = samples(tmp_path)
    assert len(rows) == 11 * K and summary["questions"] == 11 and summary["samples"] == 22
    tokenizer = lab_tokenizer()
    for r in rows:
        assert r["seed"] == sample_seed(3, r["task"], r["item"], r["sample"])
        assert r["text"] == tokenizer.decode(r["places"]), "EOS and all"
        assert r.get("token_times_s", []) == [] and r.get("drafts", []) == [], "no use to training"
    assert sum(summary["solved"].values()) == 11 and summary["throughput"]["tokens"] == sum(r["tokens"] for r in rows)
    asked = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert [a["number"] for a in asked] == list(range(11)) and asked[3]["prompt"] == " ".join(WORDS[:9])
    assert json.loads((tmp_path / "summary.json").read_text())["samples"] == 22
    assert ctx.events[-1][1]["done"] == ctx.events[-1][1]["total"] == 22


def test_shards_together_are_the_whole_run(home: Path, tmp_path: Path) -> None:
    rollouts.run(spec(home), Context(tmp_path / "whole"))
    parts = [tmp_path / f"part{n}" for n in (3, 1, 2)]
    for n, part in zip((3, 1, 2), parts, strict=True):
        rollouts.run(spec(home, shard=f"{n}/3"), Context(part))
    together = [r for part in parts for r in samples(part)]
    assert sorted(together, key=lambda r: (r["task"], r["item"], r["sample"])) == samples(tmp_path / "whole")
    assert [len(samples(part)) for part in parts] == [3 * K, 4 * K, 4 * K]
    for folder in (tmp_path / "whole", *parts):
        mark_right(folder)
    whole, cut = [RolloutRun(tmp_path / "whole")], [RolloutRun(p) for p in parts]
    build_sft(whole, tmp_path / "a.jsonl")
    build_sft(cut, tmp_path / "b.jsonl")
    build_opd(whole, tmp_path / "c.jsonl")
    build_opd(cut, tmp_path / "d.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes() != b""
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "d.jsonl").read_bytes() != b""


@pytest.mark.parametrize("cancel_at", [7, 30])
def test_resumed_equals_uninterrupted(home: Path, tmp_path: Path, cancel_at: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    rollouts.run(spec(home), Context(whole))
    with pytest.raises(Cancelled):
        rollouts.run(spec(home), Context(cut, cancel_at=cancel_at))
    kept = (cut / "records.jsonl").read_bytes()
    (cut / "records.jsonl").write_bytes(kept + b'{"type":"sample","varia')
    rollouts.run(spec(home), Context(cut))
    assert (cut / "records.jsonl").read_bytes().startswith(kept), "finished questions are kept as they were"
    assert samples(cut) == samples(whole)


def test_questions_half_sampled_are_sampled_again(home: Path, tmp_path: Path) -> None:
    """Texts and ids of the others survive: records are read without them, but never rewritten without."""
    rollouts.run(spec(home), Context(tmp_path))
    before, path = samples(tmp_path), tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b'"sample"' in line)
    path.write_bytes(b"".join(lines[:first] + lines[first + 1 :]))
    rollouts.run(spec(home), Context(tmp_path))
    assert samples(tmp_path) == before


def test_rows_of_a_build_are_the_ids_that_a_real_teacher_wrote(home: Path, tmp_path: Path) -> None:
    asked = {"model": "lab/teacher", "questions": "lab-chain", "levels": [4, 5], "limit": 12, "k": K, "seed": 1}
    summary = rollouts.run(asked, Context(tmp_path))
    assert summary["accuracy"]["value"] > 0.2, "the lab's teacher solves easy chains"
    report = build_sft([RolloutRun(tmp_path)], tmp_path / "sft.jsonl")
    by_key = {(r["task"], r["item"], r["sample"]): r for r in samples(tmp_path)}
    built = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    rows = read_rows(tmp_path / "sft.jsonl", lab_tokenizer())
    assert report["kept"] == len(rows.rows) == sum(r["correct"] for r in by_key.values())
    for line, row in zip(built, rows.rows, strict=True):
        r = by_key[line["task"], str(line["id"]), line["sample"]]
        assert row.response == r["places"] and len(row.prompt) == r["prompt_tokens"] and r["correct"]
    assert rows.report.no_eos.count == 0 and rows.report.tokens == report["tokens"]["sum"] + sum(
        len(r.prompt) for r in rows.rows
    )
    opd = build_opd([RolloutRun(tmp_path)], tmp_path / "opd.jsonl", rho=0.5)
    assert opd["kept"] == sum(n for right, n in summary["solved"].items() if int(right) >= K / 2)


@walls
def test_answers_are_mathematics_and_programs_are_run(tmp_path: Path) -> None:
    """Judged beside, and judged when a killed job goes on: by what the model wrote, without its marks."""
    found = draw_many("lab-chain", "valid", 6, [4, 5], 1)
    rows: list[dict[str, Any]] = [
        {"id": i.id, "task": "sums", "prompt": i.prompt, "answer": f"{int(i.answer) + 1}-1"} for i in found
    ]
    tests = [{"input": "", "output": ""}]
    rows += [{"id": i.id, "task": "programs", "prompt": i.prompt, "tests": tests} for i in found[:3]]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    asked = {"model": "lab/teacher", "questions": str(tmp_path / "q.jsonl"), "k": K, "slots": 80}
    summary = rollouts.run(asked, Context(tmp_path / "run"))
    made = judged_runs.samples(tmp_path / "run")
    sums = [r for r in made if r.task == "sums" and r.finish == "eos"]
    assert {(r.correct, r.verdict and r.verdict.by) for r in sums} >= {(True, "symbolic")}
    assert sum(n * int(right) for right, n in summary["solved"].items()) == sum(r.correct for r in sums)
    programs = [r.verdict for r in made if r.task == "programs" and r.finish == "eos"]
    assert programs and all(v and v.by == "execution" and "SyntaxError" in v.reason for v in programs)
    waiting = [
        msgspec.structs.replace(r, judged=False, correct=False, verdict=None) if isinstance(r, SampleRecord) else r
        for r in record.read(tmp_path / "run" / "records.jsonl")
    ]
    record.rewrite(tmp_path / "run" / "records.jsonl", waiting)
    with pytest.raises(BadInput, match="is not judged yet: its job did not end"):
        build_sft([RolloutRun(tmp_path / "run")], tmp_path / "sft.jsonl")
    rollouts.run(asked, Context(tmp_path / "run"))
    again = judged_runs.samples(tmp_path / "run")
    ended = [(a, b) for a, b in zip(again, made, strict=True) if a.finish == "eos"]
    assert all(a == b and a.text.endswith("<eos>") for a, b in ended)


@walls
def test_questions_with_tests_and_a_checker_can_be_scored() -> None:
    checker = "import sys\nprint(1 if float(open(sys.argv[3]).read()) > 3 else 0)\n"
    doubled = Question(id=1, task="t", prompt="p", tests=[{"input": "2\n", "output": "4\n"}], time_limit=1.0)
    answers = [Answer(f"```python\nprint(int(input()) * {n})\n```", "", rollouts.program_of(q))
               for q in (doubled, msgspec.structs.replace(doubled, checker=checker)) for n in (2, 1, 3)]  # fmt: skip
    with Judge() as judge:
        assert [v.right for v in judge.score("code", answers)] == [True, False, False, True, False, True]


def test_pairs_may_teach_too(home: Path, tmp_path: Path) -> None:
    summary = rollouts.run(
        spec(home, "pipo", method={"name": "pipo", "threshold": 0.5}, limit=4), Context(tmp_path)
    )  # fmt: skip
    assert summary["questions"] == 4
    assert all(len(r["places"]) == 2 * r["slots"] for r in samples(tmp_path))


def test_lab_questions_come_from_the_train_split(home: Path, tmp_path: Path) -> None:
    asked = spec(home, questions="lab-chain", limit=6, levels=[4, 6])
    rollouts.run(asked, Context(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert [r["level"] for r in rows] == [4, 6] * 3 and {split_of(r["prompt"]) for r in rows} == {"train"}
    assert [r["id"] for r in rows] == [i.id for i in draw_many("lab-chain", "train", 6, [4, 6], 3)]


def test_a_chat_goes_through_the_template(home: Path, tmp_path: Path) -> None:
    from pipo.lab.tokenizer import VOCAB_SIZE
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    tokenizer = lab_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<bos> {{ m.content }} {% endfor %}"
        "{% if enable_thinking is defined and enable_thinking %}so {% endif %}?"
    )
    save_model(tiny_model(pipo=False, vocab=VOCAB_SIZE, layers=2), tmp_path / "chat", tokenizer)
    question = {"id": "a", "task": "t", "messages": [{"role": "user", "content": "a + 4"}], "answer": "4"}
    (tmp_path / "q.jsonl").write_text(json.dumps(question) + "\n")
    for thinking, text in ((None, "<bos> a + 4 ?"), (True, "<bos> a + 4 so ?")):
        folder = tmp_path / str(thinking)
        given = {} if thinking is None else {"thinking": thinking}
        rollouts.run(
            spec(home, questions=str(tmp_path / "q.jsonl"), model=str(tmp_path / "chat"), **given), Context(folder)
        )  # fmt: skip
        (asked,) = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
        assert asked["prompt"] == text and asked["messages"] == question["messages"]
        assert samples(folder)[0]["prompt_tokens"] == len(tokenizer.encode(text))
    with pytest.raises(BadInput, match=r"question t/a: a row with 'messages' needs a chat template"):
        rollouts.run(spec(home, questions=str(tmp_path / "q.jsonl")), Context(tmp_path / "none"))


def test_records_are_copied_where_asked(home: Path, tmp_path: Path) -> None:
    rollouts.run(spec(home, limit=3, out=str(tmp_path / "out")), Context(tmp_path / "job"))
    names = ["questions.jsonl", "records.jsonl", "run.json", "summary.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    assert samples(tmp_path / "out") == samples(tmp_path / "job")


def test_a_place_that_cannot_be_copied_to_leaves_the_records_whole(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot copy the roll-outs to .*file/out .*; they are whole in .*job"):
        rollouts.run(spec(home, limit=2, out=str(tmp_path / "file" / "out")), Context(tmp_path / "job"))
    assert len(samples(tmp_path / "job")) == 2 * K and (tmp_path / "job" / "summary.json").exists()


BAD = [
    ({"shard": "4/3"}, "shard '4/3' must read I/N with 1 <= I <= N"),
    ({"shard": "0/3"}, "shard '0/3' must read I/N"),
    ({"shard": "two"}, "shard 'two' must read I/N"),
    ({"shard": "12/12"}, "shard 12/12 of 11 questions is empty; cut them into fewer"),
    ({"tasks": ["lab-chain"]}, "roll-outs have questions instead"),
    ({"levels": [4]}, r"levels \[4\] have no effect on .*questions\.jsonl"),
    ({"questions": "lab-chain", "levels": [99]}, "lab-chain has levels 2 to 20, not 99"),
    ({"limit": 0}, "limit 0 must be at least 1"),
    ({"slots": 0}, "slots 0 must be at least 1"),
    ({"k": 0}, "k 0"),
    ({"temprature": 1}, "temprature"),
    ({"method": {"name": "pipo"}}, "needs a PIPO model"),
]


@pytest.mark.parametrize(("more", "words"), BAD, ids=[w[:24] for _, w in BAD])
def test_bad_settings_are_named(home: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        rollouts.run(spec(home, **more), Context(tmp_path / "run"))


BAD_QUESTIONS = {
    "absent": (None, "is not a file; questions are JSONL"),
    "empty": ("", "holds no question"),
    "no id": ('{"task": "t", "prompt": "a", "answer": "4"}\n', r":1: .* is no question .*`id`"),
    "no prompt": ('{"id": 1, "task": "t", "answer": "4"}\n', ":1: a question has a prompt or messages, one of the two"),
    "blank": ('{"id": 1, "task": "t", "prompt": " ", "answer": "4"}\n', ":1: the prompt ' ' is empty"),
    "twice": ('{"id": 1, "task": "t", "prompt": "a", "answer": "4"}\n' * 2, ":2: id '1' of t came before"),
    "nothing to score by": (
        '{"id": 1, "task": "t", "prompt": "a", "tests": []}\n',
        r"1 of 1 questions \(t/1 the first\) have neither an answer nor tests",
    ),
    "answers and programs": (
        '{"id": 1, "task": "t", "prompt": "a", "tests": [{"input": "1", "output": "2"}]}\n'
        '{"id": 2, "task": "t", "prompt": "a", "answer": "2"}\n',
        "1 of 2 questions of t are programs; give them their own task",
    ),
}


@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_bad_questions_are_named(home: Path, tmp_path: Path, case: str) -> None:
    text, words = BAD_QUESTIONS[case]
    if text is not None:
        (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises((BadInput, BadRecord), match=words):
        rollouts.run(spec(home, questions=str(tmp_path / "q.jsonl")), Context(tmp_path / "run"))


def test_an_absent_model_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="neither a folder nor a lab model"):
        rollouts.run(spec(home, "nope"), Context(tmp_path))
