"""Tasks: the lab's, published benchmarks, and any JSONL of prompts and answers. Torch-free.

A JSONL line has ``prompt`` and ``answer`` (strings), optionally ``id`` and ``level``; other keys are ignored. It is
named by its path, or by a TOML beside it with ``name``, ``file`` (relative to the TOML) and ``[budgets]`` tight, loose;
with ``schema``, ``prompt`` and the like the TOML is that of a benchmark (pipo/data/benchmarks, docs/BENCHMARKS.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import provenance
from bench.scorers.reading import choice_of, last_boxed
from pipo.data import benchmarks
from pipo.data.benchmarks import Definition, Program
from pipo.data.benchmarks.definitions import DEFAULT_BUDGETS
from pipo.data.lines import raw_lines
from pipo.data.questions import take_shard
from pipo.errors import BadInput, BadRecord
from pipo.lab import TASKS, extract_answer, items, lab_manifest

__all__ = ["DEFAULT_BUDGETS", "Item", "Task", "boxed", "is_right", "load_task", "load_tasks", "read_items"]


class Item(msgspec.Struct, frozen=True):
    """One question. ``gold``: the right answer, empty for programs; ``level``: difficulty, 0 where unknown.

    ``messages`` go through the model's chat template; ``prompt`` is the text for models that have none. ``program``:
    what a program that answers it is judged by.
    """

    id: str
    prompt: str
    gold: str
    level: int = 0
    messages: list[dict[str, str]] | None = None
    program: Program | None = None


class Task(msgspec.Struct, frozen=True):
    """Items of one task with its budgets in slots, {"tight", "loose"}, and how an answer is read from a text.

    ``scorer``: exact (the answer compared as text), math, choice or code (docs/SCORING.md). ``fingerprint``: of the
    items before a shard was taken, so that all shards of a run have the same. ``source``: what decides the prompts, and
    where the items come from; empty for the lab's. ``notes``: what a person should know. ``hidden``: its items
    are not copied into run folders.
    """

    name: str
    items: list[Item]
    budgets: dict[str, int]
    extract: Callable[[str], str | None]
    scorer: str = "exact"
    fingerprint: str = ""
    source: dict[str, Any] = {}
    notes: list[str] = []
    hidden: bool = False


class _Line(msgspec.Struct):
    prompt: str
    answer: str | int | float
    id: str | int | None = None
    level: int = 0


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


def no_answer(text: str) -> None:
    """Of a program: what it does counts, not how it reads, so there is nothing that two samples could agree on."""


# How an answer is read, as the scorer of that name reads it.
READ: dict[str, Callable[[str], str | None]] = {
    "exact": boxed, "math": last_boxed, "choice": choice_of, "code": no_answer,
}  # fmt: skip


def load_task(
    name: str, *, limit: int | None = None, slots: int | None = None, family: str | None = None,
    part: str | None = None, shard: str | None = None, data: str | None = None,
) -> Task:  # fmt: skip
    """A lab task or a benchmark by name, or a JSONL or TOML file by path.

    ``limit``: at most so many items, always the same ones, of those of the slice ``part`` (``A:B``); ``shard``
    (``I/N``) is every N-th of them. ``slots`` replaces the loose budget, and the tight one where that would be larger.
    ``family``: folder of a lab family, default the shipped one. ``data``: folder that benchmarks lie in, default
    PIPO_DATA.

    Raises:
        BadInput: unknown task, limit or slots below 1, a benchmark that is not here, a slice or shard without items.
        BadRecord: a file that is empty, torn or of another schema; the message names the line.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit {limit} must be at least 1; leave it out for all items")
    if slots is not None and slots < 1:
        raise BadInput(f"slots {slots} must be at least 1; leave it out for the task's own budget")
    task = _whole(name, limit if part is None else None, slots, family, data)
    chosen = benchmarks.take(task.items, limit, part, task.name)
    kept = take_shard(chosen, shard)
    return msgspec.structs.replace(task, items=kept, fingerprint=fingerprint(chosen))


def fingerprint(found: Sequence[Item]) -> str:
    """16 hex digits over all that decides what is asked and what is right."""
    if any(i.messages is not None or i.program is not None for i in found):
        return provenance.settings_hash({"items": msgspec.to_builtins(found)})
    plain = [{"id": i.id, "prompt": i.prompt, "gold": i.gold, "level": i.level} for i in found]
    return provenance.settings_hash({"items": plain})


def _whole(name: str, limit: int | None, slots: int | None, family: str | None, data: str | None) -> Task:
    if name in TASKS:
        found = items(name, "test", limit, family=family) if limit else items(name, "test", family=family)
        settings = lab_manifest(family).tasks[name]
        lab = [Item(i.id, i.prompt, i.answer, i.level) for i in found]
        return Task(name, lab, _budgets(settings.budgets, slots), extract_answer)
    if name in benchmarks.NAMES:
        return _benchmark(benchmarks.load(benchmarks.shipped(name), Path(data) if data else None), slots)
    path = Path(name)
    if path.suffix == ".jsonl":
        return Task(path.stem, read_items(path), _budgets(DEFAULT_BUDGETS, slots), boxed)
    if path.suffix == ".toml":
        of = benchmarks.read_definition(path)
        files = [path.parent / of.file] if of.file else None  # without one it is ours, named by its path
        return _benchmark(benchmarks.load(of, Path(data) if data else None, files), slots)
    known = f"{', '.join(TASKS)}, {', '.join(benchmarks.NAMES)}"
    raise BadInput(f"unknown task {name!r}; tasks are {known}, or the path of a .jsonl or .toml file")


def _benchmark(found: benchmarks.Benchmark, slots: int | None) -> Task:
    of = found.definition
    made = [
        Item(a.entry.id, a.plain, a.entry.gold, a.entry.level, a.messages, a.entry.program) for a in found.items
    ]  # fmt: skip
    budgets = _budgets(msgspec.to_builtins(of.budgets), slots)
    return Task(
        of.name, made, budgets, READ[of.scorer], of.scorer, source=describe(of), notes=found.notes, hidden=of.hidden
    )  # fmt: skip


def describe(of: Definition) -> dict[str, Any]:
    """What of a definition decides the prompts and golds, for a run's settings; nothing where rows bring them."""
    if of.schema == benchmarks.PLAIN:
        return {}
    kept = ("schema", "prompt", "scorer", "shuffle", "only", "since", "until", "language", "source", "licence")
    return {key: value for key in kept if (value := getattr(of, key)) not in (None, "", {})}


def load_tasks(
    names: list[str] | None, *, limit: int | None, slots: int | None, family: str | None = None,
    part: str | None = None, shard: str | None = None, data: str | None = None,
) -> list[Task]:  # fmt: skip
    """All tasks of a spec; None means all of the lab family. Raises BadInput where there is none, or one name twice."""
    wanted = lab_manifest(family).tasks if names is None else names
    tasks = [
        load_task(n, limit=limit, slots=slots, family=family, part=part, shard=shard, data=data) for n in wanted
    ]  # fmt: skip
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


def read_items(path: Path) -> list[Item]:
    """Items of a JSONL file (packed as .gz or .xz too), blank lines left out.

    Raises:
        BadInput: the file cannot be read.
        BadRecord: no item, a line that is none, or an id that came before; the message names file and line.
    """
    if not path.is_file():
        raise BadInput(f"{path} cannot be read (no such file); name an existing JSONL file")
    found: dict[str, Item] = {}
    for number, line in raw_lines(path, "a line is JSON with prompt and answer"):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise BadRecord(f"{path}:{number}: no item ({e}); a line is JSON with prompt and answer") from e
        item = Item(str(number if row.id is None else row.id), row.prompt, str(row.answer), row.level)
        if not item.gold.strip():
            raise BadRecord(f"{path}:{number}: no gold, the answer is empty; take the item out")
        if item.id in found:
            raise BadRecord(f"{path}:{number}: id {item.id!r} came before; give every item its own")
        found[item.id] = item
    if not found:
        raise BadRecord(f"{path} holds no item; a line is JSON with prompt and answer")
    return list(found.values())
