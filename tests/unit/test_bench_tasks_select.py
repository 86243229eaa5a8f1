"""Which items a run takes and how models are asked: slices, shards put together again, chat templates, benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import compare, merge, prompts, record, tasks
from bench.record import SampleRecord
from bench.tasks import Item
from pipo.data.benchmarks.items import Program
from pipo.errors import BadInput, Cancelled
from tests.unit.bench_jobs import Context, K, make_home, spec
from tests.unit.benchmark_rows import write_jsonl
from tests.unit.data_chat import TEMPLATE, chat_tokenizer

MATH = [{"problem": f"a = {n} + 2 ; b = a * 7 ?", "answer": str(n), "unique_id": f"m{n}", "level": 3} for n in range(9)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("select"))


def ids(folder: Path, **selection: Any) -> list[str]:
    write_jsonl(folder / "math500.jsonl", *MATH)
    return [i.id for i in tasks.load_task("math500", data=str(folder), **selection).items]


def test_slices_shards_and_limits(tmp_path: Path) -> None:
    assert ids(tmp_path) == [f"m{n}" for n in range(9)]
    assert ids(tmp_path, limit=2) == ["m0", "m1"]
    assert ids(tmp_path, part="3:5") == ["m3", "m4"]
    assert ids(tmp_path, part=":2") == ["m0", "m1"] and ids(tmp_path, part="7:") == ["m7", "m8"]
    assert ids(tmp_path, part="2:", limit=3) == ["m2", "m3", "m4"]
    assert ids(tmp_path, shard="2/4") == ["m1", "m5"]
    assert ids(tmp_path, part="1:8", shard="2/3") == ["m2", "m5"]
    assert len(tasks.load_task("lab-chain", part="3:5").items) == 2
    assert tasks.load_task("lab-chain", part="3:5").items == tasks.load_task("lab-chain", limit=5).items[3:]


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ({"part": "5"}, "must read A:B"), ({"part": ":"}, "must read A:B"), ({"part": "-3:"}, "must read A:B"),
        ({"part": "5:5"}, "takes nothing"), ({"part": "9:"}, "math500 takes nothing, it has 9 items"),
        ({"shard": "3/2"}, "must read I/N"), ({"shard": "10/10"}, "of 9 questions is empty"),
    ],
)  # fmt: skip
def test_selections_that_cannot_be(selection: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says):
        ids(tmp_path, **selection)


def test_all_shards_have_the_fingerprint_of_the_whole(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "math500.jsonl", *MATH)
    found = [tasks.load_task("math500", data=str(tmp_path), shard=s) for s in (None, "1/2", "2/2")]
    assert len({t.fingerprint for t in found}) == 1
    assert tasks.load_task("math500", data=str(tmp_path), limit=8).fingerprint != found[0].fingerprint
    write_jsonl(tmp_path / "math500.jsonl", *MATH[:-1], {**MATH[-1], "answer": "9"})
    assert tasks.load_task("math500", data=str(tmp_path)).fingerprint != found[0].fingerprint


def test_the_fingerprint_of_plain_items_is_what_it_was() -> None:
    found = tasks.load_task("lab-chain", limit=2).items
    rows = [{"id": i.id, "prompt": i.prompt, "gold": i.gold, "level": i.level} for i in found]
    assert tasks.fingerprint(found) == tasks.provenance.settings_hash({"items": rows})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Samples without times; confidences are left out since sums depend on the batch."""
    found = [r for r in record.read(folder / "records.jsonl") if isinstance(r, SampleRecord)]
    bare = [msgspec.structs.replace(r, ttft_s=0.0, first_pair_s=0.0, token_times_s=[], drafts=[]) for r in found]
    return sorted(msgspec.to_builtins(bare), key=lambda r: (r["variant"], r["task"], r["item"], r["sample"]))


def quality(summary: dict[str, Any]) -> list[dict[str, Any]]:
    times = ("ttft_s", "first_pair_s", "tpot16_s", "tpot_s", "throughput")
    return [{k: v for k, v in row.items() if k not in times} for row in summary["rows"]]


def test_shards_merged_equal_the_whole_run(home: Path, tmp_path: Path) -> None:
    settings = spec(home, "regular", "pipo", references=["regular"])
    whole = compare.run(settings, Context(tmp_path / "whole"))
    for part in (1, 2, 3):
        compare.run({**settings, "shard": f"{part}/3"}, Context(tmp_path / str(part)))
    folders = [str(tmp_path / str(part)) for part in (3, 1, 2)]
    merged = merge.run({"folders": folders}, Context(tmp_path / "merged"))
    assert rows_of(tmp_path / "merged") == rows_of(tmp_path / "whole")
    assert quality(merged) == quality(whole) and merged["differences"] == whole["differences"]
    heads = [record.read_run(tmp_path / name) for name in ("whole", "merged")]
    assert heads[0].spec == heads[1].spec
    assert heads[0].provenance.settings_hash == heads[1].provenance.settings_hash
    before = (tmp_path / "merged" / "records.jsonl").read_bytes()
    compare.run(settings, Context(tmp_path / "merged"))
    assert (tmp_path / "merged" / "records.jsonl").read_bytes() == before, "the whole run finds nothing left to do"
    assert merge.run({"folders": folders}, Context(tmp_path / "merged"))["rows"] == merged["rows"]


def test_what_cannot_be_merged_is_named(home: Path, tmp_path: Path) -> None:
    settings = spec(home, "regular")
    for name, more in {"1": {"shard": "1/2"}, "2": {"shard": "2/2"}, "3": {"shard": "2/3"}, "whole": {},
                       "seed": {"shard": "2/2", "seed": 8}}.items():  # fmt: skip
        compare.run({**settings, **more}, Context(tmp_path / name))
    cut = Context(tmp_path / "cut", cancel_at=4)
    with pytest.raises(Cancelled):
        compare.run({**settings, "shard": "2/2"}, cut)
    for names, says in {
        ("1",): "shards 2/2 are missing", ("1", "1"): "both shard 1/2", ("1", "3"): "is shard 2/3, .* one of 1/2|of 2",
        ("1", "whole"): "whole is no shard", ("1", "seed"): "differ in seed", ("1", "cut"): "2/2, is not finished",
        (): "no folders",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=says):
            merge.run({"folders": [str(tmp_path / n) for n in names]}, Context(tmp_path / "out"))
    with pytest.raises(BadInput, match="does not exist"):
        merge.run({"folders": [str(tmp_path / "none")]}, Context(tmp_path / "out"))
    merge.run({"folders": [str(tmp_path / n) for n in "12"]}, Context(tmp_path / "out"))


def test_messages_go_through_the_template_and_thinking_is_its_switch() -> None:
    item = Item("a", "plain", "1", messages=[{"role": "user", "content": "what is two"}])
    text = Item("b", "as it is", "1")
    tokenizer = chat_tokenizer()
    asked = [i.prompt for i in prompts.prepare([item, text], tokenizer, None, "t")]
    assert asked == ["<|im_start|>user\nwhat is two<|im_end|>\n<|im_start|>assistant\n<think>\n", "as it is"]
    (off,) = prompts.prepare([item], tokenizer, False, "t")
    assert off.prompt.endswith("<think>\n\n</think>\n\n") and off.gold == "1"
    bare = chat_tokenizer(None)
    assert prompts.prepare([item, text], bare, True, "t") == [item, text]
    assert prompts.remark([item], tokenizer, True, "M") is None and prompts.remark([text], bare, None, "M") is None
    assert "M has no chat template" in (prompts.remark([item], bare, None, "M") or "")
    assert "thinking off has no effect on M" in (prompts.remark([text], tokenizer, False, "M") or "")
    deaf = chat_tokenizer(TEMPLATE.replace("enable_thinking", "think_hard"))
    assert "knows no such switch" in (prompts.remark([item], deaf, True, "M") or "")


def test_a_benchmark_runs_and_its_versions_are_in_the_run(home: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "math500.jsonl", *MATH)
    settings = {**spec(home, "regular"), "tasks": ["math500"], "limit": 3, "slots": 8, "data": str(tmp_path)}
    ctx = Context(tmp_path / "run")
    compare.run(settings, ctx)
    said = [data["text"] for kind, data in ctx.events if kind == "log"]
    assert [t for t in said if "has no chat template" in t] == [f"{home / 'regular'} has no chat template: it gets the "
                                                                "questions as plain text"]  # fmt: skip
    assert any("9 items where the published set has 500" in t for t in said)
    head = record.read_run(tmp_path / "run")
    assert head.spec["benchmarks"]["math500"]["prompt"] == "math-1" and "data" not in head.spec
    assert head.spec["tasks"]["math500"] == tasks.load_task("math500", data=str(tmp_path), limit=3).fingerprint
    rows = rows_of(tmp_path / "run")
    assert [(r["item"], r["gold"], r["level"]) for r in rows[::K]] == [(f"m{n}", str(n), 3) for n in range(3)]
    write_jsonl(tmp_path / "elsewhere" / "math500.jsonl", *MATH)
    again = compare.run({**settings, "data": str(tmp_path / "elsewhere")}, Context(tmp_path / "run"))
    assert rows_of(tmp_path / "run") == rows and again["items"] == {"math500": 3}, "where items lie does not matter"


def test_a_shard_that_was_stopped_goes_on(home: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "math500.jsonl", *MATH)
    settings = {**spec(home, "regular"), "tasks": ["math500"], "slots": 8, "data": str(tmp_path), "shard": "2/2"}
    plain = compare.run(settings, Context(tmp_path / "plain"))
    with pytest.raises(Cancelled):
        compare.run(settings, Context(tmp_path / "stopped", cancel_at=14))
    there = len(rows_of(tmp_path / "stopped"))
    assert 0 < there < 4 * K, f"{there} samples: stopped too early or too late to test anything"
    again = compare.run(settings, Context(tmp_path / "stopped"))
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "plain") and quality(again) == quality(plain)


def test_programs_are_refused_where_they_cannot_be_shut_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = {"task_id": "h/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f): pass"}
    write_jsonl(tmp_path / "HumanEval.jsonl", stub)
    (item,) = tasks.load_task("humaneval", data=str(tmp_path)).items
    assert item.program == Program(form="check", stub="def f():\n", entry_point="f", test="def check(f): pass")
    monkeypatch.setattr("bench.sandbox.probe.why_not", lambda way: "not on this machine")
    settings = {**spec(home, "regular"), "tasks": ["humaneval"], "data": str(tmp_path)}
    with pytest.raises(BadInput, match="cannot be shut in on this machine .*say --unsafe-code-execution"):
        compare.run(settings, Context(tmp_path / "r"))
    assert not (tmp_path / "r" / "run.json").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("scorer", "text", "answer"),
    [
        ("exact", "\\boxed{ 7 }", "7"),
        ("math", "\\boxed{\\{1\\}} and \\boxed{2", "\\{1\\}"),
        ("choice", "the answer is b", "B"),
        ("choice", "so \\boxed{\\text{(C)}}", "C"),
        ("choice", "\\boxed{B or C}", None),
        ("code", "```python\nx = 1\n```", None),
    ],
)
def test_an_answer_is_read_as_its_scorer_reads_it(scorer: str, text: str, answer: str | None) -> None:
    assert tasks.READ[scorer](text) == answer


def test_a_users_toml_is_a_task_with_the_schema_that_it_names(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "q.jsonl", {"question": "Who?", "choices": ["I", "you"], "answer": "B"})
    path = tmp_path / "q.toml"
    path.write_text(
        'name = "q"\nfile = "q.jsonl"\nschema = "mmlu"\nprompt = "choice-1"\nscorer = "choice"\nshuffle = 3\n'
        "[budgets]\ntight = 5\nloose = 9\n"
    )
    task = tasks.load_task(str(path))
    (item,) = task.items
    assert (task.scorer, task.budgets, item.id) == ("choice", {"tight": 5, "loose": 9}, "1")
    assert f"{item.gold}) you" in item.prompt and json.dumps(task.source["shuffle"]) == "3"
