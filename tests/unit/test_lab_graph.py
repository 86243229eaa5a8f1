"""The graph of stages, with stages that are three lines of Python: order, failures, time limit, cancel."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipo.errors import Cancelled, JobFailed
from pipo.jobs import LocalContext
from pipo.lab.graph import Graph

DONE = "import pathlib, sys; p = pathlib.Path({folder!r}, {stage!r}); p.mkdir(exist_ok=True); (p / 'done.json').touch()"
FAILS = "raise SystemExit('no more disk')"
SLEEPS = "import os, pathlib, time; pathlib.Path({folder!r}, 'pid').write_text(str(os.getpid())); time.sleep(60)"
TALKS = 'print(\'{{"kind": "progress", "done": 1, "total": 2}}\', flush=True); '


def graph(folder: Path, needs: dict[str, tuple[str, ...]], ctx: Any, code: dict[str, str] | None = None, **more: Any):
    def command(stage: str) -> list[str]:
        return [sys.executable, "-c", (code or {}).get(stage, DONE).format(folder=str(folder), stage=stage)]

    return Graph(folder, needs, command, 2, ctx, noun="stage", again="give it again", **more)


def events(folder: Path) -> tuple[LocalContext, list[tuple[str, dict[str, Any]]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    return LocalContext(folder, lambda kind, data: found.append((kind, data))), found


def started(found: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [d["text"].split(":")[0] for k, d in found if k == "log" and d["text"].endswith(": started")]


def test_stages_start_in_order_when_their_needs_are_done_and_never_twice(tmp_path: Path) -> None:
    ctx, found = events(tmp_path)
    needs = {"a": (), "b": ("a",), "c": ("b",), "d": ("a",)}
    seen: list[str] = []
    assert graph(tmp_path, needs, ctx, on_done=seen.append).run() == {}
    assert started(found)[0] == "a" and started(found)[1:3] == ["b", "d"] and sorted(seen) == list("abcd")
    found.clear()
    assert graph(tmp_path, needs, ctx).run() == {} and not started(found)


def test_progress_is_passed_on_with_how_many_stages_are_done(tmp_path: Path) -> None:
    ctx, found = events(tmp_path)
    graph(tmp_path, {"a": (), "b": ("a",)}, ctx, {"b": TALKS + DONE}).run()
    (progress,) = [d for kind, d in found if kind == "progress"]
    assert (progress["done"], progress["total"]) == (1, 2)
    assert progress["note"] in ("b (1 of 2 stages done)", "b (2 of 2 stages done)")


def test_a_failure_ends_the_others_and_names_log_and_way_out(tmp_path: Path) -> None:
    ctx, _ = events(tmp_path)
    one = graph(tmp_path, {"a": (), "b": ()}, ctx, {"a": SLEEPS, "b": FAILS})
    with pytest.raises(JobFailed, match=r"stage b ended with code 1: no more disk; give it again \(log: .*b\.err\)"):
        one.run()
    assert one.running["a"].poll() is not None, "the other stage still runs"


def test_kept_going_a_failure_costs_only_what_needs_it(tmp_path: Path) -> None:
    ctx, _ = events(tmp_path)
    needs = {"a": (), "b": ("a",), "c": ()}
    failed = graph(tmp_path, needs, ctx, {"a": FAILS}, keep_going=True).run()
    assert failed == {"a": "stage a ended with code 1: no more disk"}
    assert [s for s in needs if (tmp_path / s / "done.json").exists()] == ["c"]


def test_a_stage_that_ends_well_without_its_result_failed(tmp_path: Path) -> None:
    ctx, _ = events(tmp_path)
    with pytest.raises(JobFailed, match="stage a ended with code 0"):
        graph(tmp_path, {"a": ()}, ctx, {"a": "pass"}).run()


def test_a_stage_that_cannot_be_started_is_tried_again_while_others_run(tmp_path: Path) -> None:
    ctx, found = events(tmp_path)
    one = graph(tmp_path, {"a": (), "b": ()}, ctx, {"a": "import time; time.sleep(1.5); " + DONE})
    known = one.command
    one.command = lambda stage: known(stage) if stage == "a" or one.done("a") else [str(tmp_path / "none")]
    one.run()
    assert one.done("b") and [d["text"] for _, d in found if "tried again" in str(d)] == [
        "stage b cannot be started (No such file or directory); tried again"
    ]  # fmt: skip
    one.needs, one.command = {"c": ()}, lambda stage: [str(tmp_path / "none")]
    with pytest.raises(JobFailed, match=r"stage c cannot be started \(No such file or directory\); give it again"):
        one.run()


def test_at_the_time_limit_what_runs_is_ended(tmp_path: Path) -> None:
    ctx, _ = events(tmp_path)
    one = graph(tmp_path, {"a": (), "b": ("a",)}, ctx, {"a": SLEEPS}, until=time.monotonic() + 1.5)
    began = time.monotonic()
    assert one.run() == {} and time.monotonic() - began < 20
    assert one.running["a"].poll() is not None and not (tmp_path / "a").exists()


def test_a_cancel_ends_the_children(tmp_path: Path) -> None:
    class Stops(LocalContext):
        def check(self) -> None:
            self.cancelled = (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != ""
            super().check()

    with pytest.raises(Cancelled):
        graph(tmp_path, {"a": ()}, Stops(tmp_path), {"a": SLEEPS}).run()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
