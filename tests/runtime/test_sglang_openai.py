"""SGLang's OpenAI-compatible server with a PIPO model, asked by the official client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openai import BadRequestError, OpenAI

from pipo.model import load_tokenizer
from pipo.sglang.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang-openai")]
MODEL = Path(__file__).resolve().parents[2] / "pipo" / "lab" / "models" / "pipo-opd"
NAME = str(MODEL)
PROMPT = "a 3 + 4 ="
GATE = {"custom_params": {"threshold": 0.5}}


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    return start(MODEL, "pipo")


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none")


def native(server: Server, **params: object) -> dict[str, object]:
    """The same request by SGLang's own interface."""
    ids = load_tokenizer(MODEL).encode(PROMPT)
    data = {"input_ids": ids, "sampling_params": {"temperature": 0, **GATE, **params}}
    answer = httpx.post(f"{server.url}/generate", json=data, timeout=60)
    answer.raise_for_status()
    return answer.json()  # type: ignore[no-any-return]


def test_completion_is_the_native_answer_with_counts(server: Server, client: OpenAI) -> None:
    want = native(server, max_new_tokens=21, ignore_eos=True)
    got = client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=21, temperature=0, logprobs=2, extra_body={**GATE, "ignore_eos": True}
    )
    choice = got.choices[0]
    assert choice.text == want["text"] and choice.finish_reason == "length"
    assert got.usage is not None and got.usage.completion_tokens == 21
    assert choice.logprobs is not None and len(choice.logprobs.token_logprobs) == 21
    assert all(len(top) == 2 for top in choice.logprobs.top_logprobs)


def test_streaming_adds_up(server: Server, client: OpenAI) -> None:
    want = native(server, max_new_tokens=33, ignore_eos=True)
    chunks = client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=33, temperature=0, stream=True,
        stream_options={"include_usage": True}, extra_body={**GATE, "ignore_eos": True},
    )  # fmt: skip
    text, pieces, usage = "", 0, None
    for chunk in chunks:
        pieces += 1
        text += chunk.choices[0].text if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == want["text"] and pieces > 10
    assert usage is not None and usage.completion_tokens == 33


def test_n_samples_differ(client: OpenAI) -> None:
    got = client.completions.create(
        model=NAME, prompt="a", max_tokens=30, temperature=1.5, n=8, extra_body={**GATE, "ignore_eos": True}
    )
    assert len(got.choices) == 8 and len({c.text for c in got.choices}) > 4


def test_stop_string_ends_the_text_before_it(server: Server, client: OpenAI) -> None:
    whole = str(native(server, max_new_tokens=30, ignore_eos=True)["text"])
    stop = whole.split()[3]
    got = client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=30, temperature=0, stop=[stop], extra_body={**GATE, "ignore_eos": True}
    )
    assert got.choices[0].finish_reason == "stop"
    assert got.choices[0].text == whole[: whole.index(stop)]


def test_chat_streams_and_scores(client: OpenAI) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    whole = client.chat.completions.create(
        model=NAME, messages=messages, max_tokens=20, temperature=0, logprobs=True, top_logprobs=2, extra_body=GATE
    )  # type: ignore[call-overload]
    choice = whole.choices[0]
    assert choice.message.content and choice.finish_reason == "stop"
    assert len(choice.logprobs.content) == whole.usage.completion_tokens
    chunks = client.chat.completions.create(
        model=NAME, messages=messages, max_tokens=20, temperature=0, stream=True, extra_body=GATE
    )  # type: ignore[call-overload]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == choice.message.content


def test_a_bad_threshold_is_an_error_in_words(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"threshold 2 must be a number in \[0, 1\]"):
        client.completions.create(model=NAME, prompt=PROMPT, extra_body={"custom_params": {"threshold": 2}})
