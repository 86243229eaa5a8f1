"""A recorded trace of requests with shared prefixes (Mooncake's format), scaled to a model. Torch-free.

Each line of the trace names a request's prompt as hashes of its 512-token blocks; equal hashes are equal text with
equal text before it. A block becomes ``block`` tokens drawn from its hash, so that prompts share what the recorded ones
shared. Source of the format: Mooncake (arXiv 2407.00079), conversation trace.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipo.errors import BadInput

RECORDED_BLOCK = 512


class Shared(NamedTuple):
    """One request: its prompt's token ids, tokens to generate, and how many leading tokens were seen before."""

    prompt: tuple[int, ...]
    output: int
    seen: int


def read_trace(path: str | Path, limit: int, block: int, ids: Sequence[int]) -> list[Shared]:
    """The first ``limit`` requests, a recorded block as ``block`` tokens from ``ids``.

    ``seen`` counts whole leading blocks that stood in an earlier prompt, what an unlimited cache would reuse.

    Raises:
        BadInput: no file, a line that is not of the format, or numbers that make no prompt.
    """
    if block < 1 or limit < 1:
        raise BadInput(f"limit {limit} and block {block} must be at least 1")
    known: set[int] = set()
    out = []
    for number, line in enumerate(_lines(path)[:limit], 1):
        try:
            row = json.loads(line)
            hashes, length, output = list(row["hash_ids"]), int(row["input_length"]), int(row["output_length"])
        except (ValueError, KeyError, TypeError) as e:
            raise BadInput(f"{path} line {number} is no request of a Mooncake trace ({e!r})") from e
        tokens = [t for h in hashes for t in _block(h, block, ids)]
        prompt = tuple(tokens[: max(1, round(length * block / RECORDED_BLOCK))])
        fresh = next((i for i, h in enumerate(hashes) if h not in known), len(hashes))
        known.update(hashes)
        out.append(Shared(prompt, max(1, round(output * block / RECORDED_BLOCK)), min(fresh * block, len(prompt))))
    return out


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"cannot read the trace {path} ({e})") from e


def _block(name: int, block: int, ids: Sequence[int]) -> list[int]:
    rng = random.Random(name)
    return [rng.choice(ids) for _ in range(block)]


def ideal(requests: Sequence[Shared]) -> float:
    """Share of all prompt tokens that an unlimited cache would reuse."""
    return sum(r.seen for r in requests) / sum(len(r.prompt) for r in requests)
