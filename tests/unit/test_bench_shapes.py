"""Shapes by name, and random models of them."""

import json
from pathlib import Path

import pytest
import torch

from bench.shapes import SHAPES, random_model, shape_config
from pipo.errors import BadInput, BadModel
from pipo.lab.recipe import student_config
from pipo.model import PipoForCausalLM
from pipo.model.testing import tiny_config


def numbers(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions"), [("158m", (155, 161)), ("qwen3.5-4b", (3900, 4600)), ("qwen3.5-9b", (8500, 9700))]
)
def test_a_shape_has_the_size_of_its_name(name: str, millions: tuple[int, int]) -> None:
    config = shape_config(name)
    with torch.device("meta"):
        model = PipoForCausalLM(config)
    backbone = numbers(model.backbone) + (0 if config.tie_word_embeddings else numbers(model.lm_head))
    assert millions[0] < backbone / 1e6 < millions[1], backbone


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_a_pipo_model_with_room(name: str) -> None:
    config = shape_config(name)
    assert config.compressor_type == "mlp" and config.max_position_embeddings >= 131_072 + 64
    kinds = config.layer_types
    assert 4 * kinds.count("full_attention") == len(kinds) and kinds[3] == "full_attention"
    assert config.pad_token_id not in (config.eos_token_id, None) and config.pad_token_id < config.vocab_size


def test_the_lab_shape_is_the_students() -> None:
    ours, theirs = shape_config("lab").to_dict(), student_config().to_dict()
    assert {k for k in theirs if ours[k] != theirs[k]} == {"max_position_embeddings"}


def test_a_shape_may_be_a_config_file(tmp_path: Path) -> None:
    config = tiny_config("dense")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    for path in (tmp_path, tmp_path / "config.json"):
        read = shape_config(str(path))
        assert (read.hidden_size, read.compressor_type) == (config.hidden_size, "mlp")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(BadModel, match="gpt2"):
        shape_config(str(tmp_path))
    for wrong in ("qwen3.5-4B", str(tmp_path / "none.json")):
        with pytest.raises(BadInput, match=r"shapes are lab, 158m, qwen3\.5-4b, qwen3\.5-9b"):
            shape_config(wrong)


@pytest.mark.parametrize("kind", ["hybrid", "dense", "llama", "qwen2"])
def test_a_random_model_starts_as_a_fresh_one_but_for_its_draws(kind: str) -> None:
    config = tiny_config(kind)  # type: ignore[arg-type]
    config.compressor_type = "mlp"
    model, fresh = random_model(config, "cpu", torch.float32), PipoForCausalLM(config)
    want = dict(fresh.named_parameters())
    assert list(want) == [n for n, _ in model.named_parameters()], "tied where the config ties"
    for name, p in model.named_parameters():
        if p.ndim == 1 and not name.endswith("A_log"):
            assert torch.equal(p, want[name]), name
    for name, buffer in fresh.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name)), name
    assert torch.equal(model.compressor.mlp[0].weight, fresh.compressor.mlp[0].weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_random_model_gives_finite_hiddens_and_the_same_for_a_seed(dtype: torch.dtype) -> None:
    config = shape_config("lab")
    model = random_model(config, "cpu", dtype, seed=3)
    assert {p.dtype for p in model.parameters()} == {dtype} and not model.training
    assert model.backbone.rotary_emb.inv_freq.dtype == torch.float32
    ids = torch.randint(3, config.vocab_size, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        h, d = model.hiddens(ids)
    assert h.isfinite().all() and d.isfinite().all() and h.float().std() > 0.1
    again, other = random_model(config, "cpu", dtype, seed=3), random_model(config, "cpu", dtype, seed=4)
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
