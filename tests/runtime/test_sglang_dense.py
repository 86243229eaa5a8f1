"""A dense Qwen3 (random weights, untied head, linear compressor, draft vocabulary): exact prefixes, chats, overlap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipo.sglang.server import Server
from tests.runtime.pairs_client import ask, differences, oracle, pairs, prompts

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-dense")]
VOCAB = 320


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Qwen3Config

    from pipo.model import PipoForCausalLM, save_model

    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=2048, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config.compressor_type = "linear"
    torch.manual_seed(0)
    made = PipoForCausalLM(config)
    with torch.no_grad():
        for p in made.parameters():
            if p.dim() > 1:
                p.normal_(std=0.15)
    made.set_draft_vocab(torch.tensor([2, *range(5, VOCAB)]))  # drafts come from most tokens, not from all
    folder = tmp_path_factory.mktemp("dense")
    save_model(made, folder)
    return folder


@pytest.fixture(scope="module")
def url(start: Callable[..., Server], model: Path) -> str:
    return start(model, "pipo").url


def test_greedy_equals_torch_engine_and_again_from_the_cache(url: str, model: Path) -> None:
    requests = pairs(prompts(60, (1, 2, 3, 8, 17, 64, 121), VOCAB))
    want = oracle(model, requests)
    assert differences(ask(url, requests), want, requests) == []
    again = ask(url, requests)
    assert differences(again, want, requests) == []
    # All but a prompt's last pair, whose logits are needed (PADs are no tokens).
    for r, g in zip(requests, again, strict=True):
        assert g["meta_info"]["cached_tokens"] == (len(r.prompt) - 1) // 2 * 2


def test_a_prefix_is_reused_up_to_the_last_pair_with_the_same_follower(url: str, model: Path) -> None:
    base = prompts(1, (100,), VOCAB, seed=3)[0][:100]
    first, second = [*base, 5, 6, 7, 8], [*base, 9, 6, 7, 8]
    requests = pairs([first, second])
    ask(url, requests[:1])
    got = ask(url, requests[1:])
    assert differences(got, oracle(model, requests[1:]), requests[1:]) == []
    assert got[0]["meta_info"]["cached_tokens"] == 98  # the pair before the difference has another follower


def test_a_chat_keeps_its_prefix_by_ids_and_loses_it_by_text(url: str, model: Path) -> None:
    """A history as ids has its PADs and is found again; tokenised anew it has none, and pairs shift after the first."""
    turn = pairs([prompts(1, (60,), VOCAB, seed=4)[0][:60]], max_slots=20, max_tokens=40)[0]
    answer = ask(url, [_with(turn, threshold=0.5)])[0]
    slots = [row for row in answer["meta_info"]["pipo_slots"] if row]
    tokens, places, at = answer["output_ids"], [], 0
    for _, kept, *_ in slots:
        places += [tokens[at], tokens[at + 1]] if kept else [tokens[at], 0]
        at += 2 if kept else 1
    assert 0 in places, "the gate rejected nothing: this history would show nothing"
    more = [11, 12, 13, 14]
    by_ids, by_text = ([*turn.prompt, *h, *more] for h in (places, tokens))
    requests = pairs([by_ids])
    found = ask(url, requests)[0]["meta_info"]
    # The last generated pair was never run, and the one before it only where the follower is the same: it is.
    assert found["cached_tokens"] == len(turn.prompt) + len([t for t in places[:-2] if t])
    lost = ask(url, pairs([by_text]))[0]["meta_info"]["cached_tokens"]
    first_pad = places.index(0)
    assert len(turn.prompt) <= lost + 2 <= len(turn.prompt) + first_pad + 2 < found["cached_tokens"]


def _with(request: Any, threshold: float) -> Any:
    import msgspec

    return msgspec.structs.replace(request, method=msgspec.structs.replace(request.method, threshold=threshold))


def test_under_the_overlap_schedule_tokens_are_the_same_and_late_penalties_are_refused(
    start: Callable[..., Server], model: Path
) -> None:
    url = start(model, "pipo", overlap=True).url
    for settings in ({}, {"ignore_eos": False}, {"logprobs": 2}):
        requests = pairs(prompts(40, (1, 2, 3, 8, 17, 64), VOCAB), **settings)
        assert differences(ask(url, requests), oracle(model, requests), requests) == []
    data = {"input_ids": [3, 4], "sampling_params": {"presence_penalty": 1.5}}
    refused = httpx.post(f"{url}/generate", json=data, timeout=60)
    assert refused.status_code == 400 and "start with --disable-overlap-schedule" in refused.text
