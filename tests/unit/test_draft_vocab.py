"""A draft vocabulary: checked, stored beside the weights, counted from a corpus, kept to by every method."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipo.decode import oracle
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadModel
from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
from pipo.model import load_model, save_model
from pipo.model.draft_vocab import FILE
from pipo.model.testing import tiny_model

IDS = [2, 3, 5, 8, 13, 21, 34, 55]


def limited(pipo: bool = False, kind: str = "hybrid", ids: list[int] | None = None):
    model = tiny_model(kind, pipo=pipo)
    model.set_draft_vocab(torch.tensor(ids or IDS))
    return model


# The model's side


def test_a_draft_vocabulary_comes_back_from_the_model_folder_in_order(tmp_path: Path):
    model = limited(ids=[8, 2, 5])
    assert "draft_ids" not in model.state_dict(), "it is no weight"
    save_model(model, tmp_path)
    again = load_model(tmp_path, dtype=torch.bfloat16).draft_ids
    assert again.dtype == torch.int64 and again.tolist() == [2, 5, 8]
    model.set_draft_vocab(None)
    save_model(model, tmp_path)
    assert load_model(tmp_path).draft_ids is None, "a folder keeps no vocabulary of the model that was there before"


def test_the_training_forward_projects_onto_all_tokens():
    ids = torch.tensor([[4, 9, 6, 7, 11, 3]])
    for pipo in (False, True):
        free, model = tiny_model(pipo=pipo), limited(pipo)
        forward = "forward" if pipo else "forward_regular"
        with torch.inference_mode():
            a, b = getattr(free, forward)(ids, labels=ids), getattr(model, forward)(ids, labels=ids)
        assert torch.equal(a.mtp_logits, b.mtp_logits) and torch.equal(a.loss, b.loss)


BAD = {
    "twice": (torch.tensor([2, 3, 3]), ["3", "twice"]),
    "outside": (torch.tensor([2, 64]), ["64", "vocabulary of 64"]),
    "negative": (torch.tensor([-1, 2]), ["-1", "vocabulary of 64"]),
    "pad": (torch.tensor([0, 2, 3]), ["PAD (0)"]),
    "no eos": (torch.tensor([3, 4]), ["a draft vocabulary without EOS (2)"]),
    "one": (torch.tensor([2]), ["1 ids", "at least 2"]),
    "none": (torch.tensor([], dtype=torch.int64), ["0 ids", "at least 2"]),
    "float": (torch.tensor([2.0, 3.0]), ["float32", "int64"]),
    "table": (torch.tensor([[2, 3]]), ["[1, 2]", "one dimension"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_draft_vocabulary_is_refused_by_name(case: str, tmp_path: Path):
    ids, words = BAD[case]
    model = tiny_model(pipo=False, layers=1)
    with pytest.raises(BadModel) as error:
        model.set_draft_vocab(ids)
    assert all(w in str(error.value) for w in words), str(error.value)
    save_model(model, tmp_path)
    save_file({"ids": ids}, tmp_path / FILE)
    with pytest.raises(BadModel) as error:
        load_model(tmp_path)
    assert all(w in str(error.value) for w in [*words, FILE]), str(error.value)


def test_every_one_of_several_eos_ids_must_be_there(tmp_path: Path):
    model = tiny_model(pipo=False, layers=1)
    model.config.eos_token_id = [2, 7]
    with pytest.raises(BadModel, match=r"without EOS \(7\)"):
        model.set_draft_vocab(torch.tensor([2, 3]))
    model.set_draft_vocab(torch.tensor([2, 3, 7]))


def test_a_file_that_is_no_draft_vocabulary_is_refused(tmp_path: Path):
    save_model(tiny_model(pipo=False, layers=1, vocab=VOCAB_SIZE), tmp_path, lab_tokenizer())
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(BadModel, match="cannot be read as safetensors"):
        load_model(tmp_path)
    save_file({"words": torch.tensor([2, 3])}, tmp_path / FILE)
    with pytest.raises(BadModel, match="holds words; a draft vocabulary is one tensor named ids"):
        load_model(tmp_path)


# The slow twin


@pytest.mark.parametrize("method", [Method("mtp"), Method("eagle", depth=3), Method("pipo", threshold=0.5)], ids=str)
def test_the_oracle_drafts_from_the_vocabulary_alone(method: Method):
    model = limited(method.pairs)
    request = Request(id="a", prompt=(5, 9, 4), method=method, seed=3, max_tokens=24, ignore_eos=True)
    out = oracle.generate(model, request)
    assert out.drafts and {d.id for d in out.drafts} <= set(IDS)
    assert not set(out.tokens) <= set(IDS), "the backbone still says what it likes"


def test_greedy_eagle_of_the_oracle_is_greedy_regular_with_a_draft_vocabulary():
    model, greedy = limited(), Sampling(temperature=0.0)
    out = [
        oracle.generate(model, Request(id="a", prompt=(5, 9, 4), method=m, sampling=greedy, max_tokens=16))
        for m in (Method("regular"), Method("eagle", depth=2))
    ]
    assert out[0].tokens == out[1].tokens
