"""Processes die: what is kept, what goes on, what the client reads, and that no orphan is left."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pipo.errors import DaemonError
from pipod import workerlink
from pipod.client import Client, connect


def until_progress(client: Client, id: int, done: int) -> None:
    for event in client.events(id):
        if event.kind == "progress" and event.data["done"] >= done:
            return
    raise AssertionError("the job ended too early")


def test_a_killed_daemons_job_goes_on_from_its_finished_items(client: Client, home: Path, kill_daemon) -> None:
    job = client.submit("noop", {"items": 16, "delay_s": 0.05})
    until_progress(client, job.id, 5)
    kill_daemon(client)
    kept = (home / "jobs" / "0001-noop" / "records.txt").read_text().count("\n")

    with connect(home=home) as second:
        assert second.started
        events = list(second.events(job.id))
        done = second.job(job.id)
    assert (done.state, done.result) == ("done", {"items": 16, "resumed_at": kept})
    assert kept >= 5
    records = (home / "jobs" / "0001-noop" / "records.txt").read_text().splitlines()
    assert [r.split(" by ")[0] for r in records] == [f"item {i}" for i in range(16)], "items lost or done twice"
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert {"text": "daemon restarted; goes on from finished items"} in [e.data for e in events]


def test_a_follower_learns_of_the_daemons_death_and_how_to_go_on(client: Client) -> None:
    job = client.submit("noop", {"items": 100, "delay_s": 0.05})
    pid = client.status().pid
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    expected = f"the daemon stopped while job {job.id} ran; finished items are kept; `pipo jobs wait {job.id}` or the "
    with pytest.raises(DaemonError, match=expected + "same command again goes on"):
        list(client.events(job.id))
    began = time.monotonic()
    with pytest.raises(DaemonError, match="no daemon runs|stopped before it answered"):
        client.status()
    assert time.monotonic() - began < 1.0, "a dead daemon is noticed without a time-out"


def test_a_client_goes_on_with_the_next_daemon(client: Client, home: Path, kill_daemon) -> None:
    kill_daemon(client)
    connect(home=home).close()
    assert client.wait(client.submit("noop", {}).id).state == "done"


def test_a_submission_that_was_answered_survives_a_kill(client: Client, home: Path, kill_daemon) -> None:
    client.submit("noop", {"items": 100, "delay_s": 0.02})
    ids = [client.submit("noop", {"items": 1}, join_key=f"key {i}").id for i in range(5)]
    os.kill(client.status().pid, signal.SIGKILL)
    with connect(home=home) as second:
        assert [j.id for j in second.jobs()] == [1, *ids]
        assert second.submit("noop", {"items": 1}, join_key="key 3").id == ids[3]
        second.cancel(1)
        assert [second.wait(id).state for id in ids] == ["done"] * 5


def test_a_wish_to_cancel_survives_a_kill(client: Client, home: Path, kill_daemon) -> None:
    job = client.submit("noop", {"items": 100, "delay_s": 0.05, "fault": "deaf"})
    until_progress(client, job.id, 1)
    assert client.cancel(job.id).state == "running"
    kill_daemon(client)
    with connect(home=home) as second:
        assert second.job(job.id).state == "cancelled"


def test_a_killed_worker_fails_its_job_and_the_next_job_works(client: Client, alive) -> None:
    job = client.submit("noop", {"items": 100, "delay_s": 0.05, "resident": "x"})
    until_progress(client, job.id, 2)
    worker = client.status().worker_pid
    os.kill(worker, signal.SIGKILL)
    failed = client.wait(job.id)
    assert (failed.state, failed.error.type) == ("failed", "JobFailed")
    assert "the worker was killed (signal 9)" in failed.error.message
    assert f"pipo jobs resume {job.id}" in failed.error.message
    assert client.status().residents == []

    assert client.wait(client.submit("noop", {}).id).state == "done"
    assert client.status().worker_pid != worker
    assert not alive(worker)


def test_a_job_that_kills_its_worker_again_and_again_harms_only_itself(client: Client) -> None:
    job = client.wait(client.submit("noop", {"items": 2, "fault": "die", "at": 1}).id)
    assert job.state == "failed"
    client.resume(job.id)
    assert client.wait(job.id).state == "failed"
    events = list(client.events(job.id))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.kind for e in events].count("ended") == 2
    assert client.wait(client.submit("noop", {}).id).state == "done"


@pytest.mark.parametrize("victim", ["daemon", "worker"])
def test_children_of_a_job_die_with_it(client: Client, home: Path, kill_daemon, alive, eventually, victim: str) -> None:
    job = client.submit("noop", {"items": 100, "delay_s": 0.05, "fault": "child", "at": 0})
    child = next(int(e.data["text"].split()[1]) for e in client.events(job.id) if e.kind == "log")
    assert alive(child)
    if victim == "daemon":
        kill_daemon(client)
    else:
        os.kill(client.status().worker_pid, signal.SIGKILL)
        client.wait(job.id)
    eventually(lambda: not alive(child), f"the job's child ends with the {victim}", 3)


def test_stopping_the_daemon_keeps_the_running_job_for_the_next(client: Client, home: Path, alive) -> None:
    job = client.submit("noop", {"items": 8, "delay_s": 0.05})
    waiting = client.submit("noop", {"items": 1})
    until_progress(client, job.id, 2)
    status = client.status()
    assert client.shutdown() == [job.id, waiting.id]
    assert not alive(status.worker_pid)
    with connect(home=home) as second:
        assert second.wait(waiting.id).state == "done"
        assert second.job(job.id).result["resumed_at"] >= 2
        texts = [e.data["text"] for e in second.events(job.id) if e.kind == "log"]
    assert texts == ["daemon stopped; goes on from finished items at its next start"]


def test_a_follower_is_told_when_the_daemon_is_stopped(client: Client, home: Path) -> None:
    job = client.submit("noop", {"items": 100, "delay_s": 3})
    with connect(start=False, home=home) as other:
        threading.Timer(0.4, other.shutdown).start()
        with pytest.raises(DaemonError, match=f"the daemon was stopped; `pipo jobs wait {job.id}` starts it again"):
            list(client.events(job.id))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_cleanly(client: Client, home: Path, alive, eventually, number: int) -> None:
    job = client.submit("noop", {"items": 100, "delay_s": 0.05})
    until_progress(client, job.id, 1)
    status = client.status()
    os.kill(status.pid, number)
    eventually(lambda: not alive(status.pid), "the daemon ends", 3)
    assert not alive(status.worker_pid)
    assert (home / "run" / "daemon.log").read_text().endswith("INFO stopped\n")
    assert not list((home / "run").glob("*.sock"))


def test_children_in_groups_of_their_own_are_waited_for_and_then_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workerlink, "APART_WAIT_S", 0.2)
    apart = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert apart.pid in workerlink.children_apart(os.getpid())
        workerlink.wait_for([apart.pid])
        assert apart.wait(5) == -signal.SIGKILL
        workerlink.wait_for([apart.pid])
    finally:
        apart.kill()
        apart.wait()
