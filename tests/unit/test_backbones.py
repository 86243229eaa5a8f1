"""Published checkpoints of every backbone family: what transformers writes is what our models compute."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pipo.engine import TorchEngine
from pipo.engine.layout import make_weights
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadModel
from pipo.model import from_backbone, load_model, save_model
from pipo.model.modeling import BACKBONES
from pipo.model.testing import KINDS, tiny_config, tiny_model
from pipo.sglang.facts import KNOWN, read_facts

IDS = torch.tensor([[5, 9, 3, 44, 17, 30, 8, 61, 12, 20, 33, 4]])
PUBLISHED = tuple(k for k in KINDS if k != "hybrid")  # the hybrid's own class saves a vision-language layout


def published(folder, kind: str, tied: bool, **more):
    """A random model of transformers' own class, saved by it: its folder and itself."""
    torch.manual_seed(1)
    config = tiny_config(kind, tie_word_embeddings=tied, **more)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if p.ndim == 2 or name.endswith("bias"):
                p.normal_(std=0.15)
    theirs.save_pretrained(folder, max_shard_size="40KB")
    return folder, theirs


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.forward_regular(IDS).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_checkpoint_of_transformers_gives_its_logits(tmp_path, kind, tied):
    folder, theirs = published(tmp_path, kind, tied)
    assert len(list(folder.glob("*.safetensors"))) > 1, "the test is of shards"
    ours = from_backbone(folder, None)
    with torch.no_grad():
        assert torch.allclose(logits(ours), theirs(IDS).logits, atol=1e-5)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_regular_decoding_equals_generate_of_transformers(tmp_path, kind):
    folder, theirs = published(tmp_path, kind, True)
    prompt = tuple(IDS[0].tolist())
    want = theirs.generate(IDS, max_new_tokens=20, do_sample=False, suppress_tokens=[0], eos_token_id=None)
    request = Request(id="a", prompt=prompt, method=Method("regular"), sampling=Sampling(temperature=0.0), max_slots=20,
                      ignore_eos=True)  # fmt: skip
    events = TorchEngine(from_backbone(folder, None)).generate([request])["a"]
    assert [t for e in events for t in e.tokens] == want[0, len(prompt) :].tolist()


def test_old_names_of_a_llama_config_and_stored_frequencies_load(tmp_path):
    folder, theirs = published(tmp_path, "llama3", True)
    raw = json.loads((folder / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"], raw["rope_scaling"] = rope.pop("rope_theta"), rope
    (folder / "config.json").write_text(json.dumps(raw))
    shard = sorted(folder.glob("*.safetensors"))[0]
    save_file({**load_file(shard), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, shard)
    with torch.no_grad():
        assert torch.allclose(logits(from_backbone(folder, None)), theirs(IDS).logits, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_pipo_layout_loads_for_every_backbone(tmp_path, kind):
    model = tiny_model(kind)
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    moved = {
        k.replace("model.", "model.language_model.", 1) if k.startswith("model.") else k: t
        for k, t in tensors.items()
        if k != "lm_head.weight"
    }
    assert any(k.startswith("mtp.layers.0.") for k in moved) and "confidence_head.fc1.weight" in moved
    save_file(moved, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_mtp_head_is_the_same_for_a_seed_and_has_no_stray_numbers(tmp_path, kind):
    save_model(tiny_model(kind, pipo=False), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: t for k, t in tensors.items() if not k.startswith("mtp.")}, tmp_path / "model.safetensors")
    one, two, other = (dict(from_backbone(tmp_path, seed=s).mtp.named_parameters()) for s in (0, 0, 1))
    H = one["fc.weight"].shape[0]
    assert torch.equal(one["fc.weight"], torch.cat([torch.zeros(H, H), torch.eye(H)], 1)), "the hidden alone at first"
    for name, p in one.items():
        assert torch.equal(p, two[name]) and p.abs().max() < 2, name
        if name.endswith("_proj.bias"):
            assert not p.any(), f"{name} starts at zero"
    assert any(not torch.equal(p, other[name]) for name, p in one.items())


def test_biases_in_the_mlp_are_refused_rather_than_left_out(tmp_path):
    folder, _ = published(tmp_path, "llama", True, mlp_bias=True)
    with pytest.raises(BadModel, match="mlp_bias True is not supported"):
        from_backbone(folder)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}, "sliding_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
    ],
)
def test_what_the_engine_lacks_is_named(tmp_path, kind, change, words):
    folder, _ = published(tmp_path, kind, True, **change)
    with pytest.raises(BadModel, match=words):
        make_weights(from_backbone(folder))


@pytest.mark.parametrize("pipo", [True, False])
def test_sglang_refuses_a_llama_in_one_line_with_the_way_out(tmp_path, pipo):
    save_model(tiny_model("llama", pipo), tmp_path)
    with pytest.raises(BadModel, match="'llama' is not supported by the SGLang engine.*use the torch engine") as told:
        read_facts(tmp_path)
    assert "\n" not in str(told.value) and set(KNOWN) < set(BACKBONES)
