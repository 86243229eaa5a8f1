"""Tokenised files kept: equal to plain reading, made anew when anything they follow from changes or they are torn."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipo.data.cache import fingerprint, load
from pipo.data.packed import Packed, PackedRows, Packer
from pipo.data.rows import Rows, read_rows
from pipo.errors import BadInput, BadRecord
from tests.unit.data_chat import TEMPLATE, chat, chat_tokenizer, write

QWEN = chat_tokenizer()
ROWS = [chat("what is two and two", f"<think>\n{'so it is ' * n}x\n</think>\n\nfour") for n in range(1, 40)]
ROWS.insert(7, {"prompt": "what is two", "response": "four and two"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "train.jsonl", *ROWS, end='{"prompt": "tor')


def same(a: Rows, b: Rows) -> bool:
    return list(a.rows) == list(b.rows) and a.report == b.report and a.rows.lengths() == b.rows.lengths()


@pytest.mark.parametrize("max_length", [None, 60])
def test_cached_equals_plain(file: Path, tmp_path: Path, max_length: int | None) -> None:
    plain = read_rows(file, QWEN, max_length=max_length)
    made = read_rows(file, QWEN, max_length=max_length, cache=tmp_path / "cache")
    found = read_rows(file, QWEN, max_length=max_length, cache=tmp_path / "cache")
    assert same(plain, made) and same(plain, found)
    assert plain.report.torn.count == 1 and plain.report.no_eos.lines == [8]
    assert plain.cache is None and made.cache == found.cache and found.cache is not None
    assert isinstance(found.rows.packed.ids, np.memmap), "found, not made again"


def test_one_cache_serves_every_max_length(file: Path, tmp_path: Path) -> None:
    for max_length in (None, 60, 90):
        read_rows(file, QWEN, max_length=max_length, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_reader_that_keeps_nothing_takes_what_is_there(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plain = read_rows(file, QWEN, cache=cache, keep=False)
    assert plain.cache is None and not cache.exists()
    made = read_rows(file, QWEN, cache=cache)
    found = read_rows(file, QWEN, cache=cache, keep=False)
    assert found.cache == made.cache and isinstance(found.rows.packed.ids, np.memmap) and same(plain, found)


def test_what_rows_follow_from_makes_another_cache(file: Path, tmp_path: Path) -> None:
    other_template = chat_tokenizer(TEMPLATE.replace("'<think>\\n' + thought", "'<think>\\n' + thought + ' '"))
    other_end = chat_tokenizer()
    other_end.eos_token = "<|im_start|>"
    other_words = chat_tokenizer()
    other_words.add_tokens(["four and"])
    marks = [fingerprint(file, t, None) for t in (QWEN, other_template, other_end, other_words)]
    marks += [fingerprint(file, QWEN, True), fingerprint(file, QWEN, False)]
    file.write_text(file.read_text().replace("so it is x", "so it is y", 1))
    marks.append(fingerprint(file, QWEN, None))
    assert len(set(marks)) == len(marks)
    assert fingerprint(file, chat_tokenizer(), None) == marks[-1], "the same tokenizer loaded twice is the same"


def test_a_changed_file_is_read_anew(file: Path, tmp_path: Path) -> None:
    before = read_rows(file, QWEN, cache=tmp_path / "cache")
    write(file, *ROWS[:5])
    after = read_rows(file, QWEN, cache=tmp_path / "cache")
    assert len(after.rows) == 5 and same(after, read_rows(file, QWEN)) and after.cache != before.cache


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9999])
def test_a_torn_cache_is_made_anew(file: Path, tmp_path: Path, share: float) -> None:
    plain = read_rows(file, QWEN)
    kept = read_rows(file, QWEN, cache=tmp_path / "cache").cache
    assert kept is not None
    whole = kept.read_bytes()
    kept.write_bytes(whole[: int(share * len(whole))])
    assert same(plain, read_rows(file, QWEN, cache=tmp_path / "cache"))
    assert kept.read_bytes() == whole, "and it is whole again"


def test_a_cache_that_holds_something_else_is_made_anew(file: Path, tmp_path: Path) -> None:
    kept = read_rows(file, QWEN, cache=tmp_path / "cache").cache
    assert kept is not None
    mark = kept.stem.rpartition("-")[2]
    bare = json.dumps({"__metadata__": {"about": json.dumps({"fingerprint": mark, "torn": []})}}).encode()
    for body in (b"{}", b"[1]", b'{"__metadata__": {"about": "{}"}}', bare):
        kept.write_bytes(len(body).to_bytes(8, "little") + body)
        assert load(kept) is None
        assert same(read_rows(file, QWEN), read_rows(file, QWEN, cache=tmp_path / "cache"))


def test_arrays_that_do_not_fit_are_no_rows() -> None:
    packer = Packer()
    packer.add([1, 2], [3], 1)
    packer.add([4], [5, 6], 2)
    whole = packer.done()
    assert whole.is_whole()
    assert not Packed(whole.ids[:-1], whole.starts, whole.borders, whole.lines).is_whole()
    assert not Packed(whole.ids, whole.starts, whole.starts[1:], whole.lines).is_whole()
    assert list(PackedRows(whole, "f"))[1] == ([4], [5, 6], "f:2")


def test_bad_rows_leave_no_cache(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", ROWS[0], {"prompt": "two"})
    with pytest.raises(BadRecord, match=r"bad\.jsonl:2"):
        read_rows(bad, QWEN, cache=tmp_path / "cache")
    empty = write(tmp_path / "empty.jsonl")
    with pytest.raises(BadRecord, match="no whole line"):
        read_rows(empty, QWEN, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BadInput, match=r"cannot write .*cache/train-[0-9a-f]{16}\.safetensors"):
        read_rows(file, QWEN, cache=tmp_path / "cache")


def test_no_half_written_file_is_left(file: Path, tmp_path: Path) -> None:
    read_rows(file, QWEN, cache=tmp_path / "cache")
    assert [f for f in os.listdir(tmp_path / "cache") if not f.endswith(".safetensors")] == []
