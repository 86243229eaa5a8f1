"""Tasks: the lab's, and any JSONL of prompts and answers. Torch-free.

A JSONL line has ``prompt`` and ``answer`` (strings), optionally ``id`` and ``level``; other keys are ignored. It is
named by its path, or by a TOML beside it with ``name``, ``file`` (relative to the TOML) and ``[budgets]`` tight, loose.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec

from pipo.errors import BadInput, BadRecord
from pipo.lab import TASKS, extract_answer, items, lab_manifest

DEFAULT_BUDGETS = {"tight": 1024, "loose": 2048}


class Item(msgspec.Struct, frozen=True):
    """One question. ``gold``: the right answer; ``level``: difficulty, 0 where unknown."""

    id: str
    prompt: str
    gold: str
    level: int = 0


class Task(msgspec.Struct, frozen=True):
    """Items of one task with its budgets in slots, {"tight", "loose"}, and how an answer is read from a text."""

    name: str
    items: list[Item]
    budgets: dict[str, int]
    extract: Callable[[str], str | None]


class _Line(msgspec.Struct):
    prompt: str
    answer: str | int | float
    id: str | int | None = None
    level: int = 0


class _TaskFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    file: str
    budgets: dict[str, int] = {}


def boxed(text: str) -> str | None:
    r"""What the last complete ``\boxed{...}`` of a text holds, inner braces included, outer blanks cut; or None."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for place in range(start + len("\\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[start + len("\\boxed{") : place].strip()
        start = text.rfind("\\boxed{", 0, start)
    return None


def is_right(answer: str | None, gold: str) -> bool:
    """Exact match after cutting outer blanks; no answer is wrong."""
    return answer is not None and answer.strip() == gold.strip()


def load_task(name: str, *, limit: int | None = None, slots: int | None = None, family: str | None = None) -> Task:
    """A lab task by name, or a JSONL or TOML file by path.

    ``limit``: at most so many items, always the same ones. ``slots`` replaces the loose budget, and the tight one
    where that would be larger. ``family``: folder of a lab family, default the shipped one.

    Raises:
        BadInput: unknown task, limit or slots below 1.
        BadRecord: an empty or torn JSONL; the message names the line.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit {limit} must be at least 1; leave it out for all items")
    if slots is not None and slots < 1:
        raise BadInput(f"slots {slots} must be at least 1; leave it out for the task's own budget")
    if name in TASKS:
        found = items(name, "test", limit, family=family) if limit else items(name, "test", family=family)
        settings = lab_manifest(family).tasks[name]
        lab = [Item(i.id, i.prompt, i.answer, i.level) for i in found]
        return Task(name, lab, _budgets(settings.budgets, slots), extract_answer)
    if name.endswith((".jsonl", ".toml")):
        return _from_file(Path(name), limit, slots)
    raise BadInput(f"unknown task {name!r}; tasks are {', '.join(TASKS)}, or the path of a .jsonl or .toml file")


def load_tasks(
    names: list[str] | None, *, limit: int | None, slots: int | None, family: str | None = None
) -> list[Task]:
    """All tasks of a spec; None means all of the lab family. Raises BadInput where there is none, or one name twice."""
    wanted = lab_manifest(family).tasks if names is None else names
    tasks = [load_task(n, limit=limit, slots=slots, family=family) for n in wanted]
    known = [t.name for t in tasks]
    if not known:
        raise BadInput(f"no tasks; name at least one of {', '.join(TASKS)}, or leave them out for all")
    for name in known:
        if known.count(name) > 1:
            raise BadInput(f"two tasks are named {name!r}; name each once")
    return tasks


def _budgets(own: dict[str, int], slots: int | None) -> dict[str, int]:
    loose = slots or own["loose"]
    return {"tight": min(own["tight"], loose), "loose": loose}


def _from_file(path: Path, limit: int | None, slots: int | None) -> Task:
    if path.suffix == ".jsonl":
        return Task(path.stem, read_items(path)[:limit], _budgets(DEFAULT_BUDGETS, slots), boxed)
    try:
        settings = msgspec.convert(tomllib.loads(path.read_text()), _TaskFile)
    except OSError as e:
        raise BadInput(f"{path} cannot be read ({e.strerror}); name an existing task file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
        raise BadInput(f"{path} is no task file ({e}); it has name, file and [budgets] tight, loose") from e
    budgets = {**DEFAULT_BUDGETS, **settings.budgets}
    if set(budgets) != {"tight", "loose"} or not 1 <= budgets["tight"] <= budgets["loose"]:
        raise BadInput(f"{path}: budgets {settings.budgets} must have 1 <= tight <= loose and nothing else")
    found = read_items(path.parent / settings.file)[:limit]
    return Task(settings.name, found, _budgets(budgets, slots), boxed)


def read_items(path: Path) -> list[Item]:
    """Items of a JSONL file, blank lines left out.

    Raises:
        BadInput: the file cannot be read.
        BadRecord: no item, a line that is none, or an id that came before; the message names file and line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise BadInput(f"{path} cannot be read ({e.strerror}); name an existing JSONL file") from e
    found: dict[str, Item] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise BadRecord(f"{path}:{number}: no item ({e}); a line is JSON with prompt and answer") from e
        item = Item(str(number if row.id is None else row.id), row.prompt, str(row.answer), row.level)
        if item.id in found:
            raise BadRecord(f"{path}:{number}: id {item.id!r} came before; give every item its own")
        found[item.id] = item
    if not found:
        raise BadRecord(f"{path} holds no item; a line is JSON with prompt and answer")
    return list(found.values())
