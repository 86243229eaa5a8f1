"""What was asked, beside the records: ``items.jsonl`` of a run folder, for who reads a report. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bench import record
from bench.tasks import Task

FILE = "items.jsonl"
MOST = 4000  # characters of a prompt; a long one keeps its two ends
MOST_ITEMS = 5000  # a task; a report shows fewer


class Asked(msgspec.Struct, frozen=True):
    """A question by task and item. ``prompt``: the text that a model without a chat template gets, shortened."""

    task: str
    item: str
    prompt: str


def shortened(text: str, most: int = MOST) -> str:
    """A text of at most about ``most`` characters: the beginning, how many are left out, the end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def write(folder: Path, tasks: Sequence[Task]) -> None:
    """Write the questions of a run, by rename; those of tasks whose authors do not want them shown are left out."""
    found = [Asked(t.name, i.id, shortened(i.prompt)) for t in tasks if not t.hidden for i in t.items[:MOST_ITEMS]]
    record.rewrite(folder / FILE, found)


def merge(folder: Path, shards: Iterable[Path]) -> None:
    """Put the questions of shards together; a shard that an older version made has none."""
    lines = [line for shard in shards if (shard / FILE).exists() for line in (shard / FILE).read_bytes().splitlines()]
    record.rewrite(folder / FILE, [msgspec.json.decode(line, type=Asked) for line in lines])
