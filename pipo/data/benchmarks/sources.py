"""Where a benchmark's file lies, and its rows: JSONL (packed or not), a JSON list, CSV with a header, parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipo.config import paths
from pipo.data.benchmarks.definitions import Definition
from pipo.data.imports import source_rows
from pipo.data.lines import BOM, objects, raw_lines, short
from pipo.errors import BadInput, BadRecord

FETCH = "fetch the file again"


class Found(msgspec.Struct, frozen=True):
    """Files of a benchmark, in order; none where it is not here. ``looked``: folders that were looked into."""

    files: list[Path]
    looked: list[Path]


def folders(data: Path | None = None) -> list[Path]:
    """Where benchmarks are looked for: the folder named, else PIPO_DATA; then what was fetched into PIPO_HOME/data."""
    at = paths()
    first = data or at.data
    return [*([first] if first else []), at.datasets]


def look(of: Definition, data: Path | None = None) -> Found:
    """The files of a benchmark: in the folders themselves, then as they were fetched from the hub."""
    places = folders(data)
    for folder in places:
        for under, patterns in ((folder, of.files), (folder / of.hub if of.hub else folder, of.hub_files)):
            for pattern in patterns:
                if files := sorted(p for p in under.glob(pattern) if p.is_file()):
                    return Found(files, places)
    return Found([], places)


def find(of: Definition, data: Path | None = None) -> list[Path]:
    """The files of a benchmark. Raises BadInput with the way out where there are none."""
    if data is not None and not data.is_dir():
        raise BadInput(f"data folder {data} is no folder; name the one that holds {of.files[0]}")
    found = look(of, data)
    if found.files:
        return found.files
    fetch = f"; `pipo data pull {of.hub}` fetches it, or" if of.hub else ";"
    raise BadInput(
        f"{of.name}: no {of.files[0]} in {' or '.join(map(str, found.looked))}{fetch} name its folder with --data or "
        "PIPO_DATA"
    )


def rows(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of a file.

    Raises:
        BadRecord: what cannot be read, with file and line; a torn last line too, since an item would be missing.
        BadInput: a parquet file without pyarrow.
    """
    if path.suffix == ".parquet":
        found: Iterator[tuple[str, Any]] = source_rows([path])
    elif path.suffix == ".csv":
        found = _csv(path, what)
    elif path.suffix == ".json":
        found = _json(path, what)
    else:
        found = ((f"{path}:{number}", value) for number, value in objects(path, what, torn=_torn(path)))
    for where, row in found:
        if not isinstance(row, dict):
            raise BadRecord(f"{where}: {short(row)} is no JSON object; {what}")
        yield where, row


def _torn(path: Path) -> Any:
    def refuse(number: int) -> None:
        raise BadRecord(f"{path}:{number}: the last line is torn or no JSON, an item is missing; {FETCH}")

    return refuse


def _json(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    try:
        found = msgspec.json.decode(path.read_bytes().removeprefix(BOM), type=list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadRecord(f"{path}: no list in JSON ({e}); {what}") from e
    except OSError as e:
        raise BadRecord(f"{path} cannot be read ({e.strerror}); {what}") from e
    for number, row in enumerate(found, 1):
        yield f"{path}: row {number}", row


def _csv(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """Rows of a CSV with their lines. Cells are texts; a row may go over several lines."""
    texts = []
    for number, line in raw_lines(path, what):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError as e:
            byte = line[e.start]
            raise BadRecord(f"{path}:{number}: byte {byte:#04x} is no UTF-8; save the file in UTF-8") from e
    csv.field_size_limit(1 << 24)
    reader = csv.DictReader(io.StringIO("".join(texts), newline=""), strict=True)
    end = 1
    try:
        for row in reader:
            end, begin = reader.line_num, end + 1
            if None in row or None in row.values():
                raise BadRecord(f"{path}:{begin}: a row of another length than the header's; {FETCH}")
            yield f"{path}:{begin}", row
    except csv.Error as e:
        raise BadRecord(f"{path}:{reader.line_num}: no CSV ({e}); {FETCH}") from e
