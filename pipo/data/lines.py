"""JSONL files line by line: objects with their places, a torn last line told from a broken one. Torch-free."""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from pipo.errors import BadInput, BadRecord

FEW = 5  # line numbers that a message or a report names
BOM = b"\xef\xbb\xbf"
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


class Noted(msgspec.Struct):
    """How many lines something is true of, and the numbers of the first few."""

    count: int = 0
    lines: list[int] = []

    def add(self, line: int) -> None:
        self.count += 1
        if len(self.lines) < FEW:
            self.lines.append(line)

    def __str__(self) -> str:
        if not self.count:
            return "0"
        rest = ", ..." if self.count > len(self.lines) else ""
        return f"{self.count} ({'lines' if self.count > 1 else 'line'} {', '.join(map(str, self.lines))}{rest})"


def objects(path: Path, what: str, torn: Callable[[int], None] = lambda line: None) -> Iterator[tuple[int, Any]]:
    """(line number, JSON value) of every line that is not blank; ``torn`` hears of a last line that a kill cut.

    ``what``: one clause on what the file should hold, for messages. Only a last line without a newline can be torn,
    and it is where it is no JSON.

    Raises:
        BadRecord: no such file, or a line that is no JSON; the message names it.
    """
    for number, line in raw_lines(path, what):
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            if not line.endswith(b"\n"):
                torn(number)
                return
            raise BadRecord(f"{path}:{number}: {short(line)} is no JSON ({e}); {what}") from e
        yield number, value


def raw_lines(path: Path, what: str) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of every line, cut at line feeds only; ``.gz`` and ``.xz`` files are unpacked on the way.

    A byte order mark of UTF-8 at the beginning is left out.

    Raises:
        BadRecord: no such file, or a packed file that ends too early; the message names the last whole line.
    """
    if not path.is_file():
        raise BadRecord(f"{path} is not a file; {what}")
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as f:
            for number, line in enumerate(f, 1):  # the last number is named below
                yield number, line.removeprefix(BOM) if number == 1 else line
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as e:
        raise BadRecord(f"{path}:{number}: unpacking fails behind this line ({e}); fetch the file again") from e
    except OSError as e:
        raise BadRecord(f"{path} cannot be read ({e.strerror}); {what}") from e


def short(value: Any, limit: int = 60) -> str:
    """A value for a message, cut to a readable length."""
    text = value.decode(errors="replace").rstrip("\n") if isinstance(value, bytes) else value
    shown = repr(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """Write values as JSON lines, by rename, so that readers see the whole file or the old one; returns how many.

    Raises:
        BadInput: the file cannot be written.
    """

    def fill(f: IO[bytes]) -> int:
        count = 0
        for value in values:
            f.write(msgspec.json.encode(value) + b"\n")
            count += 1
        return count

    return replace(path, fill)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, by rename. Raises BadInput where the file cannot be written."""

    def fill(f: IO[bytes]) -> int:
        return f.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

    replace(path, fill)


def replace(path: Path, fill: Callable[[IO[bytes]], int]) -> int:
    """Make a file by rename: ``fill`` writes it under another name first. Returns what ``fill`` does.

    Raises:
        BadInput: the folder or the file cannot be written.
    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name a file to write")
        try:
            with open(tmp, "wb") as f:
                done = fill(f)
                f.flush()
                os.fsync(f.fileno())
            os.replace(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
    except OSError as e:
        raise BadInput(f"cannot write {path} ({e.strerror}); name another file") from e
    return done
