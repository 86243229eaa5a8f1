"""Adapters: what trains, equal starts, merged weights equal to the adapted model, files that come back, bad folders."""

import json

import pytest
import torch

from pipo.errors import BadModel
from pipo.model.testing import tiny_model
from pipo.train.lora import IN_FULL, add_lora, apply_adapter, layers, merge, merged_weights, read_adapter, save_adapter
from pipo.train.rollouts import as_served

IDS = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 0, 11, 12]])


def adapted(seed=0, kind="hybrid", trained=True, **more):
    model = tiny_model(kind, layers=4)
    add_lora(model, 4, 8, 0.0, seed, **more)
    if trained:
        torch.manual_seed(1)
        with torch.no_grad():
            for n, p in model.named_parameters():
                if "lora_B" in n:
                    p.normal_(std=0.2)
    return model


@pytest.mark.parametrize("kind", ["hybrid", "dense", "llama"])
def test_adapters_sit_on_the_projections_of_backbone_and_mtp_layer_alone(kind):
    model = adapted(kind=kind)
    names = [n for n, _ in layers(model)]
    full = 1 if kind == "hybrid" else 4  # of four layers, attention with q, k, v, o; the delta rule has none of these
    assert len(names) == full * 4 + 4 * 3 + 7
    assert sum(n.startswith("mtp.layers.0.") for n in names) == 7
    for n, p in model.named_parameters():
        assert p.requires_grad == ("lora_" in n or n.startswith(IN_FULL)), n


def test_a_fresh_mtp_layer_is_trained_in_full():
    model = adapted(fresh_mtp=True)
    assert not any(n.startswith("mtp.") for n, _ in layers(model))
    assert all(p.requires_grad for n, p in model.named_parameters() if n.startswith("mtp."))


def test_start_depends_on_the_seed_and_the_module_alone():
    one, two, other = (dict(adapted(s, trained=False).named_parameters()) for s in (0, 0, 1))
    for n in one:
        if "lora_A" in n:
            assert torch.equal(one[n], two[n]) and not torch.equal(one[n], other[n])
        if "lora_B" in n:
            assert not one[n].any(), "B starts at zero: an untrained adapter changes nothing"


def test_merged_weights_and_merge_and_the_context_give_the_adapted_model():
    model = adapted()
    with torch.no_grad():
        want = model(IDS)
    plain = tiny_model(layers=4)
    plain.load_state_dict(merged_weights(model), strict=False)
    before = {n: m.get_base_layer().weight.detach().clone() for n, m in layers(model)}
    with torch.no_grad():
        with as_served(model, torch.float32):
            inside = {n: m.get_base_layer().weight.detach().clone() for n, m in layers(model)}
        for name, m in layers(model):
            assert torch.equal(m.get_base_layer().weight, before[name]), "the very weights from before are back"
            assert torch.allclose(inside[name], dict(plain.named_parameters())[f"{name}.weight"], atol=1e-6)
        assert (plain(IDS).logits - want.logits).abs().max() < 1e-4
        assert (merge(model)(IDS).mtp_logits - want.mtp_logits).abs().max() < 1e-4
    assert not layers(model)


def test_an_adapter_file_comes_back_in_the_published_names(tmp_path):
    model = adapted()
    save_adapter(model, tmp_path, "base")
    config, tensors = read_adapter(tmp_path)
    from safetensors.torch import load_file

    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert all(n.startswith(("base_model.model.model.layers.", "base_model.model.mtp.", "base_model.model.compressor.",
                             "base_model.model.confidence_head.")) for n in names)  # fmt: skip
    assert config["r"] == 4 and config["lora_alpha"] == 8
    plain = tiny_model(layers=4)
    apply_adapter(plain, config, tensors, tmp_path)
    with torch.no_grad():
        assert (plain(IDS).logits - model(IDS).logits).abs().max() < 1e-4


def test_bad_adapter_folders_are_named(tmp_path):
    with pytest.raises(BadModel, match="has no adapter_config.json"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadModel, match="needs r and lora_alpha"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    with pytest.raises(BadModel, match="cannot be read as safetensors"):
        read_adapter(tmp_path)
    save_adapter(adapted(), tmp_path, "base")
    config, tensors = read_adapter(tmp_path)
    with pytest.raises(BadModel, match=r"makes \[.*\], the model has \[.*\] at"):
        apply_adapter(tiny_model(layers=4, hidden=48), config, tensors, tmp_path)
    with pytest.raises(BadModel, match="belongs to no part of this model"):
        apply_adapter(tiny_model(layers=2), config, tensors, tmp_path)
    alone = {n: t for n, t in tensors.items() if not n.endswith("layers.3.mlp.up_proj.lora_B.weight")}
    with pytest.raises(BadModel, match="has no backbone.layers.3.mlp.up_proj.lora_B.weight beside it"):
        apply_adapter(tiny_model(layers=4), config, alone, tmp_path)
