"""What a run keeps of its questions."""

import json
from pathlib import Path

import pytest

from bench import asked, compare, merge
from bench.tasks import load_task
from tests.unit.bench_jobs import Context, make_home, spec
from tests.unit.benchmark_rows import gpqa_row, write_csv


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("asked"))


def lines(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / asked.FILE).read_text().splitlines()]


def test_a_run_keeps_its_questions_and_merged_shards_have_them_all(home: Path, tmp_path: Path) -> None:
    whole = Context(tmp_path / "whole")
    compare.run(spec(home, "regular"), whole)
    (task,) = {line["task"] for line in lines(whole.folder)}
    assert lines(whole.folder) == [
        {"task": task, "item": i.id, "prompt": i.prompt} for i in load_task(spec(home)["tasks"][0], limit=5).items
    ]
    shards = [Context(tmp_path / f"shard{n}") for n in (1, 2)]
    for n, ctx in enumerate(shards, 1):
        compare.run({**spec(home, "regular"), "shard": f"{n}/2"}, ctx)
    (shards[1].folder / asked.FILE).rename(tmp_path / "gone")  # as a version before this one left it
    merged = Context(tmp_path / "merged")
    merge.run({"folders": [str(ctx.folder) for ctx in shards]}, merged)
    assert lines(merged.folder) == lines(shards[0].folder)
    (tmp_path / "gone").rename(shards[1].folder / asked.FILE)
    again = Context(tmp_path / "again")
    merge.run({"folders": [str(ctx.folder) for ctx in shards]}, again)
    assert {line["item"] for line in lines(again.folder)} == {line["item"] for line in lines(whole.folder)}


def test_questions_that_shall_not_be_shown_are_not_copied(tmp_path: Path) -> None:
    write_csv(tmp_path / "gpqa_diamond.csv", [gpqa_row(n) for n in range(3)])
    task = load_task("gpqa-diamond", data=str(tmp_path))
    assert task.hidden and len(task.items) == 3
    asked.write(tmp_path, [task])
    assert (tmp_path / asked.FILE).read_bytes() == b""


def test_a_long_question_keeps_its_ends() -> None:
    text = asked.shortened("a" * 5000 + "b" * 5000)
    assert text.startswith("aaa") and text.endswith("bbb") and "6000 characters left out" in text
    assert asked.shortened("short") == "short"
