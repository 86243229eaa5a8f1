"""Text of token ids from tokenizer.json: word, byte-level and space-sign vocabularies; notes where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipo.lab import resolve_model
from reports.html.tokens import texts

TEXT = "naïve “quotes” → 数学 👩‍🔬 x = 1\n\tend"


def saved(folder: Path, tokenizer: Tokenizer) -> str:
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_words_of_the_lab() -> None:
    tokenizer = Tokenizer.from_file(str(resolve_model("lab/base") / "tokenizer.json"))
    ids = [*range(tokenizer.get_vocab_size()), 10**6]
    found = texts("lab/base", None, ids, resolve_model)
    assert found.note == ""
    assert found.known == {i: tokenizer.id_to_token(i) for i in ids[:-1]}


def test_only_the_ids_that_are_shown_are_kept() -> None:
    assert texts("lab/base", None, [5, 7], resolve_model).known == {5: "=", 7: "-"}


def test_byte_level_pieces_are_put_back_to_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"]
    )
    tokenizer.train_from_iterator([TEXT] * 50, trainer)
    ids = tokenizer.encode(TEXT).ids
    known = texts(saved(tmp_path, tokenizer), None, [*ids, 0], None).known
    assert "".join(known[i] for i in ids) == TEXT and known[0] == "<|end|>"


def test_a_part_of_a_sign_shows_its_bytes(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"Ã": 0, "ĠÃ©": 1}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    assert texts(saved(tmp_path, tokenizer), None, [0, 1], None).known == {0: "\\xc3", 1: " é"}


def test_space_signs_and_bytes_of_a_unigram_vocabulary(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁so", -1.0), ("<0x0A>", -2.0)], unk_id=0))
    tokenizer.decoder = decoders.Metaspace()
    known = texts(saved(tmp_path, tokenizer), None, [0, 1, 2], None).known
    assert known == {0: "<unk>", 1: " so", 2: "\n"}


def test_hostile_pieces_are_spelled_out(tmp_path: Path) -> None:
    model = {"type": "WordLevel", "vocab": {"\u202e": 1, "\u0000": 2}, "unk_token": "x"}
    added = [{"id": 3, "content": "\u200b"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    assert texts(str(tmp_path), None, [1, 2, 3], None).known == {1: "⟨U+202E⟩", 2: "␀", 3: "⟨U+200B⟩"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"vocab": 3}}', '{"model": {}}', "\x00\xff"])
def test_a_broken_file_is_a_note(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    found = texts(str(tmp_path), None, [1], None)
    assert found.known == {} and "no tokenizer that can be read" in found.note


def test_a_missing_model_is_a_note(tmp_path: Path) -> None:
    assert "cannot be read" in texts(str(tmp_path / "gone"), None, [1], None).note
    assert "unknown lab model" in texts("lab/nosuch", None, [1], resolve_model).note
    assert "cannot be read" in texts("lab/base", None, [1], None).note, "without a resolver names are paths"


@pytest.mark.parametrize("model", ["~nobody-of-that-name/x", "a\0b", "x" * 5000, "", "..", "lab/"])
def test_a_name_that_is_no_path_is_a_note(model: str) -> None:
    for resolver in (None, resolve_model):
        found = texts(model, None, [1], resolver)
        assert found.known == {} and found.note


def test_a_file_out_of_bounds_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text("{}" * 10)
    monkeypatch.setattr("reports.html.tokens.MOST_BYTES", 8)
    assert "20 bytes, more than 8" in texts(str(tmp_path), None, [1], None).note
