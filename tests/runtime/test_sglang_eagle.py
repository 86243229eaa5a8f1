"""EAGLE in SGLang on a regular lab model: lossless under our sampling settings, and as good as the torch engine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import torch

from pipo.engine.types import Method, Sampling
from pipo.model import load_model
from pipo.sglang.server import Server
from tests.runtime.drafts_client import accepted, agreement, ask, chains, drafting
from tests.runtime.pairs_client import differences, oracle, prompts

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-eagle")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "base"
TEXTS = prompts(100, (1, 2, 3, 5, 8, 17, 33, 64, 120))
EOS = 2
EAGLE, REGULAR = Method("eagle", depth=3), Method("regular")


@pytest.fixture(scope="module")
def url(start: Callable[..., Server]) -> str:
    """Prefill in chunks of 48: the longest prompts come in three, and hits end inside of one."""
    return start(MODEL, "eagle", chunk=48).url


def test_greedy_equals_torch_engine(url: str) -> None:
    requests = drafting(EAGLE, TEXTS)
    assert differences(ask(url, requests), oracle(MODEL, requests), requests) == []


def test_as_many_drafts_are_accepted_as_in_the_torch_engine(url: str) -> None:
    """Without a prefix hit: on a hybrid one may bring an MTP row that was written before another token."""
    httpx.post(f"{url}/flush_cache", timeout=30).raise_for_status()
    requests = drafting(EAGLE, [[3 + i, *p[1:]] for i, p in enumerate(TEXTS)])
    got, want = ask(url, requests), oracle(MODEL, requests)
    assert differences(got, want, requests) == []
    assert sum(a["meta_info"]["cached_tokens"] for a in got) == 0
    ours, theirs = accepted(got), chains(want, 3)
    assert [passes for passes, _ in ours] == [passes for passes, _ in theirs]
    # The last pass may accept beyond the limit of tokens; the torch engine leaves such drafts out.
    assert all(0 <= a - b <= 2 for (_, a), (_, b) in zip(ours, theirs, strict=True))
    assert sum(len(g["output_ids"]) - 1 for g in got) > 1.5 * sum(passes for passes, _ in ours)


@pytest.mark.parametrize(
    "settings",
    [
        {"logprobs": 2},
        {"ignore_eos": False, "max_tokens": 100},
        {"max_tokens": 1},
        {"sampling": Sampling(temperature=0, presence_penalty=1.5)},
        {"sampling": Sampling(temperature=0, frequency_penalty=-0.3, presence_penalty=0.8), "max_tokens": 61},
    ],
    ids=["logprobs", "eos", "one", "presence", "frequency"],
)
def test_settings_equal_regular_decoding(url: str, settings: dict[str, Any]) -> None:
    requests = drafting(REGULAR, TEXTS[:40], **settings)
    assert differences(ask(url, requests), oracle(MODEL, requests), requests) == []


def test_again_from_the_prefix_cache(url: str) -> None:
    long = [p for p in prompts(12, (150, 200), seed=5)]
    grown = drafting(REGULAR, [*long, *(p + q[1:30] for p, q in zip(long, reversed(long), strict=True))])
    first, want = ask(url, grown), oracle(MODEL, grown)
    assert differences(first, want, grown) == []
    again = ask(url, grown)
    assert differences(again, want, grown) == []
    hits = [a["meta_info"]["cached_tokens"] for a in again]
    assert sum(hits) > 0.5 * sum(len(r.prompt) for r in grown), hits


@torch.no_grad()
def test_min_new_tokens_and_repetition_penalty_hold_at_every_place(url: str) -> None:
    """Settings that the torch engine lacks, against one forward pass over everything a token."""
    model, requests = load_model(MODEL), drafting(REGULAR, TEXTS[:12], ignore_eos=False, max_tokens=30)
    got = ask(url, requests, repetition_penalty=1.3, presence_penalty=0.4, min_new_tokens=9)
    for r, answer in zip(requests, got, strict=True):
        out: list[int] = []
        while len(out) < 30 and EOS not in out:
            logits = model.forward_regular(torch.tensor([[*r.prompt, *out]])).logits[0, -1]
            seen = torch.zeros(len(logits)).index_fill(0, torch.tensor(out, dtype=torch.int64), 1)
            logits = logits - 0.4 * seen
            logits = torch.where(logits < 0, logits * 1.3**seen, logits / 1.3**seen)
            logits[[0, EOS] if len(out) < 9 else [0]] = -torch.inf
            out.append(int(logits.argmax()))
        assert answer["output_ids"] == out, r.id


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_k=20, top_p=0.95, presence_penalty=1.5),
        Sampling(temperature=0.8, min_p=0.1, frequency_penalty=0.5),
    ],
    ids=["top-k-top-p-presence", "min-p-frequency"],
)
def test_samples_follow_regular_decoding(url: str, sampling: Sampling) -> None:
    requests = drafting(REGULAR, [TEXTS[11]] * 3000, sampling=sampling, max_tokens=4)
    requests = [msgspec.structs.replace(r, seed=i) for i, r in enumerate(requests)]
    found = agreement(url, MODEL, requests, tokens=4)
    assert found.p > 1e-4, found
    assert found.cells > 15, found


def test_greedy_and_sampled_rows_in_one_pass(url: str) -> None:
    greedy = drafting(REGULAR, TEXTS[:30])
    mixed = [r for pair in zip(greedy, drafting(REGULAR, TEXTS[30:60], sampling=Sampling()), strict=True) for r in pair]
    got = ask(url, mixed)[::2]
    assert differences(got, oracle(MODEL, greedy), greedy) == []
