"""Which generations a page shows: a bounded choice from a run of any length, the records read one by one.

A first pass keeps of each record where its line begins and whether it is right. Then whole items are taken, those on
which methods differ first, one of each task in turn, until a task has enough or the page is full; only their lines
are read again. The same file gives the same choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench.record import SampleRecord
from pipo.errors import BadRecord
from reports.html.escape import label, script_json, visible
from reports.html.trace import trace
from reports.load import LoadedRun

if TYPE_CHECKING:
    from pipo.engine.types import Method

MOST_ITEMS = 60  # a task
MOST_SAMPLES = 4  # an item and variant
LEAST_ITEMS = 4  # a task: what generations are shortened for
MOST_PROMPT = 4000  # characters
SEEDLESS = "does not honour seeds"  # what an engine's remark in a run's header says (pipo/sglang/engine.py)
RECORDS, PROMPTS = "records.jsonl", "items.jsonl"

_decoder = msgspec.json.Decoder(SampleRecord)


class Head(msgspec.Struct):
    """What the choice needs of a line; the rest is skipped unread."""

    type: str
    variant: str = ""
    task: str = ""
    item: str = ""
    sample: int = 0
    correct: bool = False
    finish: str = ""
    level: int = 0
    gold: str = ""


class Place(NamedTuple):
    """One sample: where its line begins, and its sign: 1 right, 0 wrong, x failed."""

    offset: int
    sign: str


class Item:
    """The samples of one item by (variant, sample)."""

    __slots__ = ("id", "level", "gold", "places")

    def __init__(self, id_: str, level: int, gold: str) -> None:
        self.id, self.level, self.gold = id_, level, gold
        self.places: dict[tuple[int, int], Place] = {}

    @property
    def traces(self) -> list[tuple[int, int]]:
        """Variant and sample of what a page shows, in order."""
        return sorted(key for key in self.places if key[1] < MOST_SAMPLES)

    @property
    def differs(self) -> bool:
        """Whether on some sample one variant is right and another is not."""
        by_sample: dict[int, set[bool]] = {}
        for (_, sample), place in self.places.items():
            by_sample.setdefault(sample, set()).add(place.sign == "1")
        return any(len(found) > 1 for found in by_sample.values())


class Found(NamedTuple):
    """Variants in order, and items by task."""

    variants: list[str]
    tasks: dict[str, dict[str, Item]]


def scan(path: Path, known: list[str]) -> Found:
    """Read a record file once. ``known``: variants that the run's header names; others come after them."""
    place = {name: i for i, name in enumerate(known)}
    tasks: dict[str, dict[str, Item]] = {}
    for offset, line in _lines(path):
        head = _head.decode(line)
        if head.type != "sample":
            continue
        variant = place.setdefault(head.variant, len(place))
        items = tasks.setdefault(head.task, {})
        item = items.get(head.item)
        if item is None:
            item = items[head.item] = Item(head.item, head.level, head.gold)
        sign = "x" if head.finish == "failed" else str(int(head.correct))
        item.places[variant, head.sample] = Place(offset, sign)
    return Found(list(place), tasks)


_head = msgspec.json.Decoder(Head)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with open(path, "rb") as f:
        for line in f:
            if not line.endswith(b"\n"):
                return  # torn by a kill
            yield offset, line
            offset += len(line)


def has_generations(path: Path) -> bool:
    """Whether there are generations among a file's first records. A run of another kind has none, or no such file."""
    return path.is_file() and any(_head.decode(line).type == "sample" for _, line in islice(_lines(path), 50))


def in_order(items: dict[str, Item]) -> list[Item]:
    """Items on which methods differ first, then by id, numbers in it as numbers."""
    return sorted(items.values(), key=lambda i: (not i.differs, _natural(i.id)))


def _natural(text: str) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", text)
    return [(True, int(p), "") if p.isascii() and p.isdigit() and len(p) < 19 else (False, 0, p) for p in parts]


class Chosen:
    """A run's part of the viewer: ``index`` for the picker, ``blobs`` with the traces of one item each, as JSON."""

    def __init__(self, run: LoadedRun, name: str, room: int, first: int = 0) -> None:
        """``room``: most bytes that the blobs may have together; long generations are shortened to fit into it.

        ``first``: number of the first blob in the page.
        """
        self.first = first
        self.path = run.folder / RECORDS
        self.methods: dict[str, Method] = {v.name: v.method for v in run.run.variants}
        self.found = scan(self.path, list(self.methods))
        self.models: list[str] = []  # of each variant, as the run names it
        self.ids: dict[int, set[int]] = {}  # variant -> token ids shown
        self.blobs: list[str] = []
        queues = {task: in_order(items) for task, items in self.found.tasks.items()}
        self.taken: dict[str, list[dict[str, Any]]] = {task: [] for task in queues}
        most = max((len(item.traces) for queue in queues.values() for item in queue), default=1)
        self.trace_room = room // max(1, most * LEAST_ITEMS * len(queues))
        self.prompts = _prompts(run.folder / PROMPTS)
        self._take(queues, room)
        self.family: str | None = run.run.spec.get("family")
        self.index: dict[str, Any] = {
            "name": name,
            "seeded": not any(SEEDLESS in text for text in run.run.provenance.warnings),
            "variants": [self._variant(run, i, v) for i, v in enumerate(self.found.variants)],
            "tasks": [
                {
                    "name": label(task), "of": len(queue), "differ": sum(i.differs for i in queue),
                    "items": self.taken[task],
                }
                for task, queue in queues.items()
            ],
        }  # fmt: skip

    def _take(self, queues: dict[str, list[Item]], room: int) -> None:
        used = 0
        with open(self.path, "rb") as f:
            for turn in range(MOST_ITEMS):
                for task, queue in queues.items():
                    if turn >= len(queue):
                        continue
                    blob = script_json(self._traces(f, task, queue[turn]))
                    used += len(blob.encode())
                    if used > room:
                        return
                    self.taken[task].append(self._entry(queue[turn], self.first + len(self.blobs)))
                    self.blobs.append(blob)

    def _traces(self, f: Any, task: str, item: Item) -> dict[str, Any]:
        traces = []
        for variant, sample in item.traces:
            f.seek(item.places[variant, sample].offset)
            try:
                r = _decoder.decode(f.readline())
            except msgspec.DecodeError as e:
                raise BadRecord(f"{self.path} changed while it was read ({e}); write the report again") from e
            made = trace(r, variant, self.methods.get(self.found.variants[variant]), self.trace_room)
            traces.append(made)
            seen = self.ids.setdefault(variant, set())
            seen.update(x for ids in (*made["o"], *made.get("d", ())) for x in ids)
            seen.add(r.pad_id)
            length = r.prompt_tokens
        found: dict[str, Any] = {"traces": traces, "prompt_tokens": length if traces else 0}
        prompt = self.prompts.get((task, item.id))
        return found if prompt is None else found | {"prompt": prompt}

    def _entry(self, item: Item, blob: int) -> dict[str, Any]:
        shown = sorted({s for _, s in item.traces})
        right = [
            "".join(item.places[v, s].sign if (v, s) in item.places else "-" for s in shown)
            for v in range(len(self.found.variants))
        ]
        out = {"id": label(item.id), "blob": blob, "level": item.level, "gold": label(item.gold)}
        return out | {"samples": shown, "of": len({s for _, s in item.places}), "right": right}

    def _variant(self, run: LoadedRun, i: int, name: str) -> dict[str, Any]:
        known = next((v for v in run.run.variants if v.name == name), None)
        model = known.model if known else run.summary.get("model", "")
        self.models.append(model)
        return {"name": label(name), "model": label(model), "method": _words(known.method) if known else ""}


def _words(method: Method) -> str:
    setting = {"pipo": "threshold", "eagle": "depth", "random": "keep_rate"}.get(method.name)
    return f"{method.name}, {setting.replace('_', ' ')} {getattr(method, setting):g}" if setting else method.name


class _Prompt(msgspec.Struct):
    task: str
    item: str
    prompt: str


def _prompts(path: Path) -> dict[tuple[str, str], str]:
    """Prompts by task and item, where the run folder has them: lines of task, item and prompt."""
    found: dict[tuple[str, str], str] = {}
    if not path.is_file():
        return found
    for _, line in _lines(path):
        try:
            row = msgspec.json.decode(line, type=_Prompt)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        text = row.prompt if len(row.prompt) <= MOST_PROMPT else f"{row.prompt[:MOST_PROMPT]} …"
        found[row.task, row.item] = visible(text)
    return found
