"""Two vocabularies are the same, or the first difference is named; named models are found, or the way to them."""

import re

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from pipo.config import paths
from pipo.errors import BadModel
from pipo.lab import resolve_model
from pipo.model.vocabulary import same_vocabulary

WORDS = ("<unk>", "<eos>", "a", "b", "c")


def tokenizer(words=WORDS, pad=None):
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    out = PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>", eos_token="<eos>")
    if pad is not None:
        out.add_special_tokens({"pad_token": AddedToken(pad, special=True)})
    return out


def test_equal_vocabularies_have_no_difference():
    assert same_vocabulary(tokenizer(), tokenizer()) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("<unk>", "<eos>", "a", "x", "y"), r"^id 3 is 'b' in the first and 'x' in the second \(5 and 5 tokens\)"),
        (("<unk>", "<eos>", "a", "b"), r"^id 4 is 'c' in the first and nothing in the second \(5 and 4"),
        (("<unk>", "<eos>", "a", "b", "c", "d"), r"^id 5 is nothing in the first and 'd' in the second"),
        (("<unk>", "<eos>", "b", "a", "c"), r"^id 2 is 'a' in the first and 'b' in the second"),
    ],
)
def test_the_lowest_difference_is_named(words, message):
    told = same_vocabulary(tokenizer(), tokenizer(words))
    assert told is not None and re.search(message, told), told
    assert "in teacher" in (same_vocabulary(tokenizer(), tokenizer(words), ("student", "teacher")) or "")


def test_a_pad_that_only_one_has_is_no_difference_unless_its_id_is_taken():
    assert same_vocabulary(tokenizer(pad="<|pad|>"), tokenizer()) is None
    assert same_vocabulary(tokenizer(), tokenizer(pad="<|pad|>")) is None
    assert same_vocabulary(tokenizer(pad="<|pad|>"), tokenizer(pad="<|pad|>")) is None
    told = same_vocabulary(tokenizer(pad="<|pad|>"), tokenizer((*WORDS, "d")))
    assert told is not None and told.startswith("id 5 is '<|pad|>' in the first and 'd' in the second")
    told = same_vocabulary(tokenizer(pad="<|pad|>"), tokenizer((*WORDS, "d", "<|pad|>")))
    assert told is not None and told.startswith("id 5")


def test_a_name_is_a_folder_under_the_home_once_it_is_there():
    folder = paths().models / "smollm2"
    with pytest.raises(BadModel, match=r"not here yet: no .*/smollm2; `python -m pipo\.model\.sources smollm2` makes"):
        resolve_model("smollm2")
    folder.mkdir(parents=True)
    try:
        with pytest.raises(BadModel, match="not here yet"):
            resolve_model("smollm2")
        (folder / "config.json").write_text("{}")
        assert resolve_model("smollm2") == folder
        with pytest.raises(BadModel, match="neither a folder nor a lab model"):
            resolve_model("smollm3")
    finally:
        (folder / "config.json").unlink(missing_ok=True)
        folder.rmdir()
