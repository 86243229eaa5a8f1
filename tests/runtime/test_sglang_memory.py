"""Small memory: prompts in chunks, requests retracted and resumed, prefixes reused; the output stays the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo.engine.types import Sampling
from pipo.sglang.server import Server
from tests.runtime.pairs_client import ask, differences, oracle, pairs, prompts

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-memory")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "pipo-opd"
RETRACT = {"SGLANG_TEST_RETRACT": "1"}  # SGLang's own switch: retract every third step, as if memory had run out


@pytest.fixture(scope="module")
def url(start: Callable[..., Server]) -> str:
    return start(MODEL, "pipo", environment=RETRACT, max_total=1500, chunk=16, max_running=24).url


@pytest.mark.parametrize(
    "settings",
    [{}, {"sampling": Sampling(temperature=0, presence_penalty=1.5)}, {"logprobs": 1}],
    ids=["greedy", "presence", "logprobs"],
)
def test_chunks_and_retraction_change_nothing(url: str, settings: dict[str, Any]) -> None:
    requests = pairs(prompts(30, (5, 31, 32, 33, 64, 100, 150, 301)), max_tokens=60, **settings)
    got = ask(url, requests)
    assert differences(got, oracle(MODEL, requests), requests) == []
    assert sum(g["meta_info"]["num_retractions"] for g in got) > 20


def test_a_shared_prefix_is_reused_at_chunk_ends(url: str) -> None:
    base = prompts(1, (240,), seed=1)[0]
    requests = pairs([[*base[:200], *tail[1:]] for tail in prompts(8, (11, 30), seed=2)])
    ask(url, requests[:1])
    got = ask(url, requests)
    assert differences(got, oracle(MODEL, requests), requests) == []
    assert min(g["meta_info"]["cached_tokens"] for g in got) >= 160, [g["meta_info"]["cached_tokens"] for g in got]
