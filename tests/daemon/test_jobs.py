"""What becomes of a job: submitted, followed, ended well or badly, cancelled, resumed, joined."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from pipo.errors import BadInput, Cancelled, JobFailed
from pipod.client import Client, JobInfo, job_error


def lines(job: JobInfo) -> list[str]:
    return [line.split(" by ")[0] for line in (Path(job.folder) / "records.txt").read_text().splitlines()]


def test_a_job_is_followed_to_its_result(shared: Client) -> None:
    job = shared.submit("noop", {"items": 3})
    events = list(shared.events(job.id))
    assert [e.kind for e in events] == ["queued", "started", "progress", "progress", "progress", "ended"]
    assert [e.seq for e in events] == [1, 2, 3, 4, 5, 6]
    assert events[2].data == {"done": 1, "total": 3, "note": "item 0"}
    done = shared.job(job.id)
    assert (done.state, done.result, done.error) == ("done", {"items": 3, "resumed_at": 0}, None)
    assert done.created <= done.started <= done.finished
    assert lines(done) == ["item 0", "item 1", "item 2"]


def test_jobs_run_first_come_first_served(shared: Client) -> None:
    ids = [shared.submit("noop", {"items": 2, "delay_s": 0.02}).id for _ in range(4)]
    shared.wait(ids[-1])
    jobs = shared.jobs(limit=4)
    assert [j.id for j in jobs] == ids
    assert [j.state for j in jobs] == ["done"] * 4
    assert all(a.finished <= b.started for a, b in pairwise(jobs)), "two jobs ran at the same time"
    assert [j.result for j in jobs] == [None] * 4, "lists leave results out"


def test_events_after_n_come_without_holes_in_any_portion(shared: Client) -> None:
    job = shared.submit("noop", {"items": 60, "delay_s": 0.002})
    seen: list[int] = []
    while True:  # a client that comes again and again, each time for a few
        for event in shared.events(job.id, after=seen[-1] if seen else 0):
            seen.append(event.seq)
            if len(seen) % 7 == 0:
                break
        else:
            break
    assert seen == list(range(1, 64))
    assert [e.seq for e in shared.events(job.id, after=60, follow=False)] == [61, 62, 63]
    assert list(shared.events(job.id, after=1000)) == []


def test_not_following_returns_what_is_there(shared: Client) -> None:
    job = shared.submit("noop", {"items": 100, "delay_s": 0.05})
    assert [e.kind for e in shared.events(job.id, follow=False)][:1] == ["queued"]
    assert not shared.job(job.id).ended
    shared.cancel(job.id)


def test_control_is_answered_while_work_runs(client: Client) -> None:
    job = client.submit("noop", {"items": 200, "delay_s": 0.02})
    for event in client.events(job.id):
        if event.kind == "progress":
            break
    status = client.status()
    assert (status.worker_state, status.current.id, status.counts) == ("busy", job.id, {"running": 1})
    assert status.progress["total"] == 200
    assert client.submit("noop", {}).state == "queued"


def test_an_unknown_kind_is_refused_with_the_known_ones(shared: Client) -> None:
    before = len(shared.jobs())
    with pytest.raises(BadInput, match=r"'evil'; known: eval, .*compare"):
        shared.submit("evil", {})
    assert len(shared.jobs()) == before


def test_a_spec_that_is_not_plain_is_refused(shared: Client) -> None:
    with pytest.raises(BadInput, match="noop job cannot be sent"):
        shared.submit("noop", {"items": object()})


@pytest.mark.parametrize("id", [0, -1, 99, 2**70, "seven"])
def test_an_unknown_job_is_bad_input(shared: Client, id: int | str) -> None:
    with pytest.raises(BadInput, match="pipo jobs"):
        shared.job(id)


def test_bad_input_from_a_job_arrives_with_its_type(shared: Client) -> None:
    job = shared.wait(shared.submit("noop", {"itmes": 3}).id)
    assert job.state == "failed"
    assert job.error.type == "BadInput"
    with pytest.raises(BadInput, match="unknown setting 'itmes'"):
        raise job_error(job)


def test_a_crash_in_a_job_is_told_and_its_traceback_is_in_the_jobs_log(shared: Client) -> None:
    job = shared.wait(shared.submit("noop", {"fault": "crash"}).id)
    assert (job.state, job.error.type) == ("failed", "JobFailed")
    assert job.error.message.startswith("RuntimeError: crashed as asked")
    assert "Traceback" not in job.error.message
    assert "Traceback" in (Path(job.folder) / "job.log").read_text()
    assert isinstance(job_error(job), JobFailed)
    assert lines(job) == ["item 0"], "finished items are kept"


def test_what_a_job_prints_goes_to_the_workers_log(shared: Client) -> None:
    shared.wait(shared.submit("noop", {"fault": "noise"}).id)
    assert (shared.home / "run" / "worker.log").read_text() == "noise on stdout\nnoise on stderr\n"


def test_a_queued_job_is_cancelled_at_once(shared: Client) -> None:
    first = shared.submit("noop", {"items": 50, "delay_s": 0.02})
    second = shared.submit("noop", {})
    cancelled = shared.cancel(second.id)
    assert (cancelled.state, cancelled.error.type) == ("cancelled", "Cancelled")
    shared.cancel(first.id)
    assert shared.wait(first.id).state == "cancelled"
    assert [e.kind for e in shared.events(second.id)] == ["queued", "ended"], "it never ran"


def test_a_running_job_is_cancelled_between_items_and_resumes_from_them(shared: Client) -> None:
    job = shared.submit("noop", {"items": 6, "delay_s": 0.05})
    for event in shared.events(job.id):
        if event.kind == "progress" and event.data["done"] == 2:
            break
    shared.cancel(job.id)
    cancelled = shared.wait(job.id)
    assert isinstance(job_error(cancelled), Cancelled)
    kept = len(lines(cancelled))
    assert 2 <= kept <= 4
    worker = shared.status().worker_pid
    assert worker is not None, "the worker stopped the job by itself and lives"

    again = shared.resume(job.id)
    assert (again.id, again.folder, again.error) == (job.id, job.folder, None)
    done = shared.wait(job.id)
    assert (done.state, done.result) == ("done", {"items": 6, "resumed_at": kept})
    assert lines(done) == [f"item {i}" for i in range(6)]
    assert shared.status().worker_pid == worker


def test_a_deaf_job_is_cancelled_by_killing_its_worker(quick_client: Client) -> None:
    job = quick_client.submit("noop", {"items": 100, "delay_s": 0.05, "fault": "deaf"})
    for event in quick_client.events(job.id):
        if event.kind == "progress":
            break
    worker = quick_client.status().worker_pid
    quick_client.cancel(job.id)
    cancelled = quick_client.wait(job.id)
    assert cancelled.state == "cancelled"
    assert 1 <= len(lines(cancelled)) < 100
    assert quick_client.wait(quick_client.submit("noop", {}).id).state == "done"
    assert quick_client.status().worker_pid != worker


def test_only_what_ended_badly_is_resumed(shared: Client) -> None:
    done = shared.wait(shared.submit("noop", {"items": 0}).id)
    with pytest.raises(BadInput, match=f"job {done.id} is done"):
        shared.resume(done.id)
    running = shared.submit("noop", {"items": 50, "delay_s": 0.02})
    assert shared.resume(running.id).joined
    assert shared.cancel(done.id).state == "done", "cancelling an ended job changes nothing"
    shared.cancel(running.id)


def test_the_same_key_joins_an_unfinished_job_only(shared: Client) -> None:
    spec = {"items": 10, "delay_s": 0.03}
    first = shared.submit("noop", spec, join_key="a")
    assert not first.joined
    same = shared.submit("noop", spec, join_key="a")
    assert (same.id, same.joined) == (first.id, True)
    assert not shared.submit("noop", {"items": 0}, join_key="b").joined
    assert not shared.submit("noop", {"items": 0}).joined
    shared.cancel(first.id)
    assert not shared.submit("noop", {"items": 0}, join_key="a").joined, "joined a job that was asked to stop"


def test_residents_outlive_their_job_until_unloaded(shared: Client, eventually) -> None:
    for _ in range(2):
        shared.wait(shared.submit("noop", {"items": 0, "resident": "some/model"}).id)
    (resident,) = shared.status().residents
    assert (resident.key, resident.bytes) == ("some/model", 1000)
    with pytest.raises(BadInput, match="'other' is not loaded; loaded: some/model"):
        shared.unload("other")
    assert shared.unload("model") == ["some/model"]
    eventually(lambda: shared.status().residents == [], "the resident is gone")
    assert shared.unload() == []


def test_residents_are_kept_after_bad_input_and_dropped_after_a_crash(shared: Client) -> None:
    shared.wait(shared.submit("noop", {"resident": "x", "fault": "bad-input"}).id)
    assert [r.key for r in shared.status().residents] == ["x"]
    shared.wait(shared.submit("noop", {"resident": "x", "fault": "crash"}).id)
    assert shared.status().residents == [], "an engine left in the middle of a step serves the next job"
