"""The journal by itself, and the residents' store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipo.errors import BadInput
from pipod import codec
from pipod import messages as m
from pipod.journal import Journal, recover
from pipod.residents import Residents


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    (tmp_path / "jobs").mkdir()
    made = Journal(tmp_path / "journal.db", tmp_path / "jobs")
    yield made
    made.close()


def test_events_are_seen_once_committed_and_numbers_go_on_after_reopening(journal: Journal, tmp_path: Path) -> None:
    id = journal.submit("noop", {}, None).id
    journal.add_event(id, "log", {"text": "a"})
    assert [e.seq for e in journal.events(id, 0, 10)] == [1], "an event was shown before its commit"
    journal.flush()
    assert [e.seq for e in journal.events(id, 0, 10)] == [1, 2]
    journal.close()
    second = Journal(tmp_path / "journal.db", tmp_path / "jobs")
    second.add_event(id, "log", {"text": "b"})
    second.finish(id, m.DONE, result={"x": 1.5})
    assert [(e.seq, e.kind) for e in second.events(id, 1, 10)] == [(2, "log"), (3, "log"), (4, "ended")]
    second.close()
    journal.__init__(tmp_path / "journal.db", tmp_path / "jobs")


def test_a_write_that_fails_leaves_nothing_and_uses_up_no_number(journal: Journal, tmp_path: Path) -> None:
    first = journal.submit("noop", {}, None)
    journal.add_event(first.id, "log", {"text": "kept"})
    (tmp_path / "jobs").rename(tmp_path / "away")
    with pytest.raises(BadInput, match="cannot make the job's folder"):
        journal.submit("noop", {}, None)
    (tmp_path / "away").rename(tmp_path / "jobs")
    assert [j.id for j in journal.jobs(10)] == [first.id]
    journal.add_event(first.id, "log", {"text": "next"})
    journal.flush()
    assert [e.data for e in journal.events(first.id, 0, 9)] == [{}, {"text": "kept"}, {"text": "next"}]
    assert [e.seq for e in journal.events(first.id, 0, 9)] == [1, 2, 3]


def test_a_full_disk_is_an_error_and_the_events_come_later(journal: Journal) -> None:
    id = journal.submit("noop", {}, None).id
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")
    journal.add_event(id, "log", {"text": "x" * 50_000})
    with pytest.raises(sqlite3.OperationalError, match="full"):
        journal.flush()
    assert [e.seq for e in journal.events(id, 0, 9)] == [1]
    journal._db.execute("PRAGMA max_page_count=100000")
    journal.flush()
    assert [e.seq for e in journal.events(id, 0, 9)] == [1, 2]


def test_recovery_requeues_what_ran_at_its_old_place(journal: Journal) -> None:
    a, b, c = (journal.submit("noop", {}, None).id for _ in range(3))
    journal.set_running(a)
    journal.set_running(b)
    journal.ask_stop(b)
    assert recover(journal) == [a, b]
    assert journal.in_state(m.QUEUED) == [a, c]
    assert journal.job(b).state == m.CANCELLED
    assert journal.job(a).spec == {}


def test_a_resumed_job_goes_to_the_end(journal: Journal) -> None:
    a, b = (journal.submit("noop", {}, None).id for _ in range(2))
    journal.finish(a, m.FAILED, m.ErrorInfo("JobFailed", "x"))
    assert journal.job(a).error == m.ErrorInfo("JobFailed", "x")
    journal.requeue(a, "resumed")
    assert journal.in_state(m.QUEUED) == [b, a]
    assert journal.job(a).error is None and journal.job(a).finished is None


def test_large_events_come_in_several_portions(journal: Journal) -> None:
    id = journal.submit("noop", {}, None).id
    for _ in range(40):
        journal.add_event(id, "log", {"text": "x" * 200_000})
    journal.flush()
    seen: list[int] = []
    portions = 0
    while events := journal.events(id, seen[-1] if seen else 0, 500):
        assert len(codec.encode(m.EventsReply(events=events, state="running", ended=False))) < m.MAX_BYTES
        seen += [e.seq for e in events]
        portions += 1
    assert seen == list(range(1, 42))
    assert portions > 1


def test_a_resident_is_made_once_until_its_files_change(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    store, made = Residents(), []

    def load() -> bytes:
        made.append(1)
        return bytes(len(made))

    assert store.get(str(tmp_path), load) is store.get(str(tmp_path), load)
    assert store.get("another", load) == bytes(2)
    os.utime(tmp_path / "config.json", ns=(1, 1))
    assert store.get(str(tmp_path), load) == bytes(3), "the model changed on disk, the old one was given"
    assert [(r.key, r.bytes) for r in store.describe()] == [("another", 2), (str(tmp_path), 3)]
    store.drop(["another", "unknown"])
    assert len(store.describe()) == 1


class Closing:
    """A resident that notes when it is closed."""

    def __init__(self, closed: list[str], name: str) -> None:
        self.closed, self.name = closed, name

    def close(self) -> None:
        self.closed.append(self.name)


def test_a_resident_that_goes_is_closed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    store, closed, key = Residents(), [], f"{tmp_path}#sglang:pipo"
    store.get(key, lambda: Closing(closed, "old"))
    os.utime(tmp_path / "config.json", ns=(1, 1))
    store.get(key, lambda: Closing(closed, "new"))
    assert closed == ["old"], "the model changed on disk; a key with more behind the folder is bound to its files too"
    store.drop([key])
    assert closed == ["old", "new"]


def test_an_engine_without_its_server_is_not_in_memory() -> None:
    class Engine:
        loaded = True

    store = Residents()
    engine = store.get("some/model#sglang:pipo", Engine)
    assert [r.key for r in store.describe()] == ["some/model#sglang:pipo"]
    engine.loaded = False
    assert store.describe() == []
