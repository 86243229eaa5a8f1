"""The job ``merge``: the shards of a comparison or evaluation put together into the run that they are parts of.

Shards have the seeds of the whole run and the same fingerprint of its items, so the merged folder has the settings hash
of the whole run: it can be reported, compared and gone on with as if no shard had been.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench import asked, grading, loading, provenance, record
from bench.compare import summary_of
from bench.record import Record, Run
from pipo.data.questions import parse_shard
from pipo.errors import BadInput
from pipo.jobs import JobContext

KINDS = ("compare", "eval")


class MergeSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``merge``. ``folders``: the run folders of all shards, in any order."""

    folders: list[str]


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Merge; returns the summary that the whole run would have, its times and rates those of the shards together.

    Raises:
        BadInput: folders that are no shards of one run, a shard that is missing, there twice or not finished.
        BadRecord: a folder without a run in it.
    """
    settings = loading.read_spec(spec, MergeSpec, "merge")
    provenance.check_folder(ctx.folder)
    shards = in_order([(Path(f), record.read_run(Path(f))) for f in settings.folders])
    whole = provenance.open_run(ctx.folder, header([found for _, found in shards]))
    records: list[Record] = []
    for folder, _ in shards:
        ctx.check()
        records += record.read(folder / "records.jsonl")
    record.rewrite(ctx.folder / "records.jsonl", records)
    asked.merge(ctx.folder, [folder for folder, _ in shards])
    summary = grading.sealed(summary_of(whole, records), grading.tally(records))
    record.write_json(ctx.folder / "summary.json", summary)
    return summary


def in_order(found: list[tuple[Path, Run]]) -> list[tuple[Path, Run]]:
    """All shards of one run, first to last. Raises BadInput where they are not that."""
    if not found:
        raise BadInput("no folders; name those of all shards of a run")
    by_part: dict[int, tuple[Path, Run]] = {}
    first, begin = found[0]
    of = parse_shard(begin.spec.get("shard"))[1]
    for folder, one in found:
        if one.kind not in KINDS or one.spec.get("shard") is None:
            raise BadInput(f"{folder} is no shard of a comparison or evaluation; those are made with --shard I/N")
        part, parts = parse_shard(one.spec["shard"])
        for key in sorted({*whole_spec(one), *whole_spec(begin)}):
            if one.spec.get(key) != begin.spec.get(key):
                raise BadInput(f"{folder} and {first} differ in {key} ({one.spec.get(key)!r}, "
                               f"{begin.spec.get(key)!r}); merge shards of one run")  # fmt: skip
        if parts != of:
            raise BadInput(f"{folder} is shard {part}/{parts}, {first} one of {of}; merge shards of one run")
        if part in by_part:
            raise BadInput(f"{folder} and {by_part[part][0]} are both shard {part}/{of}; name each once")
        if not (folder / "summary.json").is_file():
            raise BadInput(f"{folder}, shard {part}/{of}, is not finished; `pipo jobs resume` goes on with it")
        by_part[part] = folder, one
    missing = [f"{part}/{of}" for part in range(1, of + 1) if part not in by_part]
    if missing:
        raise BadInput(f"shards {', '.join(missing)} are missing; name all {of} folders")
    return [by_part[part] for part in sorted(by_part)]


def whole_spec(one: Run) -> dict[str, Any]:
    """The settings of the run that a shard is part of."""
    return {key: value for key, value in one.spec.items() if key != "shard"}


def header(shards: list[Run]) -> Run:
    """run.json of the whole run; where machines differ, it says so."""
    begin = shards[0]
    settings = whole_spec(begin)
    warnings = list(dict.fromkeys(w for s in shards for w in s.provenance.warnings))
    for key in ("device", "engine", "git_commit", "versions", "threads"):
        if any(getattr(s.provenance, key) != getattr(begin.provenance, key) for s in shards):
            warnings.append(f"shards differ in {key}; their times do not compare")
    source = msgspec.structs.replace(
        begin.provenance, settings_hash=provenance.settings_hash(settings), warnings=warnings,
        started=min(s.provenance.started for s in shards), git_dirty=any(s.provenance.git_dirty for s in shards),
    )  # fmt: skip
    return msgspec.structs.replace(begin, spec=settings, provenance=source)
