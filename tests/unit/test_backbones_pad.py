"""A PAD of its own: found or made where the tokenizer has none or calls EOS so, saved with the model, never sampled."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipo.decode.oracle import generate
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request
from pipo.errors import BadModel
from pipo.model import from_backbone, load_model, load_tokenizer, open_student, prepare_backbone, save_model
from pipo.model.testing import tiny_model

BOS, EOS = 1, 2


def tokenizer_of(size: int, special: tuple[str, ...] = (), **named: str) -> PreTrainedTokenizerFast:
    """A word tokenizer of ``size`` ids: <unk>, <bos>, <eos>, words, and ``special`` tokens at the end."""
    words = ["<unk>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, size - len(special)))]
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    out = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
    out.add_special_tokens({"additional_special_tokens": list(special)} if special else {})
    if named:
        out.add_special_tokens(named)
    assert len(out) == size
    return out


def backbone(tmp_path, tokenizer, *, pad=None, eos=EOS, tied=True, mtp=False):
    """A plain backbone's folder with 64 rows, as it would be published: no heads of ours, this PAD in config.json."""
    model = tiny_model("dense", pipo=False, tied=tied)
    save_model(model, tmp_path, tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": pad, "eos_token_id": eos}))
    if not mtp:
        kept = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if not k.startswith("mtp.")}
        save_file(kept, tmp_path / "model.safetensors")
    return tmp_path, model


def embedding(model) -> torch.Tensor:
    return model.backbone.embed_tokens.weight.detach()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("named", [{}, {"pad_token": "<eos>"}], ids=["none", "eos"])
def test_a_full_vocabulary_grows_by_one_row_at_the_mean(tmp_path, tied, named):
    folder, old = backbone(tmp_path / "a", tokenizer_of(64, **named), pad=EOS if named else None, tied=tied)
    model, tokenizer, notes = open_student(folder)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 64 and model.config.vocab_size == 65
    assert tokenizer.pad_token == "<|pad|>" and tokenizer.eos_token_id == EOS
    for table, before in ((embedding(model), embedding(old)), (model.lm_head.weight, old.lm_head.weight)):
        assert torch.equal(table[:64], before) and torch.allclose(table[64], before.mean(0), atol=1e-6)
    assert (model.lm_head.weight is model.backbone.embed_tokens.weight) == tied
    assert notes[0].startswith("PAD is '<|pad|>', id 64: ") and "one row more (65)" in notes[0]
    assert notes[1] == "MTP head: the checkpoint has none; it starts fresh"


def test_a_spare_row_becomes_pad(tmp_path):
    folder, old = backbone(tmp_path / "a", tokenizer_of(60))
    model, tokenizer, notes = open_student(folder)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 60 and model.config.vocab_size == 64
    assert torch.allclose(embedding(model)[60], embedding(old)[:60].mean(0), atol=1e-6)
    others = [i for i in range(64) if i != 60]
    assert torch.equal(embedding(model)[others], embedding(old)[others])
    assert "in an unused row" in notes[0]


def test_a_reserved_token_is_taken_before_the_vocabulary_grows(tmp_path):
    special = ("<|im_start|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>")
    folder, old = backbone(tmp_path / "a", tokenizer_of(64, special))
    model, tokenizer, notes = open_student(folder)
    assert tokenizer.pad_token == "<|reserved_special_token_1|>" and model.config.pad_token_id == 63
    assert model.config.vocab_size == 64 and "a reserved token" in notes[0]
    assert torch.allclose(embedding(model)[63], embedding(old).mean(0), atol=1e-6)


@pytest.mark.parametrize("token", ["<|finetune_right_pad_id|>", "[PAD]", "<pad>", "<|pad|>"])
def test_a_token_made_for_padding_is_taken_as_it_is(tmp_path, token):
    folder, old = backbone(tmp_path / "a", tokenizer_of(62, (token, "<|reserved_special_token_0|>")))
    model, tokenizer, _ = open_student(folder)
    assert tokenizer.pad_token == token and model.config.pad_token_id == 60
    assert torch.equal(embedding(model), embedding(old))


def test_a_pad_that_is_bos_or_unk_is_replaced(tmp_path):
    for token, i in (("<bos>", BOS), ("<unk>", 0)):
        folder, _ = backbone(tmp_path / token, tokenizer_of(60, pad_token=token), pad=i)
        model, tokenizer, notes = open_student(folder)
        assert model.config.pad_token_id == tokenizer.pad_token_id == 60 and "has another meaning" in notes[0]


def test_a_pad_of_its_own_stays_and_config_follows_the_tokenizer(tmp_path):
    tokenizer = tokenizer_of(60, ("<|endoftext|>",), pad_token="<|endoftext|>")
    folder, old = backbone(tmp_path / "a", tokenizer, pad=59)
    model, _, notes = open_student(folder)
    assert model.config.pad_token_id == 59 and notes == ["MTP head: the checkpoint has none; it starts fresh"]
    assert torch.equal(embedding(model), embedding(old))
    folder, _ = backbone(tmp_path / "b", tokenizer, pad=None, eos=[EOS, 59])
    model, _, notes = open_student(folder)
    assert model.config.pad_token_id == 59 and model.config.eos_token_id == EOS, "PAD ends nothing"
    assert (
        notes[0] == "PAD is '<|endoftext|>', id 59, as the tokenizer says; it ends no text, though the config says so"
    )


def test_ends_of_the_generation_config_and_the_tokenizer_are_kept(tmp_path):
    folder, _ = backbone(tmp_path / "a", tokenizer_of(60), eos=5)
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    assert open_student(folder)[0].config.eos_token_id == [5, 7, EOS]


@pytest.mark.parametrize("size", [60, 64])
@pytest.mark.parametrize("compressor", ["mlp", None])
def test_saved_with_its_tokenizer_it_loads_again_and_needs_nothing_more(tmp_path, size, compressor):
    folder, _ = backbone(tmp_path / "a", tokenizer_of(size))
    model, tokenizer, _ = open_student(folder, compressor)
    save_model(model, tmp_path / "b", tokenizer)
    again, its = load_model(tmp_path / "b"), load_tokenizer(tmp_path / "b")
    assert its.pad_token_id == again.config.pad_token_id == size
    third, _, notes = open_student(tmp_path / "b", compressor)
    assert notes == [] and third.is_pipo == (compressor is not None)
    for (name, a), b, c in zip(model.named_parameters(), again.parameters(), third.parameters(), strict=True):
        fresh = name.startswith(("compressor", "confidence_head"))
        assert torch.equal(a, b) and (fresh or torch.equal(a, c)), name


def test_text_never_holds_the_new_pad_and_reads_as_before(tmp_path):
    plain = tokenizer_of(64)
    folder, _ = backbone(tmp_path / "a", plain)
    tokenizer, notes = prepare_backbone(folder)
    text = "w3 w40 w63 nothing"
    assert tokenizer.encode(text) == plain.encode(text) and len(notes) == 1
    assert tokenizer.decode([3, 64, 4], skip_special_tokens=True) == "w3 w4"
    assert len(PreTrainedTokenizerFast.from_pretrained(folder)) == 64, "the folder stays as it is"


@pytest.mark.parametrize("size", [60, 64])
@pytest.mark.parametrize("method", [Method("pipo", threshold=0.0), Method("regular")], ids=["pipo", "regular"])
@torch.no_grad()
def test_pad_is_never_sampled(tmp_path, size, method):
    folder, _ = backbone(tmp_path / "a", tokenizer_of(size))
    model = from_backbone(folder, "mlp" if method.pairs else None)
    h = model.run_backbone(model.compress(torch.tensor([[3, 4]])) if method.pairs else model.embed(torch.tensor([[3]])))
    model.lm_head.weight[size] = 50 * h[0, 0]
    assert int(model.lm_head(h)[0, 0].argmax()) == size, "unmasked, PAD would be the likeliest token"
    request = Request(id="a", prompt=(3, 4) if method.pairs else (3,), method=method, max_slots=20, ignore_eos=True)
    tokens = [t for e in TorchEngine(model).generate([request])["a"] for t in e.tokens]
    assert len(tokens) >= 20 and size not in tokens and size not in generate(model, request).tokens


def test_plain_decoding_still_wants_a_pad_and_names_the_way_out(tmp_path):
    folder, _ = backbone(tmp_path / "a", tokenizer_of(64), mtp=True)
    with pytest.raises(BadModel, match=r"no pad_token_id; .*pipo\.model\.sources prepare"):
        load_model(folder)
    folder, _ = backbone(tmp_path / "b", tokenizer_of(64, pad_token="<eos>"), pad=EOS, mtp=True)
    with pytest.raises(BadModel, match=r"PAD and EOS share id 2; .*prepare"):
        load_model(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder, _ = backbone(tmp_path / "a", tokenizer_of(70))
    with pytest.raises(BadModel, match="knows ids up to 69, the model's vocabulary ends at 63"):
        open_student(folder)


def test_without_a_tokenizer_the_config_must_name_pad(tmp_path):
    folder, _ = backbone(tmp_path / "a", None)
    with pytest.raises(BadModel, match="has no pad_token_id"):
        from_backbone(folder)
    with pytest.raises(BadModel, match=r"has no tokenizer\.json"):
        open_student(folder)
