"""The jobs that look at training files and keep them tokenised, on a model folder with a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import training_files
from bench.training_files import BORDER, headline, shortened
from pipo.config import paths
from pipo.data.rows import read_rows
from pipo.errors import BadInput, BadRecord, Cancelled
from pipo.lab import items
from tests.unit.bench_jobs import Context
from tests.unit.data_chat import chat, chat_tokenizer, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    folder = tmp_path_factory.mktemp("model") / "chat"
    made, tokenizer = tiny_model(pipo=True, vocab=512, layers=2), chat_tokenizer()
    made.config.pad_token_id, made.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    save_model(made, folder, tokenizer)
    return str(folder)


@pytest.fixture
def lab_file(tmp_path: Path) -> Path:
    rows = [{"prompt": i.prompt, "response": i.solution} for i in items("lab-chain", "valid", 30)]
    return write(tmp_path / "lab.jsonl", *rows, {**rows[0], "response": "a is 4"}, end='{"torn')


def show(file: Path, model: str = "lab/base", **more: Any) -> dict[str, Any]:
    return training_files.run_show({"file": str(file), "model": model, **more}, Context(file.parent / "job"))


def test_counts_and_lengths_of_rows(lab_file: Path) -> None:
    found = show(lab_file, rows=1)
    rows = list(read_rows(lab_file, training_files.training_tokenizer("lab/base")).rows)
    assert (found["kind"], found["rows"], found["torn"]["lines"], found["no_eos"]["lines"]) == ("rows", 31, [32], [31])
    assert found["lengths"]["prompt"]["sum"] == sum(len(r.prompt) for r in rows)
    assert found["lengths"]["response"]["max"] == max(len(r.response) for r in rows)
    assert found["tokens"] == found["lengths"]["row"]["sum"]
    (first,) = found["first"]
    assert first["source"] == "lab.jsonl:1" and first["last"] == rows[0].response[-2:]


def test_the_border_stands_where_training_begins(model: str, tmp_path: Path) -> None:
    file = write(tmp_path / "chat.jsonl", chat("what is two", "<think>\nso it is\n</think>\n\nfour"))
    (first,) = show(file, model)["first"]
    assert first["text"] == (
        "<|im_start|>user\nwhat is two<|im_end|>\n<|im_start|>assistant\n<think>\n" + BORDER
        + "so it is\n</think>\n\nfour<|im_end|>"
    )  # fmt: skip
    (first,) = show(write(tmp_path / "off.jsonl", chat("two", "four")), model, thinking=False)["first"]
    assert first["text"].endswith("<think>\n\n</think>\n\n" + BORDER + "four<|im_end|>")


@pytest.mark.parametrize("row", [{"prompt": "what is two"}, {"messages": chat("what is two", "four")["messages"][:1]}])
def test_prompts_are_told_from_rows(row: dict[str, Any], model: str, tmp_path: Path) -> None:
    found = show(write(tmp_path / "p.jsonl", row, row), model)
    assert (found["kind"], found["rows"]) == ("prompts", 2)
    assert found["first"][0]["text"].endswith(BORDER) and "what is two" in found["first"][0]["text"]


def test_over_long_rows_are_counted(lab_file: Path) -> None:
    lengths = show(lab_file, rows=0)["lengths"]["row"]
    found = show(lab_file, rows=0, max_length=int(lengths["median"]))
    assert found["rows"] + found["over_long"]["count"] == 31 and found["lengths"]["row"]["max"] <= lengths["median"]


def test_the_cache_job_keeps_what_training_reads(lab_file: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path / "job")
    made = training_files.run_cache({"file": str(lab_file), "model": "lab/base"}, ctx)
    assert Path(made["cache"]).parent == paths().tokenised and made["rows"] == 31 and made["bytes"] > 4 * made["tokens"]
    assert ctx.events[-1] == ("progress", {"done": 31, "total": 32, "note": "lab.jsonl"})
    tokenizer = training_files.training_tokenizer("lab/base")
    plain, kept = read_rows(lab_file, tokenizer), read_rows(lab_file, tokenizer, cache=paths().tokenised)
    assert list(plain.rows) == list(kept.rows) and str(kept.cache) == made["cache"]
    again = Context(tmp_path / "again")
    assert training_files.run_cache({"file": str(lab_file), "model": "lab/base"}, again) == made
    assert again.events == [], "found, not made again"


def test_show_takes_a_cache_that_is_there_and_makes_none(lab_file: Path, tmp_path: Path) -> None:
    before = show(lab_file)
    assert not paths().tokenised.exists()
    training_files.run_cache({"file": str(lab_file), "model": "lab/base"}, Context(tmp_path / "job"))
    ctx = Context(tmp_path / "shown")
    assert training_files.run_show({"file": str(lab_file), "model": "lab/base"}, ctx) == before and ctx.events == []


def test_reading_can_be_cancelled(lab_file: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        training_files.run_cache({"file": str(lab_file), "model": "lab/base"}, Context(tmp_path / "j", cancel_at=1))
    assert not paths().tokenised.exists()


def test_bad_files_and_settings_are_named(lab_file: Path, tmp_path: Path, model: str) -> None:
    with pytest.raises(BadRecord, match=r"no\.jsonl is not a file"):
        show(tmp_path / "no.jsonl")
    with pytest.raises(BadRecord, match="holds no whole line"):
        show(write(tmp_path / "empty.jsonl"))
    with pytest.raises(BadRecord, match="unknown to the tokenizer"):
        show(write(tmp_path / "other.jsonl", {"prompt": "Janet has ducks", "response": "4"}))
    with pytest.raises(BadInput, match="needs a chat template"):
        show(write(tmp_path / "chat.jsonl", chat("two", "four")))
    with pytest.raises(BadInput, match="rows -1 must be at least 0"):
        show(lab_file, rows=-1)
    with pytest.raises(BadInput, match="data-show: .*`lines`"):
        show(lab_file, lines=3)


def test_words_for_people() -> None:
    sizes = {"mean": 24_900.0, "median": 21_600.0, "sd": 14_900.0}
    assert headline(95_969, "rows", sizes) == "95,969 rows (mean 24.9K tokens, median 21.6K, sd 14.9K)"
    assert shortened("a" * 360) == "a" * 360
    assert shortened("a" * 300 + "b" * 100) == "a" * 240 + " [... 40 characters ...] " + "a" * 20 + "b" * 100
