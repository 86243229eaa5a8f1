"""EAGLE over the MTP head of a dense Qwen3, which SGLang has no draft class for (random weights, tied head)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipo.engine.types import Method, Sampling
from pipo.errors import BadInput
from pipo.sglang import launch
from pipo.sglang.facts import read_facts
from pipo.sglang.server import Server
from tests.runtime.drafts_client import accepted, ask, chains, drafting
from tests.runtime.pairs_client import differences, oracle, prompts

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-dense-eagle")]
VOCAB = 320
EAGLE = Method("eagle", depth=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regular dense model whose MTP head is near its backbone, so that drafts are accepted now and then."""
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    made = tiny_model("dense", pipo=False, hidden=64, vocab=VOCAB, std=0.15)
    with torch.no_grad():
        made.lm_head.weight[0] = 0  # SGLang may draft PAD, in vain; ours does not
        fc = dict(made.named_parameters())["mtp.fc.weight"]
        fc.mul_(0.5)
        fc[:, : len(fc)] += torch.eye(len(fc))
    folder = tmp_path_factory.mktemp("dense")
    save_model(made, folder)
    return folder


def test_greedy_equals_torch_engine_with_as_many_drafts_accepted(start: Callable[..., Server], model: Path) -> None:
    url = start(model, "eagle", flags=("--skip-tokenizer-init",), chunk=48).url
    texts = [[3 + i, *p[1:]] for i, p in enumerate(prompts(60, (1, 2, 3, 8, 17, 64, 121), VOCAB))]
    requests = drafting(EAGLE, texts)
    got, want = ask(url, requests), oracle(model, requests)
    assert differences(got, want, requests) == []
    assert [passes for passes, _ in accepted(got)] == [passes for passes, _ in chains(want, 3)]
    assert sum(kept for _, kept in accepted(got)) > 60
    again = drafting(EAGLE, texts, sampling=Sampling(temperature=0, presence_penalty=1.5))
    assert differences(ask(url, again), oracle(model, again), again) == []


def test_a_model_without_a_head_is_refused_before_anything_loads(model: Path, tmp_path: Path) -> None:
    """SGLang itself would draft with random weights and say nothing."""
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    tensors = {name: t for name, t in load_file(model / "model.safetensors").items() if not name.startswith("mtp.")}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="no mtp"):
        launch.check_method(read_facts(tmp_path), EAGLE)
