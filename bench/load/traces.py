"""Recorded traces of requests, scaled to a model: Azure's (CSV) and Mooncake's (JSON lines). Torch-free.

A line of Mooncake's names a request's prompt as hashes of its 512-token blocks; equal hashes are equal text with equal
text before it. A block becomes ``block`` tokens drawn from its hash, so that prompts share what the recorded ones
shared. Azure's have lengths and times alone, so each prompt is its own. Sources: Mooncake (arXiv 2407.00079),
conversation trace; AzurePublicDataset, LLM inference traces of 2023.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pipo.config import paths
from pipo.errors import BadInput

RECORDED_BLOCK = 512
TRACES = {
    "azure-conv": "AzureLLMInferenceTrace_conv.csv",
    "azure-code": "AzureLLMInferenceTrace_code.csv",
    "mooncake": "mooncake_conversation_trace.jsonl",
}
LONGEST = 1 << 24  # tokens of one request that anybody means


class Recorded(NamedTuple):
    """One request as it was recorded: seconds after the first, tokens in and out, hashes of its prompt's blocks."""

    at_s: float
    input: int
    output: int
    hashes: tuple[int, ...] = ()


class Shared(NamedTuple):
    """One request: its prompt's token ids, tokens to generate, and how many leading tokens were seen before."""

    prompt: tuple[int, ...]
    output: int
    seen: int


def find_trace(name: str, data: str | Path | None = None) -> Path:
    """The file of a trace by name or path. ``data``: the folder that named ones lie in, default PIPO_DATA.

    Raises:
        BadInput: no such name or file.
    """
    if name not in TRACES:
        path = Path(name).expanduser()
        if path.suffix not in (".csv", ".jsonl") or not path.is_file():
            known = ", ".join(TRACES)
            raise BadInput(
                f"unknown trace {name!r}; traces are {known}, or the path of a .csv (Azure's) or .jsonl file"
            )
        return path.absolute()
    folder = Path(data) if data else paths().data
    if folder is None:
        raise BadInput(f"trace {name} needs a folder that has {TRACES[name]}; name it with --data, or set PIPO_DATA")
    if not (folder / TRACES[name]).is_file():
        raise BadInput(
            f"{folder} has no {TRACES[name]}, which trace {name} is; name the folder that has it with --data"
        )
    return folder / TRACES[name]


def read_recorded(path: str | Path, limit: int) -> list[Recorded]:
    """The first ``limit`` requests of a trace, by time; the first is at 0.

    Raises:
        BadInput: no file, no request, a line that is not of the format, or numbers that make no request.
    """
    if limit < 1:
        raise BadInput(f"limit {limit} must be at least 1")
    read = _azure if Path(path).suffix == ".csv" else _mooncake
    try:
        with open(path, newline="") as f:
            found = list(itertools.islice(_checked(path, read(path, f)), limit))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadInput(f"cannot read the trace {path} ({e})") from e
    if not found:
        raise BadInput(f"{path} holds no request; name a trace with at least one")
    first = min(r.at_s for r in found)
    return sorted((r._replace(at_s=r.at_s - first) for r in found), key=lambda r: r.at_s)


def _checked(path: str | Path, found: Iterator[tuple[int, Recorded]]) -> Iterator[Recorded]:
    for number, r in found:
        if not (0 <= r.at_s < float("inf") and 1 <= r.input <= LONGEST and 0 <= r.output <= LONGEST):
            raise BadInput(
                f"{path} line {number}: {r.input} tokens in, {r.output} out at {r.at_s:g} s are no request; times are "
                f"at least 0, a prompt has 1 to {LONGEST} tokens"
            )
        yield r


def _azure(path: str | Path, lines: Iterable[str]) -> Iterator[tuple[int, Recorded]]:
    rows = csv.DictReader(lines)
    for row in rows:
        try:
            at = _seconds(row["TIMESTAMP"])
            yield rows.line_num, Recorded(at, int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise BadInput(
                f"{path} line {rows.line_num} is no request of Azure's trace ({e!r}); columns are TIMESTAMP, "
                "ContextTokens, GeneratedTokens"
            ) from e


def _seconds(stamp: str) -> float:
    """Seconds since a fixed day of ``2023-11-16 18:17:03.9799600``, all its digits kept."""
    whole, _, fraction = stamp.strip().partition(".")
    since = datetime.fromisoformat(whole).replace(tzinfo=None) - datetime(2023, 1, 1)
    return since.total_seconds() + (float(f"0.{fraction}") if fraction else 0.0)


def _mooncake(path: str | Path, lines: Iterable[str]) -> Iterator[tuple[int, Recorded]]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            hashes, length, output = tuple(row["hash_ids"]), int(row["input_length"]), int(row["output_length"])
            yield number, Recorded(float(row.get("timestamp", 0)) / 1000, length, output, hashes)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise BadInput(f"{path} line {number} is no request of a Mooncake trace ({e!r})") from e


def scaled(recorded: Sequence[Recorded], scale: float, ids: Sequence[int], seed: int = 0) -> list[Shared]:
    """Prompts and outputs of ``scale`` times the recorded lengths (at least one token), drawn from ``ids``.

    ``seen`` counts whole leading blocks that stood in an earlier prompt, what an unlimited cache would reuse.
    """
    block = max(1, round(scale * RECORDED_BLOCK))
    factor = block / RECORDED_BLOCK if any(r.hashes for r in recorded) else scale
    known: set[int] = set()
    out = []
    for number, r in enumerate(recorded):
        length = max(1, round(factor * r.input))
        if r.hashes:
            prompt = tuple(t for h in r.hashes for t in _block(h, block, ids))[:length]
            fresh = next((i for i, h in enumerate(r.hashes) if h not in known), len(r.hashes))
            known.update(r.hashes)
        else:
            prompt, fresh = tuple(random.Random(f"{seed}/{number}").choices(ids, k=length)), 0
        out.append(Shared(prompt, max(1, round(factor * r.output)), min(fresh * block, len(prompt))))
    return out


def read_trace(path: str | Path, limit: int, block: int, ids: Sequence[int]) -> list[Shared]:
    """The first ``limit`` requests, a recorded block as ``block`` tokens from ``ids``. Raises as ``read_recorded``."""
    if block < 1:
        raise BadInput(f"block {block} must be at least 1")
    return scaled(read_recorded(path, limit), block / RECORDED_BLOCK, ids)


def _block(name: int, block: int, ids: Sequence[int]) -> list[int]:
    rng = random.Random(name)
    return [rng.choice(ids) for _ in range(block)]


def ideal(requests: Sequence[Shared]) -> float:
    """Share of all prompt tokens that an unlimited cache would reuse."""
    return sum(r.seen for r in requests) / sum(len(r.prompt) for r in requests)
