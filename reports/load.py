"""Reading run folders: header, summary, and the records behind them, each checked before anything is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from bench.record import SCHEMA, Run, each, read, read_run
from pipo.errors import BadInput, BadRecord
from reports.kinds import ALIASES, KINDS, ORDER, Kind

ALL_TASKS = "overall"
BUDGETS = ("tight", "loose")


class LoadedRun(msgspec.Struct, frozen=True):
    """A finished run: its folder's header and summary; ``records``: how many records lie behind the summary."""

    folder: Path
    run: Run
    summary: dict[str, Any]
    records: int

    @property
    def kind(self) -> str:
        """How it is shown: an evaluation as a comparison."""
        return ALIASES.get(self.run.kind, self.run.kind)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of a comparison, latency run, map or training study, points of the threshold study."""
        rows: list[dict[str, Any]] = self.summary[KINDS[self.kind].rows]
        return rows

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the run's order."""
        return list(self.summary.get("tasks", ()))

    @property
    def k(self) -> int:
        """Samples an item; 0 for latency."""
        return int(self.summary.get("k") or 0)


def load(folder: Path) -> LoadedRun:
    """Read one run folder.

    Raises:
        BadRecord: no run folder, another schema, a torn or empty record file, a run without summary (not finished).
        BadInput: a run of a kind that a report has no place for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadRecord(f"{folder} is not a folder; name the run folder of a finished job, see `pipo jobs list`")
    run = read_run(folder)
    if run.schema != SCHEMA:
        raise BadRecord(
            f"{folder / 'run.json'} is of schema {run.schema}, this version reads {SCHEMA}; run the job again"
        )
    kind = KINDS.get(ALIASES.get(run.kind, run.kind))
    if kind is None:
        known = ", ".join([*KINDS, *ALIASES])
        raise BadInput(f"{folder} holds a run of kind {run.kind!r}; a report shows {known}")
    records = sum(_count(path, kind) for path in kind.records(folder))  # first: what is torn is named as that
    return LoadedRun(folder, run, _summary(folder, kind), records)


def _count(path: Path, kind: Kind) -> int:
    """How many records a file has, each checked where this version knows its schema."""
    if not kind.plain:
        found = sum(1 for _ in each(path)) if path.exists() else 0  # one by one: memory does not hold all of a long run
        return found or len(read(path))  # which says what is wrong
    try:
        with open(path, "rb") as f:
            return sum(1 for _ in f)
    except OSError as e:
        raise BadRecord(f"{path} cannot be read ({e}); run the job again") from e


def _summary(folder: Path, kind: Kind) -> dict[str, Any]:
    path, needed = folder / "summary.json", kind.rows
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError as e:
        raise BadRecord(f"{path} does not exist: the run has not finished; give its command again, it goes on") from e
    except (OSError, ValueError) as e:
        raise BadRecord(f"{path} cannot be read ({e}); run the job again, it goes on from its records") from e
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA or not isinstance(summary.get(needed), list):
        raise BadRecord(f"{path} is no summary of schema {SCHEMA} with {needed!r}; run the job again")
    lacking = [key for key in kind.needs if key not in summary]
    if lacking:
        raise BadRecord(
            f"{path} has no {lacking[0]!r}: another version wrote it; run the job again, its stages are kept"
        )
    if summary.get("unjudged"):
        raise BadInput(f"{folder}: {summary['unjudged']} samples are not judged; `pipo eval score {folder}` does it")
    if not summary[needed]:
        raise BadRecord(f"{path} has no {needed}; nothing was measured: run the job again with at least one item")
    return summary


def load_all(folders: list[Path]) -> list[LoadedRun]:
    """All runs: comparisons, latency, maps, ablations. Raises BadInput where none is named, else as load."""
    if not folders:
        raise BadInput("no run folder to report on; name at least one, or run `pipo bench compare` first")
    runs = [load(folder) for folder in dict.fromkeys(Path(f).absolute() for f in folders)]
    return sorted(runs, key=lambda r: ORDER.index(r.kind))
