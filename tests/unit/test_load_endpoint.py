"""Requests to endpoints that answer, fail, hang and lie: each becomes a record with a reason, none a traceback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bench.load.drive import How
from bench.load.http_drive import HttpDrive
from bench.load.job import run
from bench.load.records import RequestRecord
from bench.load.workload import Ask
from pipo.errors import BadInput
from pipo.jobs import LocalContext
from pipo.sglang.machine import free_port
from tests.unit.load_servers import DONE, SSE, Answer, Endpoint, Writer, event, says

pytestmark = pytest.mark.slow

PLAIN = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n%s"
HEAD, TAIL = event("a", token_ids=[5]), event("", "stop")


def ask(answer: Answer, timeout_s: float = 10.0, count: int = 1) -> list[RequestRecord]:
    """Records of so many requests at once to an endpoint."""
    with Endpoint(answer) as server:
        drive = HttpDrive(f"{server.url}/v1/completions", {}, lambda a: {"prompt": a.text}, "p", "v")
        asks = [Ask(i, 0.0, i, text="x", max_tokens=4) for i in range(count)]
        return drive.run(asks, How(timeout_s=timeout_s)).records


def test_a_whole_answer_has_times_tokens_and_text() -> None:
    (r,) = ask(says(SSE, event("a ", token_ids=[5]), event("b c", token_ids=[6, 7]), TAIL, DONE, pause_s=0.03))
    assert (r.status, r.finish, r.text, r.ids) == ("ok", "eos", "a b c", [5, 6, 7])
    assert r.chunk_tokens == [1, 2] and r.counted == "ids" and r.tokens == 3
    assert 0.02 < r.first_s < r.pair_s == r.chunk_s[1] and r.chunk_s[1] - r.chunk_s[0] > 0.02


def test_usage_that_grows_tells_the_tokens_of_chunks() -> None:
    parts = [event("a", usage={"completion_tokens": 1, "prompt_tokens": 9})]
    parts += [event("b", usage={"completion_tokens": 3}), event("", "length", usage={"completion_tokens": 3})]
    (r,) = ask(says(SSE, *parts, DONE, pause_s=0.02))
    assert (r.chunk_tokens, r.counted, r.prompt_tokens, r.finish) == ([1, 2], "usage", 9, "tokens")


def test_a_total_at_the_end_is_spread_and_said_to_be_a_guess() -> None:
    last = b'data: {"choices":[],"usage":{"completion_tokens":4,"prompt_tokens":2}}\n\n'
    (r,) = ask(says(SSE, event("a"), event("b"), TAIL, last, DONE, pause_s=0.02))
    assert (r.chunk_tokens, r.counted) == ([2, 2], "chunks")


def test_chunks_of_one_read_are_one_chunk() -> None:
    (r,) = ask(says(SSE, event("a", token_ids=[5]) + event("b", token_ids=[6]), TAIL + DONE, pause_s=0.03))
    assert r.chunk_tokens == [2] and r.first_s == r.pair_s


def test_chunks_of_http_that_came_in_one_read_are_one_chunk() -> None:
    """A client that was late finds several steps in its socket; they did not come microseconds apart."""
    head = SSE.replace(b"Connection: close", b"Transfer-Encoding: chunked")
    frames = [b"%x\r\n%s\r\n" % (len(e), e) for e in (event("a", token_ids=[5]), event("b", token_ids=[6]))]
    last = [b"%x\r\n%s\r\n" % (len(e), e) for e in (event("c", token_ids=[7]), TAIL)]
    (r,) = ask(says(head, b"".join(frames), b"".join(last) + b"0\r\n\r\n", pause_s=0.03))
    assert (r.status, r.chunk_tokens, r.ids) == ("ok", [2, 1], [5, 6, 7])


def test_chat_deltas_and_thinking_are_text() -> None:
    parts = [
        event(delta={"role": "assistant"}),
        event(delta={"reasoning_content": "hm "}),
        event(delta={"content": "a"}),
    ]
    (r,) = ask(says(SSE, *parts, TAIL, DONE, pause_s=0.02))
    assert r.text == "hm a" and r.status == "ok" and r.tokens == 2


def test_comments_and_carriage_returns_are_no_matter() -> None:
    (r,) = ask(says(SSE, b": ping\r\n\r\n" + HEAD.replace(b"\n", b"\r\n"), TAIL + DONE, pause_s=0.02))
    assert r.status == "ok" and r.tokens == 1


def test_a_last_event_without_its_empty_line_counts() -> None:
    (r,) = ask(says(SSE, HEAD, TAIL.rstrip(b"\n"), pause_s=0.02))
    assert r.status == "ok" and r.finish == "eos"


async def hang(writer: Writer, body: dict[str, Any]) -> None:
    await asyncio.sleep(30)


async def hang_in_the_middle(writer: Writer, body: dict[str, Any]) -> None:
    writer.write(SSE + HEAD)
    await asyncio.sleep(30)


async def drip(writer: Writer, body: dict[str, Any]) -> None:
    """Bytes that never make an event."""
    writer.write(SSE)
    for _ in range(3000):
        writer.write(b":")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [hang, hang_in_the_middle, drip])
def test_an_endpoint_that_hangs_times_out(answer: Answer) -> None:
    (r,) = ask(answer, timeout_s=0.3)
    assert r.status == "timeout" and "0.3 s after it was due" in (r.error or "")
    assert r.ended_s < 2.0 and r.finish == ""


BAD = {
    "says nothing and closes": ([], "the connection broke before anything came"),
    "is no HTTP": ([b"\x00\xff\x00 garbage\r\n\r\n"], "the connection broke before anything came"),
    "closes in the middle": ([SSE, HEAD], "the stream closed before its end, after 1 chunks of text"),
    "breaks its own length": (
        [SSE.replace(b"Connection: close", b"Content-Length: 9999"), HEAD],
        "the connection broke in the middle of the answer",
    ),
    "breaks its chunking": (
        [SSE.replace(b"Connection: close", b"Transfer-Encoding: chunked") + b"5\r\nda"],
        "the connection broke",
    ),
    "answers 500": ([PLAIN % (b"500 Oops", b'{"error": "the model\\n is lost"}')], 'HTTP 500: {"error": "the model'),
    "answers 404": ([PLAIN % (b"404 Not Found", b"")], "HTTP 404: nothing"),
    "answers 429": ([PLAIN % (b"429 Too Many Requests", b"slow down")], "HTTP 429: slow down"),
    "redirects": ([b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"], "HTTP 302"),
    "answers without a stream": ([PLAIN % (b"200 OK", b'{"choices": []}')], "no stream but application/json"),
    "answers with a page": ([SSE.replace(b"event-stream", b"html"), b"<html>login"], "no stream but text/html: <html>"),
    "sends no JSON": ([SSE, b"data: {oops\n\n"], "a chunk is no completion"),
    "sends other JSON": ([SSE, b'data: {"choices": "none"}\n\n'], "a chunk is no completion"),
    "sends no UTF-8": ([SSE, b'data: {"choices":[{"text":"\xff\xfe"}]}\n\n'], "a chunk is no completion"),
    "sends a list": ([SSE, b"data: [1, 2]\n\n"], "a chunk is no completion"),
    "nests for ever": ([SSE, b"data: " + b"[" * 100_000 + b"\n\n"], "a chunk is no completion"),
    "sends 10 MB in a chunk": ([SSE, b"data: " + b"x" * (10 << 20) + b"\n\n"], "longer than 1 MiB"),
    "sends 10 MB without a line": ([SSE, b"x" * (10 << 20)], "longer than 1 MiB"),
    "sends 10 MB in data lines": ([SSE, (b"data: " + b"x" * 1000 + b"\n") * 10_000], "longer than 1 MiB"),
    "sends an error": ([SSE, b'data: {"error": {"message": "out of memory"}}\n\n'], "the endpoint said: {'message'"),
    "ends at once": ([SSE, DONE], "without a finish_reason, after 0 chunks"),
    "does not say why it ends": ([SSE, HEAD, DONE], "without a finish_reason, after 1 chunks"),
    "ends without a token": ([SSE, TAIL, DONE], "the answer is empty"),
    "was filtered": ([SSE, HEAD, event("", "content_filter"), DONE], "ended it by 'content_filter'"),
    "was aborted": ([SSE, HEAD, event("", "abort"), DONE], "ended it by 'abort'"),
    "tells too many tokens": ([SSE, event("a", usage={"completion_tokens": 1 << 40})], "which cannot be"),
    "tells fewer than none": ([SSE, event("a", usage={"completion_tokens": -3})], "which cannot be"),
    "lies about its coding": (
        [SSE.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"), HEAD],
        "DecodingError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_endpoint_that(name: str) -> None:
    parts, why = BAD[name]
    (r,) = ask(says(*parts, pause_s=0.01))
    assert r.status == "failed" and why in (r.error or ""), r.error
    assert len(r.error or "") < 700 and "\n" not in (r.error or "")


def test_a_refused_connection_is_a_failed_request() -> None:
    drive = HttpDrive(f"http://127.0.0.1:{free_port('127.0.0.1')}/v1/completions", {}, lambda a: {}, "p", "v")
    (r,) = drive.run([Ask(0, 0.0, 0, text="x")], How()).records
    assert r.status == "failed" and "no connection (" in (r.error or "")


def test_one_bad_request_costs_no_other() -> None:
    async def answer(writer: Writer, body: dict[str, Any]) -> None:
        n = len(server.bodies)
        writer.write(SSE + HEAD + (b"" if n % 3 == 0 else TAIL + DONE))

    with Endpoint(answer) as server:
        drive = HttpDrive(f"{server.url}/v1/completions", {}, lambda a: {"n": a.number}, "p", "v")
        records = drive.run([Ask(i, 0.01 * i, 0) for i in range(9)], How()).records
    assert [r.index for r in records] == list(range(9))
    assert sum(r.status == "ok" for r in records) == 6 and sum(r.status == "failed" for r in records) == 3


def test_times_count_from_when_a_request_was_due() -> None:
    (r,) = ask(says(SSE, HEAD, TAIL + DONE, pause_s=0.05))
    assert r.due_s == 0.0 and r.sent_s >= 0.0 and r.first_s >= 0.05 and r.ended_s >= r.first_s


# Jobs


def job(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    spec = {"url": url, "rates": [200.0], "requests": 8, "input_tokens": 4, "output_tokens": 4, "warmup": 1, **more}
    return run(spec, LocalContext(folder))


def good(pause_s: float = 0.002) -> Answer:
    return says(
        SSE, event("a ", token_ids=[5, 6]), event("b", token_ids=[7]), event("", "length"), DONE, pause_s=pause_s
    )


def test_a_job_measures_the_first_model_listed(tmp_path: Path) -> None:
    with Endpoint(good()) as server:
        summary = job(tmp_path, server.url, slo={"ttft": 5.0})
    (row,) = summary["rows"]
    assert (row["variant"], row["ok"], row["failed"], row["tokens"]) == ("tiny", 8, 0, 24)
    assert row["goodput"]["share"]["value"] == 1.0 and row["counted"] == "ids"
    assert summary["client"][0]["side"] == "endpoint" and "not readable" in row["energy"]["why"]
    bodies = [b for b in server.bodies if b["max_tokens"] == 4]
    assert len(bodies) == 8 and all(b["model"] == "tiny" and b["stream"] and b["ignore_eos"] for b in bodies)


def test_an_endpoint_of_the_standard_alone_gets_the_standard(tmp_path: Path) -> None:
    async def strict(writer: Writer, body: dict[str, Any]) -> None:
        known = {"model", "stream", "stream_options", "temperature", "top_p", "seed", "max_tokens", "prompt"}
        if set(body) - known or body.get("stream_options", {}).keys() - {"include_usage"}:
            writer.write(PLAIN % (b"400 Bad Request", b"unknown field"))
        else:
            await good()(writer, body)

    with Endpoint(strict) as server:
        summary = job(tmp_path, server.url)
    assert summary["rows"][0]["ok"] == 8
    assert any("refuses ignore_eos" in n for n in summary["notes"])


def test_variants_of_an_endpoint_are_models_and_thresholds(tmp_path: Path) -> None:
    with Endpoint(good()) as server:
        summary = job(tmp_path, server.url, variants=["org/other:7b", "low=tiny:pipo:threshold=0.5"])
    assert [r["variant"] for r in summary["rows"]] == ["org/other:7b", "low"]
    assert {b["model"] for b in server.bodies} == {"org/other:7b", "tiny"}
    assert all(b["custom_params"] == {"threshold": 0.5} for b in server.bodies if b["model"] == "tiny")


def test_a_key_is_sent_and_never_kept(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret-123\n")
    with Endpoint(good()) as server:
        job(tmp_path / "run", server.url, api_key_file=str(tmp_path / "key"))
    assert all(b"Bearer sk-secret-123" in head for head in server.heads)
    assert all(b"sk-secret" not in f.read_bytes() for f in (tmp_path / "run").iterdir())


def test_an_endpoint_that_fails_every_request_still_ends_in_a_summary(tmp_path: Path) -> None:
    with Endpoint(says(PLAIN % (b"500 Oops", b"lost"))) as server:
        summary = job(tmp_path, server.url, slo={"ttft": 1.0})
    (row,) = summary["rows"]
    assert (row["ok"], row["failed"], row["ttft"]) == (0, 8, None)
    assert row["reasons"] == [{"error": "HTTP 500: lost", "count": 8}]
    assert row["goodput"]["share"]["value"] == 0.0
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("models", "status", "variants", "says_"),
    [
        (b"[]", b"200 OK", None, "lists no models"),
        (b"\xff\x00garbage", b"200 OK", None, "lists no models"),
        (b"{}", b"401 Unauthorized", None, "wants another key"),
        (b'{"data": [{"id": "tiny"}]}', b"200 OK", ["huge"], "has no model 'huge'"),
        (b'{"data": [{"id": "tiny"}]}', b"200 OK", ["tiny", "tiny"], "two variants are named"),
    ],
)
def test_what_cannot_be_asked_is_bad_input(
    tmp_path: Path, models: bytes, status: bytes, variants: Any, says_: str
) -> None:
    with Endpoint(good(), models, status) as server, pytest.raises(BadInput, match=says_):
        job(tmp_path, server.url, variants=variants)


def test_nothing_at_the_address_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing answers at"):
        job(tmp_path, f"http://127.0.0.1:{free_port('127.0.0.1')}")


@pytest.mark.parametrize("key", [b"", b"two words\n", b"\xff\xfe", b"x" * 5000])
def test_a_file_that_holds_no_key_is_bad_input(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "key").write_bytes(key)
    with Endpoint(good()) as server, pytest.raises(BadInput, match="key") as error:
        job(tmp_path / "run", server.url, api_key_file=str(tmp_path / "key"))
    assert "two words" not in str(error.value)
