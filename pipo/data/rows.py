"""Training files to rows of token ids: what is shown, what is supervised, and what was left out. Torch-free.

Two shapes, told apart row by row: ``{"prompt", "response"}``, texts that are taken as they are, and ms-swift's
``{"messages": [{"role", "content"}, ...]}`` (with ``system`` beside them or not), which go through the tokenizer's chat
template. Of a chat only the last answer is supervised, from behind the generation prompt and the thinking prefix.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipo.data import cache as caches
from pipo.data import texts
from pipo.data.lines import FEW, Noted, objects
from pipo.data.packed import Packed, PackedRows, Packer, Row
from pipo.errors import BadInput, BadRecord

__all__ = ["Prompts", "Report", "Row", "Rows", "read_prompts", "read_rows"]

TOGETHER = 256  # lines that are tokenised in one call, so that the tokenizer can use its threads


@dataclass
class Report:
    """What reading a file left out (``over_long``, ``torn``) or noticed (``no_eos``: rows that do not end with EOS)."""

    rows: int = 0
    tokens: int = 0
    over_long: Noted = field(default_factory=Noted)
    torn: Noted = field(default_factory=Noted)
    no_eos: Noted = field(default_factory=Noted)

    def __str__(self) -> str:
        parts = [f"{self.rows} rows, {self.tokens} tokens"]
        names = {"over_long": "over-long and left out", "torn": "torn and left out", "no_eos": "without EOS at the end"}
        parts += [f"{name}: {noted}" for key, name in names.items() if (noted := getattr(self, key)).count]
        return "; ".join(parts)


@dataclass
class Rows:
    """Rows of a file in its order, and what was left out. ``cache``: the file that holds them tokenised, if one does.

    ``rows`` is a sequence that makes each row when it is asked for; ``lengths()`` of it needs none made.
    """

    rows: PackedRows
    report: Report
    cache: Path | None = None


class Prompts(list[list[int]]):
    """Prompts of a file in its order; ``report`` says what was left out."""

    report: Report


def read_rows(
    path: Path, tokenizer: Any, *, max_length: int | None = None, thinking: bool | None = None,
    cache: Path | None = None, keep: bool = True, tick: Callable[[int], None] = lambda line: None,
) -> Rows:  # fmt: skip
    """Read and tokenise a training file.

    ``max_length``: rows with more tokens, prompt and response together, are left out and counted. ``thinking``: the
    chat template's ``enable_thinking``; None leaves it to the template. ``cache``: a folder where the tokenised rows
    are found again, and kept where ``keep`` is set; the rows are the same with and without it. ``tick`` hears of the
    line that reading has come to, from time to time; what it raises ends the reading.

    Raises:
        BadInput: rows of messages and a tokenizer without a chat template; max_length below 2.
        BadRecord: no such file, no row that can be used, a row that is none (the message names file and line).
    """
    _check_length(max_length)
    file = caches.cache_file(cache, path, tokenizer, thinking) if cache is not None and path.is_file() else None
    found = None if file is None else caches.load(file)
    packed, torn = found or _pack(path, tokenizer, thinking, tick)
    rows, report = _select(path, packed, torn, tokenizer, max_length)
    if file is not None and found is None and keep:
        caches.store(file, packed, torn)
    return Rows(rows, report, file if found or keep else None)


def read_prompts(
    path: Path, tokenizer: Any, *, max_length: int | None = None, thinking: bool | None = None
) -> Prompts:  # fmt: skip
    """Prompts of a file as ids, with the thinking prefix where the chat template has one; answers are left out.

    ``max_length``: longer prompts are left out and counted. Raises as ``read_rows``.
    """
    _check_length(max_length)
    report = Report()
    prompts = Prompts()
    items = objects(path, texts.PROMPTS, report.torn.add)
    for part in _parts(items):
        places = [(n, f"{path}:{n}") for n, _ in part]
        given = [texts.prompt_text(v, tokenizer, thinking, w) for (_, v), (_, w) in zip(part, places, strict=True)]
        for (number, where), ids in zip(places, texts.encode_all(given, tokenizer), strict=True):
            texts.check_ids(ids, tokenizer, "prompt", where)
            if max_length is not None and len(ids) > max_length:
                report.over_long.add(number)
                continue
            report.rows, report.tokens = report.rows + 1, report.tokens + len(ids)
            prompts.append(ids)
    _check_any(path, report, max_length, texts.PROMPTS)
    prompts.report = report
    return prompts


def _pack(path: Path, tokenizer: Any, thinking: bool | None, tick: Callable[[int], None]) -> tuple[Packed, list[int]]:
    """All rows of a file, and the numbers of torn lines (one at most)."""
    torn: list[int] = []
    packer = Packer()
    for part in _parts(objects(path, texts.ROWS, torn.append)):
        places = [f"{path}:{number}" for number, _ in part]
        given = [texts.row_texts(v, tokenizer, thinking, w) for (_, v), w in zip(part, places, strict=True)]
        ids = texts.encode_all([t for g in given for t in g[:2]], tokenizer)
        for i, (number, _) in enumerate(part):
            row = texts.border(ids[2 * i], ids[2 * i + 1], given[i][2], tokenizer, places[i])
            packer.add(*row, number)
        tick(part[-1][0])
    return packer.done(), torn


def _parts(items: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    while part := list(itertools.islice(items, TOGETHER)):
        yield part


def _select(
    path: Path, packed: Packed, torn: Sequence[int], tokenizer: Any, max_length: int | None
) -> tuple[PackedRows, Report]:
    """The rows that are short enough, and the report on all of them."""
    every = PackedRows(packed, path.name)
    lengths = np.array(every.lengths(), np.int64)
    fits = lengths <= max_length if max_length is not None else np.ones(len(lengths), bool)
    rows = PackedRows(packed, path.name, np.flatnonzero(fits))
    report = Report(len(rows), int(lengths[fits].sum()), _noted(packed.lines[~fits]), _noted(torn))
    _check_any(path, report, max_length, texts.ROWS)
    if tokenizer.eos_token_id is not None:
        report.no_eos = _noted(packed.lines[rows.chosen[rows.last_ids() != tokenizer.eos_token_id]])
    return rows, report


def _noted(lines: Any) -> Noted:
    return Noted(len(lines), [int(n) for n in lines[:FEW]])


def _check_length(max_length: int | None) -> None:
    if max_length is not None and max_length < 2:
        raise BadInput(f"max_length {max_length} must be at least 2, a token of prompt and one of response")


def _check_any(path: Path, report: Report, max_length: int | None, what: str) -> None:
    """Raise BadRecord where a file gave no row."""
    if report.rows:
        return
    if report.over_long.count:
        raise BadRecord(
            f"{path}: all {report.over_long.count} rows are longer than max_length {max_length}; raise it, or name a "
            "file with shorter rows"
        )
    raise BadRecord(f"{path} holds no whole line; {what}")
