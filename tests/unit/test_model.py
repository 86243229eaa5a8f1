"""The model: compressor starts, shapes, masks, round trips, layouts, and errors that name what is wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipo.errors import BadInput, BadModel
from pipo.model import from_backbone, load_model, save_model
from pipo.model.modules import Compressor
from pipo.model.testing import KINDS, tiny_model

torch.manual_seed(0)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_sum_start_is_exactly_a_plus_b(kind):
    c = Compressor(16, kind)
    c.start("sum")
    e = torch.randn(2, 6, 16)
    assert torch.allclose(c(e), e[:, 0::2] + e[:, 1::2], atol=1e-5)


def test_identity_start_is_silu_of_each():
    c = Compressor(16, "mlp")
    c.start("identity")
    e = torch.randn(2, 6, 16)
    silu = torch.nn.functional.silu
    assert torch.allclose(c(e), silu(e[:, 0::2]) + silu(e[:, 1::2]), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_shapes_and_loss_sum(kind):
    model = tiny_model(kind)
    ids = torch.randint(3, 64, (2, 12))
    out = model(ids, ids)
    assert out.logits.shape == (2, 6, 64) and out.mtp_logits.shape == (2, 5, 64)
    assert out.confidence_logits.shape == (2, 5)
    assert torch.isclose(out.loss, out.backbone_loss + out.mtp_loss + out.confidence_loss)


@pytest.mark.parametrize("kind", KINDS)
def test_right_padding_under_a_mask_changes_nothing(kind):
    model = tiny_model(kind)
    ids = torch.randint(3, 64, (1, 12))
    padded = torch.cat([ids, torch.zeros(1, 6, dtype=torch.long)], 1)
    mask = torch.tensor([[1] * 6 + [0] * 3])
    with torch.no_grad():
        plain, masked = model(ids), model(padded, pair_mask=mask)
    assert torch.allclose(plain.logits, masked.logits[:, :6], atol=1e-5)
    assert torch.allclose(plain.mtp_logits, masked.mtp_logits[:, :5], atol=1e-5)


def test_odd_length_is_refused_with_the_rule():
    with pytest.raises(BadInput, match="5 tokens cannot be paired"):
        tiny_model()(torch.randint(3, 64, (1, 5)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pipo", [True, False])
def test_save_and_load_round_trip(tmp_path, kind, pipo):
    model = tiny_model(kind, pipo)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.is_pipo == pipo
    for (name, a), (other, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b), name


def test_vision_language_layout_loads_and_vision_tower_is_left_out(tmp_path):
    model = tiny_model()
    save_model(model, tmp_path)
    tensors = {k.replace("model.", "model.language_model.", 1) if k.startswith("model.") else k: v
               for k, v in load_file(tmp_path / "model.safetensors").items()}  # fmt: skip
    tensors["model.visual.blocks.0.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    raw = json.loads((tmp_path / "config.json").read_text())
    ours = {k: raw.pop(k) for k in ("compressor_type", "tie_word_embeddings")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_5", "text_config": raw, **ours}))
    ids = torch.randint(3, 64, (1, 8))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids).logits, model(ids).logits)


def test_native_mtp_is_taken_and_fresh_heads_are_made(tmp_path):
    regular = tiny_model(pipo=False)
    save_model(regular, tmp_path)
    model = from_backbone(tmp_path, "mlp", "sum")
    assert model.is_pipo and torch.equal(model.mtp.fc.weight, regular.mtp.fc.weight)
    tensors = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if not k.startswith("mtp.")}
    save_file(tensors, tmp_path / "model.safetensors")
    fresh = from_backbone(tmp_path, "linear", "random")
    assert not torch.equal(fresh.mtp.fc.weight, regular.mtp.fc.weight)
    assert torch.equal(fresh.backbone.embed_tokens.weight, regular.backbone.embed_tokens.weight)
    with pytest.raises(BadModel, match=r"missing tensors mtp\."):
        load_model(tmp_path)


def _folder(tmp_path):
    save_model(tiny_model(), tmp_path)
    return tmp_path, load_file(tmp_path / "model.safetensors"), json.loads((tmp_path / "config.json").read_text())


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    folder, tensors, _ = _folder(tmp_path)
    tensors["stray"] = tensors.pop("compressor.mlp.0.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BadModel, match=r"missing tensor compressor\.mlp\.0\.weight; unexpected tensor stray"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pad_token_id": None}, "no pad_token_id"),
        ({"pad_token_id": 2}, "PAD and EOS share id 2"),
        ({"pad_token_id": 64}, "outside the vocabulary of 64"),
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"compressor_type": None}, "weights hold a compressor"),
        ({"compressor_type": "conv"}, "compressor_type 'conv'"),
        ({"intermediate_size": 32}, "config.json asks for"),
    ],
)
def test_bad_configs_state_value_and_rule(tmp_path, change, message):
    folder, _, config = _folder(tmp_path)
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BadModel, match=message):
        load_model(folder)


def test_pickled_weights_are_refused(tmp_path):
    folder, _, _ = _folder(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BadModel, match="pickled weights"):
        load_model(folder)


def test_truncated_weights_are_refused(tmp_path):
    folder, _, _ = _folder(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadModel, match="cannot be read as safetensors"):
        load_model(folder)


def test_threads_follow_the_model_at_hand(monkeypatch):
    from pipo.model import threads

    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "ALL", 2)
    try:
        threads.fit_threads(torch.nn.Linear(4, 4))
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(threads, "SMALL", 10)
        threads.fit_threads(torch.nn.Linear(4, 4))
        assert torch.get_num_threads() == 2, "a large model after a small one gets all threads again"
    finally:
        torch.set_num_threads(before)
