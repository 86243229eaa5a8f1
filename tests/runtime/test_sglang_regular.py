"""The same server for a regular model: plain SGLang decoding, equal to the torch engine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipo.engine.types import Sampling
from pipo.sglang.server import Server
from tests.runtime.pairs_client import ask, differences, oracle, prompts, regular

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-regular")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "control"
TEXTS = prompts(100, (1, 2, 3, 5, 8, 17, 33, 64, 120))


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    return start(MODEL, "regular", flags=("--disable-overlap-schedule",))


def test_greedy_equals_torch_engine(server: Server) -> None:
    requests = regular(TEXTS)
    assert differences(ask(server.url, requests), oracle(MODEL, requests), requests) == []


def test_penalties_and_log_probabilities_equal_torch_engine(server: Server) -> None:
    for settings in ({"sampling": Sampling(temperature=0, presence_penalty=1.5)}, {"logprobs": 2}):
        requests = regular(TEXTS[:30], **settings)
        assert differences(ask(server.url, requests), oracle(MODEL, requests), requests) == []


def test_hooks_are_verified_in_every_process(server: Server) -> None:
    lines = [line for line in server.log.read_text().splitlines() if "hooks verified" in line]
    assert len(lines) >= 3, "the server itself, the scheduler, the detokenizer"
