"""A benchmark's definition and files to entries with prompts, checked item by item, with a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipo.data.benchmarks.definitions import PLAIN, Definition, fill, prompts
from pipo.data.benchmarks.items import Entry
from pipo.data.benchmarks.readers import READERS
from pipo.data.benchmarks.sources import find, rows
from pipo.data.lines import short
from pipo.data.sets import BadRow, Skip
from pipo.errors import BadInput, BadRecord


class Asked(msgspec.Struct, frozen=True):
    """An entry as it is asked: ``messages`` for a chat template, ``plain`` for models that have none.

    Rows of the schema ``prompt`` have no messages: their texts go to every model as they are.
    """

    entry: Entry
    messages: list[dict[str, str]] | None
    plain: str


class Benchmark(msgspec.Struct, frozen=True):
    """A benchmark that was read. ``left_out``: reason -> how many rows. ``notes``: what a person should know."""

    definition: Definition
    files: list[Path]
    items: list[Asked]
    left_out: dict[str, int]
    notes: list[str]
    fingerprint: str


def load(of: Definition, data: Path | None = None, files: list[Path] | None = None) -> Benchmark:
    """Read a benchmark. ``files``: in place of those that are found.

    Raises:
        BadInput: its file is not here, or cannot be read as it is (parquet without pyarrow).
        BadRecord: a row of another schema, without gold, or an id that came before; file and line are named.
    """
    files = find(of, data) if files is None else files
    found: dict[str, Asked] = {}
    first: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    left_out: dict[str, int] = {}
    repeated = 0
    for where, row in _all_rows(of, files):
        made = _read(of, row, where, left_out)
        if made is None:
            continue
        name = made.entry.id
        if name in found:
            raise BadRecord(f"{where}: id {name!r} came before, in {first[name]}; give every item its own")
        found[name], first[name] = made, where
        key = hashlib.sha256(made.plain.encode()).digest()
        repeated += key in seen
        seen.setdefault(key, where)
    if not found:
        said = "".join(f"; {count} left out: {reason}" for reason, count in left_out.items())
        raise BadRecord(f"{', '.join(map(str, files))}: no item of {of.name}{said}; name another file")
    notes = [f"{of.name}: {count} rows left out: {reason}" for reason, count in left_out.items()]
    if repeated:
        notes.append(f"{of.name}: {repeated} items ask what an earlier one asks, word for word")
    if of.items is not None and len(found) != of.items:
        notes.append(f"{of.name}: {len(found)} items where the published set has {of.items}")
    return Benchmark(of, files, list(found.values()), left_out, notes, fingerprint(found.values()))


def fingerprint(items: Any) -> str:
    """16 hex digits over ids, prompts, golds and tests, in order."""
    return hashlib.sha256(msgspec.json.encode(list(items), order="deterministic")).hexdigest()[:16]


def _all_rows(of: Definition, files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files:
        for where, row in rows(path, f"{of.name} has rows of the schema {of.schema!r}"):
            named = {new: row[old] for new, old in of.fields.items() if old in row}
            yield where, {**row, **named}


def _read(of: Definition, row: dict[str, Any], where: str, left_out: dict[str, int]) -> Asked | None:
    """A row as it is asked; None where the definition leaves it out. Rows outside the window are not counted."""
    try:
        if not _wanted(of, row):
            return None
        entry = READERS[of.schema](row, where, of)
    except BadRow as e:
        raise BadRecord(f"{where}: {e}; {of.name} has rows of the schema {of.schema!r}, name its own file") from e
    if isinstance(entry, Skip):
        left_out[entry.reason] = left_out.get(entry.reason, 0) + 1
        return None
    if of.prompt is None:
        return Asked(entry, None, entry.fields[PLAIN])
    version = prompts()[of.prompt]
    text = version.text
    if entry.program is not None and entry.program.form == "function":
        if version.function is None:
            raise BadInput(f"{of.name}: prompt {of.prompt!r} has no text for functions, which {where} asks for")
        text = version.function
    try:
        content = fill(text, entry.fields)
        plain = content if version.plain is None else fill(version.plain, entry.fields)
    except KeyError as e:
        raise BadInput(f"{of.name}: prompt {of.prompt!r} wants {e}, the schema {of.schema!r} gives "
                       f"{', '.join(entry.fields)}") from e  # fmt: skip
    return Asked(entry, [{"role": "user", "content": content}], plain)


def _wanted(of: Definition, row: dict[str, Any]) -> bool:
    """Whether a row is inside the window and has the values that the definition asks for. Raises BadRow."""
    for field, value in of.only.items():
        if field not in row:
            raise BadRow(f"no field {field!r} among {short(sorted(row))}")
        if str(row[field]) != value:
            return False
    if of.since is None and of.until is None:
        return True
    day = row.get("contest_date")
    if day is None:
        raise BadRow(f"no field 'contest_date' among {short(sorted(row))}")
    day = str(day)[:10]
    return (of.since is None or day >= of.since) and (of.until is None or day < of.until)
