"""Decoding step by step equals one training forward on the same tokens: both heads and the confidence, in float32."""

import pytest
import torch

from pipo.engine import TorchEngine
from pipo.engine import forward as fw
from pipo.engine.types import Method, Request, Sampling
from pipo.model.testing import KINDS, tiny_model


@pytest.fixture
def heard(monkeypatch):
    """Every tensor of logits and confidences that decoding reads, in order."""
    seen = {"logits": [], "draft_logits": [], "confidence": []}
    for name in seen:
        plain = getattr(fw, name)

        def listen(*args, name=name, plain=plain):
            out = plain(*args)
            seen[name].append(out.clone())
            return out

        monkeypatch.setattr(fw, name, listen)
    return seen


def close(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    """Equal to 1e-4 but at PAD (place 0), which the engine masks."""
    worst = (ours[..., 1:] - theirs[..., 1:]).abs().max().item()
    assert worst < 1e-4, f"{what}: largest difference {worst:.2e}"


def generated(model, method: Method, prompt: tuple[int, ...]) -> list[int]:
    """Places that one request generates."""
    request = Request(id="a", prompt=prompt, method=method, sampling=Sampling(top_k=20), seed=3, max_slots=24,
                      ignore_eos=True)  # fmt: skip
    return [x for e in TorchEngine(model).generate([request])["a"] for x in e.places]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [2, 9, 70])
def test_pipo_decode_equals_one_training_forward(heard, kind, length):
    model = tiny_model(kind, pipo=True)
    prompt = [3 + i % 60 for i in range(length)]
    places = generated(model, Method("random", keep_rate=0.5), tuple(prompt))
    pads = places[1::2].count(0)
    assert 0 < pads < len(places) // 2, "the test needs kept and rejected drafts"
    for tensors in heard.values():
        tensors.clear()
    places = generated(model, Method("pipo", threshold=0.5), tuple(prompt))
    ids = prompt + [0] * (length % 2) + places
    with torch.inference_mode():
        want = model(torch.tensor([ids + [0, 0]]))
    start = (length + 1) // 2 - 1
    backbone, drafts = heard["logits"], heard["draft_logits"]
    assert len(backbone) == len(drafts) == len(heard["confidence"]) == 24
    for step in range(24):
        close(backbone[step][0], want.logits[0, start + step], f"backbone, step {step}")
        close(drafts[step][0], want.mtp_logits[0, start + step], f"MTP, step {step}")
        c = want.confidence_logits[0, start + step].sigmoid()
        assert abs(heard["confidence"][step].item() - c.item()) < 1e-4, f"confidence, step {step}"


@pytest.mark.parametrize("kind", KINDS)
def test_mtp_decode_equals_one_training_forward(heard, kind):
    model = tiny_model(kind, pipo=False)
    prompt = list(range(3, 14))
    places = generated(model, Method("mtp"), tuple(prompt))
    with torch.inference_mode():
        want = model.forward_regular(torch.tensor([prompt + places]))
    at = len(prompt) - 1
    assert len(heard["logits"]) == len(heard["draft_logits"]) == 12
    for i, (backbone, draft) in enumerate(zip(heard["logits"], heard["draft_logits"], strict=True)):
        close(backbone[0], want.logits[0, at + 2 * i], f"backbone, step {i}")
        close(draft[0], want.mtp_logits[0, at + 2 * i], f"MTP, step {i}")


@pytest.mark.parametrize("kind", KINDS)
def test_eagle_targets_and_first_drafts_equal_one_training_forward(heard, kind):
    model = tiny_model(kind, pipo=False)
    prompt = list(range(3, 14))
    places = generated(model, Method("eagle", depth=2), tuple(prompt))
    with torch.inference_mode():
        want = model.forward_regular(torch.tensor([prompt + places + [0, 0, 0, 0]]))
    close(heard["logits"][0][0], want.logits[0, len(prompt) - 1], "prefill")
    request = Request(id="a", prompt=tuple(prompt), method=Method("eagle", depth=2), sampling=Sampling(top_k=20),
                      seed=3, max_slots=24, ignore_eos=True)  # fmt: skip
    for tensors in heard.values():
        tensors.clear()
    events = TorchEngine(model).generate([request])["a"]
    at, drafts = len(prompt) - 1, heard["draft_logits"]
    for i, (event, targets) in enumerate(zip(events[1:], heard["logits"][1:], strict=True)):
        close(drafts[2 * i][0], want.mtp_logits[0, at], f"step {i}, first draft")
        for j in range(event.slots):
            close(targets[j], want.logits[0, at + 1 + j], f"step {i}, target {j}")
        at += event.slots
