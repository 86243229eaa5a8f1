"""Unverified MTP in SGLang on a regular lab model: the torch engine's tokens, and its samples' distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from pipo.engine.types import Method, Sampling
from pipo.sglang.server import Server
from tests.runtime.drafts_client import accepted, agreement, ask, drafting
from tests.runtime.pairs_client import differences, oracle, prompts

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-mtp")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "base"
TEXTS = prompts(100, (1, 2, 3, 5, 8, 17, 33, 64, 120))
MTP = Method("mtp")


@pytest.fixture(scope="module")
def url(start: Callable[..., Server]) -> str:
    return start(MODEL, "mtp", chunk=48).url


def test_greedy_equals_torch_engine_and_keeps_every_draft(url: str) -> None:
    requests = drafting(MTP, TEXTS)
    got = ask(url, requests)
    assert differences(got, oracle(MODEL, requests), requests) == []
    assert accepted(got) == [(20, 20)] * 100


@pytest.mark.parametrize(
    "settings",
    [
        {"logprobs": 2},
        {"ignore_eos": False, "max_tokens": 100},
        {"max_tokens": 13},
        {"sampling": Sampling(temperature=0, presence_penalty=1.5)},
        {"sampling": Sampling(temperature=0, frequency_penalty=-0.3, presence_penalty=0.8), "max_tokens": 61},
    ],
    ids=["logprobs", "eos", "odd", "presence", "frequency"],
)
def test_settings_equal_torch_engine(url: str, settings: dict[str, Any]) -> None:
    requests = drafting(MTP, TEXTS[:40], **settings)
    assert differences(ask(url, requests), oracle(MODEL, requests), requests) == []


def test_samples_follow_the_torch_engine(url: str) -> None:
    sampling = Sampling(temperature=1.0, top_k=20, top_p=0.95, presence_penalty=1.5)
    requests = drafting(MTP, [TEXTS[11]] * 3000, sampling=sampling, max_tokens=4)
    requests = [msgspec.structs.replace(r, seed=i) for i, r in enumerate(requests)]
    found = agreement(url, MODEL, requests, tokens=4)
    assert found.p > 1e-4, found
    assert found.cells > 15, found


def test_a_grammar_is_refused_in_words(url: str) -> None:
    data = {"input_ids": [1, 5, 6], "sampling_params": {"regex": "a+"}}
    answer = httpx.post(f"{url}/generate", json=data, timeout=30)
    assert answer.status_code == 400 and "a draft that is kept would escape it" in answer.text
