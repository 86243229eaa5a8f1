"""Text of token ids, read from a model folder's tokenizer.json; where there is none the page shows ids.

Only the vocabulary is read. So a token shows as its own piece, with the bytes of a byte-level vocabulary put back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

from pipo.errors import PipoError
from reports.html.escape import visible

MOST_BYTES = 256 * 2**20  # the largest tokenizer.json that is read
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

ModelFolder = Callable[[str, str | None], Path]  # a model's name in a run, its lab family -> folder


class Texts(msgspec.Struct, frozen=True):
    """``known``: id -> text. ``note``: why ids are shown instead; empty where the vocabulary was found."""

    known: dict[int, str]
    note: str = ""


class _Added(msgspec.Struct):
    id: int
    content: str


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[tuple[str, float]]


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []
    decoder: Any = None
    pre_tokenizer: Any = None


def texts(model: str, family: str | None, ids: Collection[int], model_folder: ModelFolder | None) -> Texts:
    """Text of these ids by the tokenizer of a model as a run names it: a folder, or a name that ``model_folder`` knows.

    A model that is gone or has no vocabulary that can be read is no error: the note says so.
    """
    try:
        folder = model_folder(model, family) if model_folder else Path(model)
    except (PipoError, OSError, RuntimeError) as e:  # RuntimeError: a home folder that nobody has
        return Texts({}, visible(f"{model}: {e}"))
    path = folder / "tokenizer.json"
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            return Texts({}, f"{path} has {size:,} bytes, more than {MOST_BYTES:,}")
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        return Texts({}, visible(f"{path} is no tokenizer that can be read ({e})"))
    except (OSError, ValueError) as e:  # ValueError: a sign that no path may have
        return Texts({}, visible(f"{path} cannot be read ({getattr(e, 'strerror', None) or e})"))
    return Texts(_pieces(file, set(ids)))


def _pieces(file: _File, wanted: set[int]) -> dict[int, str]:
    kinds = _types([file.decoder, file.pre_tokenizer])
    back = _from_bytes if "ByteLevel" in kinds else _from_spaces
    vocab = file.model.vocab
    pairs = (
        [(p, i) for p, i in vocab.items()] if isinstance(vocab, dict) else [(p, i) for i, (p, _) in enumerate(vocab)]
    )
    found = {i: visible(back(piece)) for piece, i in pairs if i in wanted}
    return found | {t.id: visible(t.content) for t in file.added_tokens if t.id in wanted}


def _types(value: Any) -> set[str]:
    """The types of a component and of all within it."""
    if isinstance(value, list):
        return set().union(*map(_types, value))
    if isinstance(value, dict):
        return {str(value.get("type"))} | _types(list(value.values()))
    return set()


def _byte_signs() -> dict[str, int]:
    """The sign of each byte in a byte-level vocabulary: printable ones stand for themselves, others above 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


_SIGNS = _byte_signs()


def _from_bytes(piece: str) -> str:
    if not all(sign in _SIGNS for sign in piece):
        return piece
    return bytes(_SIGNS[sign] for sign in piece).decode(errors="backslashreplace")  # a part of a sign: its bytes


def _from_spaces(piece: str) -> str:
    found = _BYTE.fullmatch(piece)
    return bytes([int(found[1], 16)]).decode(errors="backslashreplace") if found else piece.replace("▁", " ")
