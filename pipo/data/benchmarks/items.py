"""One item of a benchmark: its question, its gold, and for programs the tests that they must pass."""

from __future__ import annotations

import base64
import binascii
import pickletools
import zlib

import msgspec

from pipo.errors import BadRecord

MOST_BYTES = 1 << 29  # unpacked tests of one problem; LiveCodeBench's largest stay far below
# What a packed text may consist of: one string, kept in the memo, and the end.
HARMLESS = {"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "MEMOIZE", "BINPUT", "LONG_BINPUT",
            "PUT", "STOP"}  # fmt: skip
TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}


class Case(msgspec.Struct, frozen=True):
    """One test: what goes in (standard input, or arguments as JSON a line each) and what must come out."""

    input: str
    output: str


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a program is judged by. ``form``:

    ``check``     HumanEval: ``stub`` begins the function ``entry_point``; ``test`` defines ``check(candidate)``.
    ``stdin``     standard input to standard output, each of ``cases()``.
    ``function``  LiveCodeBench: ``entry_point`` is a method of ``Solution``, begun in ``stub``; cases are JSON.

    ``packed``: more cases, as LiveCodeBench publishes them; unpacked when asked for, since they are large.
    ``checker``: source of the program that judges outputs, where more than one is right. ``time_limit`` in seconds,
    ``memory_limit`` in MB.
    """

    form: str
    language: str = "python"
    stub: str = ""
    entry_point: str = ""
    test: str = ""
    tests: list[Case] = []
    packed: str | None = None
    checker: str | None = None
    time_limit: float | None = None
    memory_limit: float | None = None

    def cases(self) -> list[Case]:
        """All tests, the packed ones last. Raises BadRecord where they cannot be unpacked."""
        return [*self.tests, *([] if self.packed is None else unpack(self.packed))]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One item. ``fields``: what its prompt is made of; ``gold``: the right answer, empty for programs."""

    id: str
    fields: dict[str, str]
    gold: str = ""
    level: int = 0
    program: Program | None = None


def unpack(text: str) -> list[Case]:
    """Cases of LiveCodeBench's private tests: JSON, or JSON pickled, deflated and written in base 64.

    The pickle is not loaded: its one string is read out, and anything else in it is refused, so that no file of a
    benchmark runs code here.

    Raises:
        BadRecord: another form, or too large.
    """
    try:
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text, type=list[Case])
        unzip = zlib.decompressobj()
        raw = unzip.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        if not unzip.eof:
            raise BadRecord(f"packed tests are torn, or larger than {MOST_BYTES:,} bytes; fetch the file again")
        return msgspec.json.decode(_only_string(raw), type=list[Case])
    except (binascii.Error, zlib.error, ValueError, msgspec.DecodeError) as e:
        raise BadRecord(f"packed tests cannot be read ({e}); fetch the file again") from e


def _only_string(raw: bytes) -> str:
    found: list[str] = []
    for code, argument, _ in pickletools.genops(raw):
        if code.name not in HARMLESS:
            raise ValueError(f"they hold {code.name} where one text is expected")
        if code.name in TEXTS:
            found.append(str(argument))
    if len(found) != 1:
        raise ValueError(f"they hold {len(found)} texts where one is expected")
    return found[0]
