"""Questions to roll out: what our files of them look like, read and checked, and cut into shards. Torch-free.

A line is ``{"id", "task", "prompt" or "messages", "answer" or "tests"}``. ``prompt`` goes to the model as it is,
``messages`` through the chat template. ``answer`` is what stands in the right answer's box; ``tests`` are
``{"input", "output"}`` pairs of a program to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipo.data.lines import objects, short
from pipo.errors import BadInput, BadRecord

WHAT = (
    "questions are JSONL with id, task, 'prompt' or 'messages', and 'answer' or 'tests'; `pipo data import` makes them"
)
T = TypeVar("T")


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question. ``level``: difficulty, 0 where unknown. ``time_limit`` (s) and ``memory_limit`` (MB): of tests.

    ``checker``: source of the program that judges outputs, where more than one is right.
    """

    id: str | int
    task: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    answer: str | None = None
    tests: list[dict[str, str]] | None = None
    level: int = 0
    time_limit: float | None = None
    memory_limit: float | None = None
    checker: str | None = None


def read_questions(path: Path) -> list[Question]:
    """All questions of a file, in its order; a torn last line is left out.

    Raises:
        BadRecord: no such file, no question, a line that is none, or an id that came before in its task.
    """
    found: dict[tuple[str, str], Question] = {}
    for number, value in objects(path, WHAT):
        where = f"{path}:{number}"
        try:
            question = msgspec.convert(value, Question)
        except msgspec.ValidationError as e:
            raise BadRecord(f"{where}: {short(value)} is no question ({e}); {WHAT}") from e
        if (question.prompt is None) == (question.messages is None):
            raise BadRecord(f"{where}: a question has a prompt or messages, one of the two; {WHAT}")
        if question.prompt is not None and not question.prompt.strip():
            raise BadRecord(f"{where}: the prompt {short(question.prompt)} is empty; take the question out")
        key = question.task, str(question.id)
        if key in found:
            raise BadRecord(f"{where}: id {key[1]!r} of {key[0]} came before; give every question its own")
        found[key] = question
    if not found:
        raise BadRecord(f"{path} holds no question; {WHAT}")
    return list(found.values())


def parse_shard(text: str | None) -> tuple[int, int]:
    """``2/8`` as (2, 8); None as (1, 1). Raises BadInput for another form or a shard that does not exist."""
    if text is None:
        return 1, 1
    part, slash, of = text.partition("/")
    if not (slash and part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise BadInput(f"shard {text!r} must read I/N with 1 <= I <= N, e.g. 2/8 for the second of eight")
    return int(part), int(of)


def take_shard(items: Sequence[T], shard: str | None) -> list[T]:
    """Every N-th item, from the I-th on: all shards together are all items. Raises BadInput for an empty shard."""
    part, of = parse_shard(shard)
    taken = list(items[part - 1 :: of])
    if not taken:
        raise BadInput(f"shard {shard} of {len(items)} questions is empty; cut them into fewer shards")
    return taken
