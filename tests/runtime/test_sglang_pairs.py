"""PIPO in SGLang on the lab's hybrid model: the torch engine's tokens, slots, drafts, confidences and scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipo.engine.types import Method, Request, Sampling
from pipo.model import load_tokenizer
from pipo.sglang.server import Server
from tests.runtime.pairs_client import GREEDY, THRESHOLDS, ask, body, differences, oracle, pairs, prompts

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-pairs")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "pipo-opd"
SIZES = (1, 2, 3, 5, 8, 17, 33, 64, 120)
TEXTS = prompts(100, SIZES)


@pytest.fixture(scope="module")
def url(start: Callable[..., Server]) -> str:
    return start(MODEL, "pipo").url


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_greedy_equals_torch_engine(url: str, threshold: float) -> None:
    method = Method("pipo", threshold=threshold)
    requests = [
        Request(id=str(i), prompt=p, method=method, sampling=GREEDY, max_tokens=40, ignore_eos=True)
        for i, p in enumerate(TEXTS)
    ]
    assert differences(ask(url, requests), oracle(MODEL, requests), requests) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"max_tokens": 13},
        {"max_tokens": 1},
        {"ignore_eos": False, "max_tokens": 100},
        {"max_slots": 11},
        {"logprobs": 2},
        {"sampling": Sampling(temperature=0, presence_penalty=1.5)},
        {"sampling": Sampling(temperature=0, frequency_penalty=-0.3, presence_penalty=0.8)},
    ],
    ids=["odd", "one", "eos", "slots", "logprobs", "presence", "frequency"],
)
def test_settings_equal_torch_engine(url: str, settings: dict[str, Any]) -> None:
    requests = pairs(TEXTS[:40], **settings)
    got, want = ask(url, requests), oracle(MODEL, requests)
    assert differences(got, want, requests) == []
    names = {"eos": "stop", "tokens": "length", "slots": "length"}
    assert [g["meta_info"]["finish_reason"]["type"] for g in got] == [names[w["finish"]] for w in want]


def test_stop_string_inside_a_pair(url: str) -> None:
    tokenizer = load_tokenizer(MODEL)
    requests = pairs(TEXTS[:40])
    texts = [tokenizer.decode(a["output_ids"]) for a in ask(url, requests)]
    stops = [(word,) for t in texts for word in [t.split()[6]]]
    asked = [
        Request(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "stop": stop})
        for r, stop in zip(requests, stops, strict=True)
        if "<" not in stop[0]  # the torch engine looks for stops in the text without special tokens
    ]
    got, want = ask(url, asked), oracle(MODEL, asked)
    assert differences(got, want, asked) == []
    assert sum(g["meta_info"]["finish_reason"]["type"] == "stop" for g in got) > 25


def test_streaming_gives_the_same_tokens_in_order(url: str) -> None:
    request = pairs(TEXTS[7:8], max_tokens=31, logprobs=1)[0]
    whole = ask(url, [request])[0]
    data = {"input_ids": list(request.prompt), "sampling_params": body(request), "stream": True, "return_logprob": True}
    lengths, last = [], {}
    with httpx.stream("POST", f"{url}/generate", json=data, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                last = json.loads(line.removeprefix("data: "))
                lengths.append(len(last["output_ids"]))
    assert last["output_ids"] == whole["output_ids"] and lengths == sorted(lengths) and len(lengths) > 10
    assert max(b - a for a, b in zip([0, *lengths], lengths, strict=False)) <= 2
    assert last["text"] == whole["text"]
    assert last["meta_info"]["pipo"] == whole["meta_info"]["pipo"]


def test_abort_ends_a_request_and_frees_its_place(url: str) -> None:
    request = pairs(TEXTS[8:9], max_tokens=20_000)[0]
    data = {"input_ids": list(request.prompt), "sampling_params": body(request), "stream": True, "rid": "to-abort"}
    last: dict[str, Any] = {}
    with httpx.stream("POST", f"{url}/generate", json=data, timeout=60) as answer:
        for i, line in enumerate(answer.iter_lines()):
            if line.startswith("data: {"):
                last = json.loads(line.removeprefix("data: "))
            if i == 20:
                httpx.post(f"{url}/abort_request", json={"rid": "to-abort"}, timeout=30)
    assert last["meta_info"]["finish_reason"]["type"] == "abort"
    assert len(last["output_ids"]) < 2_000
    after = pairs(TEXTS[:4])
    assert differences(ask(url, after), oracle(MODEL, after), after) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"custom_params": {"threshold": 1.5}}, "threshold 1.5 must be a number in [0, 1]"),
        ({"custom_params": {"threshhold": 0.5}}, "custom_params has threshhold"),
        ({"custom_params": {"max_slots": 0}}, "max_slots 0 must be"),
        ({"json_schema": "{}"}, "constrains one token at a time"),
        ({"custom_params": ["threshold"]}, "must be an object"),
    ],
    ids=["threshold", "unknown", "slots", "grammar", "list"],
)
def test_bad_settings_are_refused_in_words(url: str, change: dict[str, Any], says: str) -> None:
    answer = httpx.post(f"{url}/generate", json={"input_ids": [1, 5, 6], "sampling_params": change}, timeout=30)
    assert answer.status_code == 400 and says in answer.text


def test_log_probabilities_of_the_prompt_are_refused(url: str) -> None:
    data = {"input_ids": [1, 5, 6], "sampling_params": {}, "return_logprob": True, "logprob_start_len": 0}
    answer = httpx.post(f"{url}/generate", json=data, timeout=30)
    assert answer.status_code == 400 and "of the prompt do not exist for pairs" in answer.text


@pytest.mark.parametrize(
    ("ids", "says"),
    [([0, 5], "PAD (0) stands at place 0"), ([5, 128], "outside the vocabulary of 128"), ([], "empty")],
    ids=["pad", "vocabulary", "empty"],
)
def test_bad_prompts_are_refused_in_words(url: str, ids: list[int], says: str) -> None:
    answer = httpx.post(f"{url}/generate", json={"input_ids": ids, "sampling_params": {}}, timeout=30)
    assert answer.status_code == 400 and says in answer.text


def test_sampled_pairs_follow_the_torch_engines_distribution(url: str) -> None:
    """Two-sample chi-square over the first pair and what the gate made of it, 4,000 draws a side."""
    from scipy.stats import chi2_contingency

    draws, sampling = 4_000, Sampling(temperature=1.0, top_k=6, top_p=0.95, presence_penalty=0.5)
    method = Method("pipo", threshold=0.5)
    requests = [
        Request(id=str(i), prompt=TEXTS[11], method=method, sampling=sampling, max_slots=2, max_tokens=4, seed=i,
                ignore_eos=True)
        for i in range(draws)
    ]  # fmt: skip
    want = _tally(tuple(w["tokens"]) for w in oracle(MODEL, requests))
    got = _tally(tuple(g["output_ids"]) for g in ask(url, requests))
    common = [k for k in set(want) | set(got) if want.get(k, 0) + got.get(k, 0) >= 10]
    rest = [sum(n for k, n in t.items() if k not in common) for t in (got, want)]
    table = [[t.get(k, 0) for k in common] + ([r] if sum(rest) else []) for t, r in zip((got, want), rest, strict=True)]
    statistic, p, freedom, _ = chi2_contingency(table)
    assert p > 1e-4, f"chi-square {statistic:.1f} at {freedom} degrees of freedom, p = {p:.2g}"


def _tally(rows: Any) -> dict[tuple[int, ...], int]:
    out: dict[tuple[int, ...], int] = {}
    for row in rows:
        out[row] = out.get(row, 0) + 1
    return out
