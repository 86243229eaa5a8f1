"""The journal: jobs and their events in SQLite (WAL), the daemon's only memory that counts. Torch-free.

Two kinds of writes. What a client was promised (a submission, a resume, a cancel, how a job ended) is committed with
synchronous=FULL: it survives kill -9 and a power cut. Events are collected and committed together without fsync: they
survive kill -9, while a power cut may take the last of them. Clients see only what is committed.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipo.errors import BadInput
from pipod.codec import decode_dict, encode
from pipod.messages import (
    CANCELLED,
    ENDED,
    QUEUED,
    RUNNING,
    ErrorInfo,
    JobEvent,
    JobInfo,
)

SCHEMA = 1
MAX_BATCH_BYTES = 4 << 20
_TABLES = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, spec BLOB NOT NULL, join_key TEXT, state TEXT NOT NULL,
    created REAL NOT NULL, queued REAL NOT NULL, started REAL, finished REAL, folder TEXT NOT NULL DEFAULT '',
    error_type TEXT, error_message TEXT, result BLOB, stopping INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_state ON jobs (state, queued, id);
CREATE TABLE events (
    job INTEGER NOT NULL, seq INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
"""
_COLUMNS = "id, kind, spec, join_key, state, created, started, finished, folder, error_type, error_message"


class Journal:
    """All jobs of one home. ``jobs_folder``: where each job gets its own folder, by name relative to it."""

    def __init__(self, path: Path, jobs_folder: Path) -> None:
        """Open or make the journal. Raises BadInput where the file is no journal or a newer one."""
        self._jobs = jobs_folder
        self._buffer: list[tuple[int, int, float, str, bytes]] = []
        self._last: dict[int, int] = {}
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
            elif version != SCHEMA:
                raise BadInput(f"{path} is of schema {version}, this pipod knows {SCHEMA}; use the pipo that wrote it")
            self._db.execute("PRAGMA synchronous=NORMAL")
            path.chmod(0o600)
        except sqlite3.DatabaseError as e:
            self._db.close()
            raise BadInput(f"{path} cannot be used: {e}; move it aside to start anew, job folders stay") from e
        except BadInput:
            self._db.close()
            raise

    def close(self) -> None:
        self.flush()
        self._db.close()

    # Reading ---------------------------------------------------------------------------------------------------

    def job(self, id: int, joined: bool = False) -> JobInfo:
        """One job with its result. Raises BadInput where there is none."""
        row = None
        if 0 < id < 2**63:
            row = self._db.execute(f"SELECT {_COLUMNS}, result FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise BadInput(f"there is no job {id}; `pipo jobs` lists them")
        info = self._info(row)
        info.joined = joined
        return info

    def jobs(self, limit: int) -> list[JobInfo]:
        """The newest ``limit`` jobs, oldest of them first, without results."""
        rows = self._db.execute(f"SELECT {_COLUMNS}, NULL FROM jobs ORDER BY id DESC LIMIT ?", (min(limit, 10_000),))
        return [self._info(r) for r in rows.fetchall()[::-1]]

    def unfinished(self, kind: str, join_key: str) -> int | None:
        """The oldest unfinished job with this key, unless it was asked to stop."""
        row = self._db.execute(
            "SELECT id FROM jobs WHERE kind = ? AND join_key = ? AND state IN (?, ?) AND NOT stopping ORDER BY id",
            (kind, join_key, QUEUED, RUNNING),
        ).fetchone()
        return row[0] if row else None

    def in_state(self, state: str) -> list[int]:
        """Ids of the jobs in this state, first come first."""
        rows = self._db.execute("SELECT id FROM jobs WHERE state = ? ORDER BY queued, id", (state,))
        return [r[0] for r in rows]

    def stopping(self, id: int) -> bool:
        """Whether somebody asked this job to stop."""
        return bool(self._db.execute("SELECT stopping FROM jobs WHERE id = ?", (id,)).fetchone()[0])

    def counts(self) -> dict[str, int]:
        return Counter(dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()))

    def last_seq(self, id: int) -> int:
        """The newest event's number, committed or not; 0 where there is none."""
        if id not in self._last:
            row = self._db.execute("SELECT max(seq) FROM events WHERE job = ?", (id,)).fetchone()
            self._last[id] = row[0] or 0
        return self._last[id]

    def events(self, id: int, after: int, limit: int) -> list[JobEvent]:
        """Committed events after ``after``, in order; fewer than ``limit`` where they take much room."""
        out: list[JobEvent] = []
        room = MAX_BATCH_BYTES
        rows = self._db.execute(
            "SELECT seq, time, kind, data FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?",
            (id, after, limit),
        )
        for seq, when, kind, data in rows:
            room -= len(data)
            if out and room < 0:
                break
            out.append(JobEvent(seq, when, kind, decode_dict(data)))
        rows.close()
        return out

    # Writing ---------------------------------------------------------------------------------------------------

    def submit(self, kind: str, spec: dict[str, Any], join_key: str | None) -> JobInfo:
        """A new queued job, on disk when this returns, with its folder and its first event ``queued``.

        Raises:
            BadInput: the folder cannot be made. sqlite3.Error: the journal cannot be written; nothing is kept.
        """
        now = time.time()
        with self._commit(durable=True):
            cursor = self._db.execute(
                "INSERT INTO jobs (kind, spec, join_key, state, created, queued) VALUES (?, ?, ?, ?, ?, ?)",
                (kind, encode(spec), join_key, QUEUED, now, now),
            )
            id = cursor.lastrowid
            assert id is not None
            name = f"{id:04d}-{kind}"
            try:
                (self._jobs / name).mkdir(mode=0o700, exist_ok=True)
            except OSError as e:
                raise BadInput(f"cannot make the job's folder {self._jobs / name}: {e.strerror}; free or fix it") from e
            self._db.execute("UPDATE jobs SET folder = ? WHERE id = ?", (name, id))
            self._insert([self._numbered(id, "queued", {}, now)])
        return self.job(id)

    def add_event(self, id: int, kind: str, data: dict[str, Any], when: float | None = None) -> None:
        """Collect an event; ``flush`` or the next durable write commits it."""
        self._buffer.append(self._numbered(id, kind, data, when or time.time()))

    def flush(self) -> None:
        """Commit the collected events."""
        if self._buffer:
            with self._commit(durable=False):
                pass

    def set_running(self, id: int) -> None:
        with self._commit(durable=False):
            self._db.execute("UPDATE jobs SET state = ?, started = ? WHERE id = ?", (RUNNING, time.time(), id))

    def finish(self, id: int, state: str, error: ErrorInfo | None = None, result: dict[str, Any] | None = None) -> None:
        """The job ended: its state and the event ``ended`` in one durable write."""
        assert state in ENDED
        data: dict[str, Any] = {"state": state}
        if error is not None:
            data["error"] = {"type": error.type, "message": error.message}
        with self._commit(durable=True):
            self._db.execute(
                "UPDATE jobs SET state = ?, finished = ?, error_type = ?, error_message = ?, result = ? WHERE id = ?",
                (
                    state,
                    time.time(),
                    error.type if error else None,
                    error.message if error else None,
                    None if result is None else encode(result),
                    id,
                ),
            )
            self._insert([self._numbered(id, "ended", data, time.time())])

    def ask_stop(self, id: int) -> None:
        """Note durably that the job shall stop, so that no restart runs it again."""
        with self._commit(durable=True):
            self._db.execute("UPDATE jobs SET stopping = 1 WHERE id = ?", (id,))

    def requeue(self, id: int, why: str) -> None:
        """Back to the queue in the same folder: at its old place if it was running, at the end if it had ended."""
        with self._commit(durable=True):
            self._db.execute(
                "UPDATE jobs SET queued = CASE WHEN state = ? THEN queued ELSE ? END, state = ?, stopping = 0, "
                "finished = NULL, error_type = NULL, error_message = NULL, result = NULL WHERE id = ?",
                (RUNNING, time.time(), QUEUED, id),
            )
            self._insert([self._numbered(id, "log", {"text": why}, time.time())])

    # Inside ----------------------------------------------------------------------------------------------------

    def _numbered(self, id: int, kind: str, data: dict[str, Any], when: float) -> tuple[int, int, float, str, bytes]:
        body = encode(data)
        self._last[id] = seq = self.last_seq(id) + 1
        return id, seq, when, kind, body

    def _insert(self, rows: list[tuple[int, int, float, str, bytes]]) -> None:
        self._db.executemany("INSERT INTO events (job, seq, time, kind, data) VALUES (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _commit(self, durable: bool) -> Iterator[None]:
        """One transaction, collected events first. On any error nothing of it is kept, nor are numbers used up."""
        last, done = dict(self._last), False
        if durable:
            self._db.execute("PRAGMA synchronous=FULL")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert(self._buffer)
            yield
            self._db.execute("COMMIT")
            self._buffer.clear()
            done = True
        finally:
            if not done:
                self._last = last
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if durable:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def _info(self, row: tuple[Any, ...]) -> JobInfo:
        id, kind, spec, join_key, state, created, started, finished, folder, error_type, error_message, result = row
        return JobInfo(
            id=id,
            kind=kind,
            spec=decode_dict(spec),
            join_key=join_key,
            state=state,
            created=created,
            started=started,
            finished=finished,
            folder=str(self._jobs / folder),
            error=ErrorInfo(error_type, error_message) if error_type else None,
            result=None if result is None else decode_dict(result),
            last_seq=self.last_seq(id),
        )


def recover(journal: Journal) -> list[int]:
    """After a start: jobs that were running go back to the queue, or end if they were asked to stop. Their ids."""
    ids = journal.in_state(RUNNING)
    for id in ids:
        if journal.stopping(id):
            journal.finish(id, CANCELLED, ErrorInfo("Cancelled", "cancelled on request; finished items are kept"))
        else:
            journal.requeue(id, "daemon restarted; goes on from finished items")
    return ids
