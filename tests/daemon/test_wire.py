"""Frames: what is refused, and that the daemon lives on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipo.errors import DaemonError
from pipod import codec, place
from pipod import messages as m
from pipod.client import Client

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def ask(shared: Client) -> Iterator[Callable[..., dict[str, Any]]]:
    """Send raw frames to the daemon; the reply as a plain map. Afterwards the daemon still serves."""
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.linger = 0
    raw.connect(f"ipc://{place.find_socket(shared.home)}")

    def send(*frames: bytes) -> dict[str, Any]:
        raw.send_multipart(frames)
        assert raw.poll(3000), "no reply"
        return msgspec.msgpack.decode(raw.recv())

    yield send
    raw.close(linger=0)
    context.term()
    assert shared.wait(shared.submit("noop", {"items": 1}).id).state == "done", "the daemon serves no more"


def test_another_version_gets_a_typed_error(ask) -> None:
    reply = ask(codec.encode({"type": "get-status", "v": 2, "id": 7}))
    assert (reply["type"], reply["error"], reply["id"], reply["v"]) == ("error-reply", "WrongVersion", 7, 1)
    assert "protocol 2" in reply["message"]


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\xc1 garbage \xff"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b"\x81" * 5000],
        [codec.encode([1, 2, 3])],
        [codec.encode({"type": "get-status"})],
        [codec.encode({"type": "get-status", "v": "1"})],
        [codec.encode({"type": "get-status", "v": 1}), b"second frame"],
        [b"", codec.encode({"type": "get-status", "v": 1})],
    ],
)
def test_garbage_gets_an_error_without_an_id(ask, frames: list[bytes]) -> None:
    reply = ask(*frames)
    assert (reply["error"], reply["id"]) == ("BadMessage", 0)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "explode"},
        {"type": "submit", "kind": "noop"},
        {"type": "submit", "kind": "noop", "spec": [1]},
        {"type": "submit", "kind": "noop", "spec": {1: 2}},
        {"type": "get-job", "job": "1"},
        {"type": "get-job", "job": 2**64 - 1},
        {"type": "get-events", "job": 1, "after": -(2**63), "limit": -1},
        {"type": "list-jobs", "limit": 2**64 - 1},
        {"type": "run-job", "job": 1, "kind": "noop", "spec": {}, "folder": "/"},
    ],
)
def test_a_bad_request_is_answered_under_its_id(ask, message: dict[str, Any]) -> None:
    reply = ask(codec.encode({**message, "v": 1, "id": 5}))
    assert reply["id"] == 5
    assert reply["type"] in ("error-reply", "events-reply", "jobs-reply")


def test_unknown_fields_are_tolerated(ask) -> None:
    reply = ask(codec.encode({"type": "get-status", "v": 1, "id": 3, "colour": "red", "more": {"a": [1]}}))
    assert (reply["type"], reply["id"]) == ("status-reply", 3)


@pytest.mark.parametrize("field", [{"after": 2**63}, {"after": -1}, {"wait_s": float("nan")}, {"wait_s": 1e300}])
def test_numbers_out_of_range_are_refused(ask, shared: Client, field: dict[str, float]) -> None:
    job = shared.submit("noop", {"items": 0})
    reply = ask(codec.encode({"type": "get-events", "job": job.id, **field, "v": 1, "id": 1}))
    assert (reply["error"], reply["id"]) == ("BadMessage", 1)


def test_any_fields_in_any_request_are_answered(ask, shared: Client) -> None:
    """Requests of known types with arbitrary values under the known names: each gets a reply under its id."""
    types = sorted(t.__struct_config__.tag for t in m.Request.__args__ if t is not m.Shutdown)
    values = PLAIN | st.sampled_from(["noop", 1, {}, {"items": 0}])
    fields = st.dictionaries(
        st.sampled_from(["kind", "spec", "join_key", "limit", "job", "after", "key"]), values, max_size=4
    )
    pid = shared.status().pid

    @given(st.sampled_from(types), fields)
    @settings(max_examples=150, deadline=None)
    def send(type: str, some: dict[str, Any]) -> None:
        data = codec.encode({**some, "type": type, "v": 1, "id": 11})
        assert ask(data)["id"] == 11

    send()
    assert shared.status().pid == pid


def test_bytes_that_are_no_zeromq_end_that_connection_only(ask, shared: Client) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n" * 10, b"\xff" * 64, b"\x00"):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(place.find_socket(shared.home)))
            raw.sendall(data)
    assert shared.status().pid


def test_an_oversized_frame_is_not_taken(ask, shared: Client) -> None:
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.linger = 0
    raw.connect(f"ipc://{place.find_socket(shared.home)}")
    raw.send(b"x" * (m.MAX_BYTES + 1))
    assert not raw.poll(300), "it was answered"
    raw.close(linger=0)
    context.term()


def test_a_newer_client_can_end_an_older_daemon(client: Client, eventually) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(f"ipc://{place.find_socket(client.home)}")
        raw.send(codec.encode({"type": "shutdown", "v": 99, "id": 1, "gently": True}))
        assert raw.poll(3000)
        assert msgspec.msgpack.decode(raw.recv())["type"] == "shutdown-reply"
    eventually(lambda: place.lock_free(client.home / "run" / place.LOCK), "the daemon ends")


def test_a_client_of_another_version_says_what_to_do(shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        codec, "encode", lambda message: msgspec.msgpack.encode({"type": "x", "v": 3, "id": message.id})
    )
    with pytest.raises(DaemonError, match=r"is of protocol 3, pipod here speaks 1.*`pipo down`"):
        shared.status()


@given(st.binary(max_size=200) | PLAIN.map(codec.encode))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    try:
        message = codec.decode([data], codec.request_decoder)
    except codec.ProtocolError as e:
        assert e.error in ("BadMessage", "WrongVersion")
    else:
        assert isinstance(message, m.Request)


@given(st.dictionaries(st.text(max_size=6), PLAIN, max_size=4), st.none() | st.text(max_size=10))
@settings(max_examples=100, deadline=None)
def test_a_submission_comes_through_as_it_was(spec: dict[str, Any], key: str | None) -> None:
    message = m.Submit(id=4, kind="noop", spec=spec, join_key=key)
    assert codec.decode([codec.encode(message)], codec.request_decoder) == message


def test_numbers_of_arrays_and_paths_become_plain(tmp_path) -> None:
    class Scalar:
        ndim = 0

        def item(self) -> float:
            return 0.5

    assert codec.decode_dict(codec.encode({"a": Scalar(), "b": tmp_path})) == {"a": 0.5, "b": str(tmp_path)}
    with pytest.raises(TypeError, match="object cannot go on the wire"):
        codec.encode({"a": object()})
