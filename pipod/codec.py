"""Messages to bytes and back: msgpack, one frame a message. Torch-free, no pickle.

Unknown fields are tolerated. Another protocol version, garbage, or an oversized message is a ProtocolError.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, TypeVar

import msgspec

from pipod import messages as m


class ProtocolError(Exception):
    """A message that cannot be taken: ``error`` is ``BadMessage`` or ``WrongVersion``; ``id`` of the request, or 0."""

    def __init__(self, error: str, message: str, id: int = 0) -> None:
        super().__init__(message)
        self.error = error
        self.id = id


class Envelope(msgspec.Struct):
    """What every version of the protocol has in each message; read before anything else."""

    type: str
    v: int
    id: int = 0


T = TypeVar("T")


def _plain(value: Any) -> Any:
    """Paths become strings, array scalars (anything with ``item()``) plain numbers."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot go on the wire; use plain values")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_envelope: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)
_plain_dict: msgspec.msgpack.Decoder[dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any])
request_decoder: msgspec.msgpack.Decoder[m.Request] = msgspec.msgpack.Decoder(m.Request)
reply_decoder: msgspec.msgpack.Decoder[m.Reply] = msgspec.msgpack.Decoder(m.Reply)
to_worker_decoder: msgspec.msgpack.Decoder[m.ToWorker] = msgspec.msgpack.Decoder(m.ToWorker)
from_worker_decoder: msgspec.msgpack.Decoder[m.FromWorker] = msgspec.msgpack.Decoder(m.FromWorker)
# What msgspec raises on bytes that are no such message: wrong types or syntax, broken UTF-8, absurd nesting.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)


def encode(value: Any) -> bytes:
    """To msgpack. Raises TypeError for values that are not plain."""
    return _encoder.encode(value)


def decode_dict(data: bytes) -> dict[str, Any]:
    """A map with string keys from msgpack."""
    return _plain_dict.decode(data)


def decode(frames: list[bytes], decoder: msgspec.msgpack.Decoder[T]) -> T:
    """Read one message from the frames after the sender's name.

    Raises:
        ProtocolError: WrongVersion, or BadMessage for anything else that is no message of this protocol.
    """
    if len(frames) != 1:
        raise ProtocolError("BadMessage", f"a message is one frame, this one has {len(frames)}")
    data = frames[0]
    if len(data) > m.MAX_BYTES:
        raise ProtocolError("BadMessage", f"a message has at most {m.MAX_BYTES} bytes, this one {len(data)}")
    try:
        head = _envelope.decode(data)
    except _UNREADABLE as e:
        raise ProtocolError("BadMessage", f"not a message of this protocol ({e})") from e
    if head.v != m.PROTOCOL and head.type != "shutdown":
        text = f"this message is of protocol {head.v}, pipod here speaks {m.PROTOCOL}; use one version on both sides"
        raise ProtocolError("WrongVersion", text, head.id)
    try:
        return decoder.decode(data)
    except _UNREADABLE as e:
        raise ProtocolError("BadMessage", f"not a known message of protocol {m.PROTOCOL} ({e})", head.id) from e
