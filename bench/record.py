"""Records: one row about one sample or one latency trial; everything in a report comes from them. Torch-free.

A run folder holds ``run.json`` (what was run, with which settings, versions, device), ``records.jsonl``
(append-only, fsynced at item boundaries, a torn last line is tolerated) and ``summary.json`` (written last, by rename).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.scorers.verdict import Verdict
from pipo.engine.types import Draft, Method, Sampling
from pipo.errors import BadRecord

SCHEMA = 1
AT_ONCE = 1000  # records that a rewriting holds in memory


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model and a method with its settings: a row of a comparison. ``model``: a folder or a name (``lab/base``)."""

    name: str
    model: str
    method: Method


class SampleRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="sample"):
    """One generation of one item by one variant. Times in seconds from submission to the engine; -1 where none.

    ``places``: ids with PADs (``pad_id``) where drafts were rejected; pair methods have two places a slot.
    ``token_times_s``: one time per real token. ``first_pair_s``: when the first pair was complete (pair methods) or two
    tokens were out. ``steps``: engine steps that gave anything, the prefill among them.

    ``judged``: whether ``correct`` is a verdict already; until then it is False (bench/grading.py). ``verdict``: how it
    was found; None where that is plain (``answer`` and ``gold`` compared as texts) or not known (older records).
    """

    variant: str
    task: str
    item: str
    sample: int
    seed: int
    level: int = 0
    prompt_tokens: int = 0
    places: list[int] = []
    pad_id: int = -1
    text: str = ""
    answer: str | None = None
    gold: str = ""
    correct: bool = False
    finish: str = "eos"
    slots: int = 0
    tokens: int = 0
    drafts: list[Draft] = []
    steps: int = 0
    ttft_s: float = -1.0
    first_pair_s: float = -1.0
    token_times_s: list[float] = []
    error: str | None = None
    judged: bool = True
    verdict: Verdict | None = None


class LatencyRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="latency"):
    """One latency trial at batch 1. ``tpot16_s`` over the first 16 tokens, ``tpot_s`` over all (bench/timing.py).

    ``prefill_s``: end of the first step, the first draft included where the method drafts there.
    """

    variant: str
    input_tokens: int
    trial: int
    ttft_s: float
    first_pair_s: float
    tpot16_s: float
    tpot_s: float
    tokens: int
    slots: int
    steps: int
    offered: int = 0
    kept: int = 0
    prefill_s: float = -1.0
    token_times_s: list[float] = []


class ThroughputRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="throughput"):
    """What the engine put out, for one variant and task, between two writes of this file (whole batch together).

    ``full_*``: the part of it during which the batch was full. Sums over rows survive kills and resumptions.
    """

    variant: str
    task: str
    batch: int
    wall_s: float
    tokens: int
    slots: int
    steps: int
    full_wall_s: float = 0.0
    full_tokens: int = 0


class MapRecord(msgspec.Struct, kw_only=True, tag_field="type", tag="map"):
    """One method in one cell of a map (bench/map.py): ``batch`` rows of ``context`` tokens each.

    ``keep``: kept share that a pair method's context assumes. ``places``: backbone positions a row. ``memory_bytes``:
    weights, caches and states. ``step_s``: seconds of each step that was timed, in order; empty where none was.
    ``calls``: torch operators that one step dispatches. ``note``: why nothing was timed.
    """

    batch: int
    context: int
    method: str
    keep: float | None = None
    places: int = 0
    memory_bytes: float = 0.0
    fits: bool = True
    step_s: list[float] = []
    calls: int = 0
    note: str = ""


class Provenance(msgspec.Struct, kw_only=True):
    """Where a run came from. ``settings_hash``: of the resolved spec; ``seed``: the run's base seed.

    ``models``: model as named in the settings -> fingerprint of its config and weights (bench/loading.py).
    ``warnings``: settings that the engine did not honour.
    """

    settings_hash: str
    git_commit: str
    git_dirty: bool
    versions: dict[str, str]
    device: str
    cpu_count: int
    threads: int
    seed: int
    engine: str
    started: str
    models: dict[str, str] = {}
    warnings: list[str] = []


class Run(msgspec.Struct, kw_only=True):
    """The header of a run folder. ``kind``: of its job (pipod/kinds.py). ``spec``: resolved."""

    kind: str
    spec: dict[str, Any]
    provenance: Provenance
    variants: list[Variant] = []
    budgets: dict[str, dict[str, int]] = {}
    sampling: Sampling = Sampling()
    schema: int = SCHEMA


Record = SampleRecord | LatencyRecord | ThroughputRecord | MapRecord
R = TypeVar("R")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def append(path: Path, records: Iterable[msgspec.Struct]) -> None:
    """Append records (or other structs) as JSON lines and fsync, so that an item written is an item kept.

    A torn last line, left by a kill, is cut off first.
    """
    with open(path, "ab+") as f:
        _cut_torn_tail(f)
        f.write(b"".join(_encoder.encode(r) + b"\n" for r in records))
        f.flush()
        os.fsync(f.fileno())


def rewrite(path: Path, records: Iterable[msgspec.Struct]) -> None:
    """Replace a record file by these records, by rename; they need not fit into memory."""
    tmp = path.with_name(path.name + ".tmp")
    tmp.unlink(missing_ok=True)
    left = iter(records)
    append(tmp, islice(left, AT_ONCE))
    while part := list(islice(left, AT_ONCE)):
        append(tmp, part)
    os.replace(tmp, path)


def _cut_torn_tail(f: Any) -> None:
    end = f.seek(0, os.SEEK_END)
    if end == 0:
        return
    f.seek(end - 1)
    if f.read(1) == b"\n":
        return
    f.seek(0)
    keep = f.read().rfind(b"\n") + 1
    f.truncate(keep)
    f.seek(keep)


def each(path: Path) -> Iterator[Record]:
    """Records of a file one by one, for files that memory does not hold; bad lines as in ``read``."""
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.endswith(b"\n"):
                return  # torn by a kill
            try:
                yield _decoder.decode(line)
            except msgspec.DecodeError as e:
                raise BadRecord(
                    f"{path}:{number}: not a record of schema {SCHEMA} ({e}); restore the file or rerun"
                ) from e


def read(path: Path, *, allow_empty: bool = False) -> list[Record]:
    """Read records; a torn last line (no newline) is left out, any other bad line is an error that names it.

    Raises:
        BadRecord: the file is missing, empty (unless ``allow_empty``), or a line is no record.
    """
    if not path.exists():
        if allow_empty:
            return []
        raise BadRecord(f"{path} does not exist; name a run folder that holds records.jsonl")
    out = list(each(path))
    if not out and not allow_empty:
        raise BadRecord(f"{path} holds no whole record; run the job again, it goes on from what is there")
    return out


def write_json(path: Path, value: Any) -> None:
    """Write a struct or plain value as JSON, by rename, so that readers see all of it or none."""
    tmp = path.with_name(path.name + ".tmp")
    with open(tmp, "wb") as f:
        f.write(msgspec.json.format(_encoder.encode(value), indent=2))
        f.flush()
        os.fsync(f.fileno())
    os.replace(tmp, path)


def read_run(folder: Path) -> Run:
    """Read a run folder's header. Raises BadRecord where it is missing or of another schema."""
    path = folder / "run.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except FileNotFoundError as e:
        raise BadRecord(f"{path} does not exist; {folder} is not a run folder") from e
    except msgspec.DecodeError as e:
        raise BadRecord(f"{path} is not a run header of schema {SCHEMA} ({e})") from e
