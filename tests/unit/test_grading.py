"""Samples judged beside the engine: as a judge alone says, whatever came in between; lab results as they ever were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from bench import compare, grading, record, scoring
from bench.record import SampleRecord
from bench.scorers.judge import Answer, Judge
from bench.scorers.verdict import Verdict
from bench.tasks import is_right, load_task
from pipo.errors import BadInput, Cancelled, JobFailed
from pipo.jobs import LocalContext
from pipo.lab import extract_answer
from tests.unit.bench_jobs import Context
from tests.unit.benchmark_rows import write_jsonl
from tests.unit.judged_runs import LIMIT, K, make_tasks, quality, samples, settings, walls

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def whole(tasks: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of both tasks that need a judge."""
    folder = tmp_path_factory.mktemp("whole")
    compare.run_eval(settings(tasks, "algebra", "functions"), LocalContext(folder))
    return folder


@walls
def test_judged_beside_is_judged_alone(tasks: dict[str, str], whole: Path) -> None:
    found = samples(whole)
    assert len(found) == 2 * LIMIT * K and all(r.judged and r.verdict and r.verdict.reason for r in found)
    programs = {i.id: i.program for i in load_task(tasks["functions"]).items}
    ended = [r for r in found if r.finish in ("eos", "stop")]
    with Judge() as judge:
        for r in ended:
            scorer = {"algebra": "math", "functions": "code"}[r.task]
            (alone,) = judge.score(scorer, [Answer(r.text, r.gold, programs.get(r.item))])
            assert r.verdict == msgspec.structs.replace(alone, cpu_s=0.0, wall_s=0.0, waited_s=None)
            assert r.correct == alone.right
    assert {r.verdict.by for r in ended if r.verdict} == {"symbolic", "execution"}
    for task in ("algebra", "functions"):
        assert {r.correct for r in ended if r.task == task} == {True, False}, f"{task}: else nothing is tested"
    assert not any(r.correct for r in found if r not in ended)
    assert not (whole / grading.JOURNAL).exists()


@walls
def test_the_summary_says_how_samples_were_judged(tasks: dict[str, str], whole: Path) -> None:
    scored = msgspec.json.decode((whole / "summary.json").read_bytes())["scoring"]
    assert scored["unjudged"] == 0 and scored["tasks"]["functions"]["samples"] == LIMIT * K
    told = [r.verdict for r in record.read(whole / "records.jsonl") if isinstance(r, SampleRecord) and r.verdict]
    waits = [v.waited_s for v in told if v.waited_s is not None]
    assert scored["tasks"]["functions"]["waited_s"] == pytest.approx(sum(waits)) and len(waits) > 0
    assert scored["tasks"]["algebra"]["waited_s"] is None
    assert record.read_run(whole).spec["scorers"] == {"algebra": "math-1", "functions": "code-1"}


def test_lab_answers_are_compared_as_ever(tmp_path: Path) -> None:
    compare.run_eval({"model": "lab/base", "tasks": ["lab-chain"], "k": 2, "limit": 8, "slots": 70}, Context(tmp_path))
    found = samples(tmp_path)
    for r in found:
        assert r.correct == (r.finish == "eos" and is_right(extract_answer(r.text), r.gold)) and r.verdict is None
    assert {r.correct for r in found} == {True, False} and "slots" in {r.finish for r in found}
    assert not {"scorers", "score", "unsafe"} & record.read_run(tmp_path).spec.keys(), "settings hash as it was"


def test_a_record_of_an_older_version_is_judged() -> None:
    old = b'{"type":"sample","variant":"v","task":"t","item":"i","sample":0,"seed":1,"correct":true,"slots":2}'
    r = msgspec.json.decode(old, type=record.Record)
    assert isinstance(r, SampleRecord) and r.judged and r.verdict is None and scoring.right(r, 2)


@walls
def test_judged_after_a_stop_is_judged_at_once(tasks: dict[str, str], whole: Path, tmp_path: Path) -> None:
    """As after a kill between generating and judging: nothing is generated again, all is judged."""
    asked = settings(tasks, "algebra", "functions")
    compare.run_eval({**asked, "score": False}, LocalContext(tmp_path))
    before = [r for r in record.read(tmp_path / "records.jsonl") if isinstance(r, SampleRecord)]
    waiting = [r for r in before if not r.judged]
    assert len(waiting) > LIMIT and not any(r.correct for r in waiting)
    told = [grading.ruling(grading.key_of(waiting[0]), Verdict(False, "as a kill left it", "execution")),
            grading.ruling(("nobody", "t", "i", 0), Verdict(True, "of a sample that is not there"))]  # fmt: skip
    record.append(tmp_path / grading.JOURNAL, told)
    with open(tmp_path / grading.JOURNAL, "ab") as f:
        f.write(b'{"variant":"regu')
    summary = compare.run_eval(asked, LocalContext(tmp_path))
    after = {grading.key_of(r): r for r in record.read(tmp_path / "records.jsonl") if isinstance(r, SampleRecord)}
    assert [after[grading.key_of(r)].token_times_s for r in before] == [r.token_times_s for r in before]
    first, *rest = [grading.key_of(r) for r in waiting]
    assert after[first].verdict == told[0].verdict, "rulings that were there are kept"
    ours, theirs = ({grading.key_of(r): r for r in samples(f)} for f in (tmp_path, whole))
    assert [ours[key] for key in rest] == [theirs[key] for key in rest]
    assert summary["scoring"]["unjudged"] == 0 and not (tmp_path / grading.JOURNAL).exists()


@walls
@pytest.mark.parametrize("cancel_at", [30, 150])
def test_cancelled_and_resumed_equals_uninterrupted(
    tasks: dict[str, str], whole: Path, tmp_path: Path, cancel_at: int
) -> None:
    asked = settings(tasks, "algebra", "functions")
    with pytest.raises(Cancelled):
        compare.run_eval(asked, Context(tmp_path, cancel_at=cancel_at))
    again = compare.run_eval(asked, Context(tmp_path))
    assert samples(tmp_path) == samples(whole)
    assert quality(again) == quality(msgspec.json.decode((whole / "summary.json").read_bytes()))


class StopsJudging(Context):
    """Is cancelled as soon as it hears that only judging is left."""

    def emit(self, kind: str, **data: object) -> None:
        super().emit(kind, **data)
        self.cancel_at = self.checks + 1 if data.get("note") == "judging" else self.cancel_at


@pytest.mark.slow
@walls
def test_cancelled_while_only_judging_is_left(tasks: dict[str, str], tmp_path: Path) -> None:
    rows = [
        msgspec.json.decode(line) for line in Path(tasks["functions"]).with_suffix(".jsonl").read_bytes().splitlines()
    ]
    slow = [{**r, "prompt": r["prompt"].replace("return 1", "return 1 if sum(range(2 * 10**7)) else 0")} for r in rows]
    write_jsonl(tmp_path / "functions.jsonl", *slow)
    (tmp_path / "functions.toml").write_text(Path(tasks["functions"]).read_text())
    asked = settings({"functions": str(tmp_path / "functions.toml")}, "functions", limit=4)
    ctx = StopsJudging(tmp_path / "run")
    with pytest.raises(Cancelled):
        compare.run_eval(asked, ctx)
    made = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert made.count(b'"type":"sample"') == 4 * K and ctx.events[-1][1]["note"] == "judging"
    again = compare.run_eval(asked, Context(tmp_path / "run"))
    assert again["scoring"]["unjudged"] == 0
    compare.run_eval(asked, Context(tmp_path / "whole"))
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")
    assert any(r.correct for r in samples(tmp_path / "run")), "slow is not wrong"


@pytest.mark.slow
@walls
def test_killed_at_any_moment_and_resumed_equals_uninterrupted(
    tasks: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    asked, path = settings(tasks, "algebra", "functions"), tmp_path / "records.jsonl"
    code = "import sys, msgspec, pathlib\nfrom bench.compare import run_eval\nfrom pipo.jobs import LocalContext\n"
    code += "run_eval(msgspec.json.decode(sys.argv[1]), LocalContext(pathlib.Path(sys.argv[2])))\n"
    for lines in (1, 5, 9, 14, 20):  # each time a little further
        child = subprocess.Popen([sys.executable, "-c", code, msgspec.json.encode(asked).decode(), str(tmp_path)])
        until = time.monotonic() + 100
        while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
            assert time.monotonic() < until, "it does not come to its items"
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    compare.run_eval(asked, LocalContext(tmp_path))
    assert samples(tmp_path) == samples(whole)


def test_a_judge_that_breaks_down_costs_no_sample(
    tasks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Verdict]:
        raise JobFailed("the process for algebra did not start")

    asked = settings(tasks, "algebra")
    with monkeypatch.context() as patch, pytest.raises(JobFailed, match="algebra did not start"):
        patch.setattr(Judge, "score", broken)
        compare.run_eval(asked, Context(tmp_path))
    made = samples(tmp_path)
    assert len(made) == LIMIT * K and any(not r.judged for r in made)
    assert compare.run_eval(asked, Context(tmp_path))["scoring"]["unjudged"] == 0
    assert [(r.item, r.sample, r.text) for r in samples(tmp_path)] == [(r.item, r.sample, r.text) for r in made]


def test_statistics_refuse_what_nobody_judged() -> None:
    r = SampleRecord(variant="v", task="t", item="i", sample=0, seed=1, judged=False)
    with pytest.raises(BadInput, match="v on t/i is not judged yet; `pipo eval score RUN`"):
        scoring.right(r, 10)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"test": "def check(f): pass"}, None),
        ({"language": "cobol", "form": "stdin"}, "of the form 'stdin' in 'cobol' cannot be judged here"),
        ({"form": "stdin"}, "t/a: it has no tests"),
        ({"form": "function"}, "it has no tests"),
    ],
)
def test_programs_are_looked_at_before_anything_is_generated(row: dict[str, str], says: str | None) -> None:
    from bench.tasks import READ, Item, Task
    from pipo.data.benchmarks import Program

    program = Program(**{"form": "check", **row})
    task = Task("t", [Item("a", "p", "", program=program)], {}, READ["code"], "code")
    if says is None:
        grading.check_programs([task])
        return
    with pytest.raises(BadInput, match=says):
        grading.check_programs([task])
