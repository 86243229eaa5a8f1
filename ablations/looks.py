"""What the studies that look into models share: record files of their own beside records.jsonl, and estimates.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench import record, stats
from bench.prompts import prepare
from bench.record import SampleRecord
from bench.runner import encode
from bench.session import SampleSpec, Session
from pipo.errors import BadInput, BadRecord

S = TypeVar("S", bound=msgspec.Struct)
DIGITS = 7  # what a stored distance is rounded to, significant


def append(path: Path, rows: Iterable[msgspec.Struct]) -> None:
    """Append rows as JSON lines and fsync; a torn last line is cut off first (as ``bench.record.append``)."""
    record.append(path, rows)  # type: ignore[arg-type]


def read(path: Path, kind: type[S]) -> list[S]:
    """Rows of a file, a torn last line left out; none where there is no file. Raises BadRecord that names the line."""
    if not path.exists():
        return []
    decoder, out = msgspec.json.Decoder(kind), []
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.endswith(b"\n"):
                break  # torn by a kill
            try:
                out.append(decoder.decode(line))
            except msgspec.DecodeError as e:
                raise BadRecord(f"{path}:{number}: no {kind.__name__} ({e}); run the job again in a new folder") from e
    return out


def short(values: Iterable[float]) -> list[float | None]:
    """Numbers as records keep them, 7 significant digits; None for what is not finite (JSON has no word for it)."""
    return [float(f"{v:.{DIGITS}g}") if abs(v) != float("inf") else None for v in values]


def by_item(rows: Iterable[tuple[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Values of all samples of each item, in the order of first appearance."""
    out: dict[str, list[float]] = {}
    for item, values in rows:
        out.setdefault(item, []).extend(values)
    return out


def estimate(values: Mapping[str, Sequence[float]]) -> dict[str, Any] | None:
    """Mean over all values with its 95% interval, clustered by item (the keys); None where there is no value."""
    clusters = [list(v) for v in values.values() if len(v)]
    return stats.clustered(clusters).plain() if clusters else None


def on_torch_only(spec: SampleSpec, what: str) -> None:
    """Raise BadInput for a job that asks for another engine than the one whose weights can be looked at."""
    if spec.on_sglang:
        raise BadInput(f"{what} looks at the model itself, which only the torch engine holds; leave --engine out")


def samples(session: Session, variant: str) -> dict[tuple[str, str], list[SampleRecord]]:
    """(task, item) -> its samples in order, in the order of the tasks' items; failed and empty ones left out."""
    found: dict[tuple[str, str], list[SampleRecord]] = {}
    for r in session.records():
        if isinstance(r, SampleRecord) and r.variant == variant and r.places and r.finish != "failed":
            found.setdefault((r.task, r.item), []).append(r)
    order = [(t.name, i.id) for t in session.tasks for i in t.items]
    return {key: sorted(found[key], key=lambda r: r.sample) for key in order if key in found}


def encoded(session: Session, model: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """(task, item) -> ids of the prompt as a model is given it."""
    loaded = session.loaded[model, ""]
    return {
        (t.name, i.id): encode(loaded.tokenizer, i.prompt, loaded.engine.model.config.vocab_size, f"{t.name}/{i.id}")
        for t in session.tasks
        for i in prepare(t.items, loaded.tokenizer, session.spec.thinking, t.name)
    }
