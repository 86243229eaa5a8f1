"""Runs judged later, or once more, equal those judged at once; what cannot be scored is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import reports
from bench import compare, grading, latency, merge, record, score
from bench.record import SampleRecord
from bench.scorers.verdict import Verdict
from pipo.errors import BadInput, BadRecord, Cancelled
from tests.unit.bench_jobs import Context
from tests.unit.cli_fakes import FakeClient
from tests.unit.judged_runs import LIMIT, K, make_tasks, quality, samples, settings, walls

pytestmark = pytest.mark.slow

VARIANTS = [{"name": "regular", "model": "lab/base", "method": {"name": "regular"}},
            {"name": "pipo", "model": "lab/pipo-opd", "method": {"name": "pipo", "threshold": 0.5}}]  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_tasks(tmp_path_factory.mktemp("tasks"))


def asked(tasks: dict[str, str], *names: str, **more: Any) -> dict[str, Any]:
    """Settings of a comparison."""
    found = {**settings(tasks, *names), "variants": VARIANTS, **more}
    del found["model"]
    return found


@pytest.fixture(scope="module")
def at_once(tasks: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("at-once")
    compare.run(asked(tasks, "algebra", "functions", "lab-chain"), Context(folder))
    return folder


def read_summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())
    return found


def same(one: Path, other: Path) -> None:
    assert samples(one) == samples(other)
    ours, theirs = read_summary(one), read_summary(other)
    assert quality(ours) == quality(theirs) and ours["differences"] == theirs["differences"]
    assert record.read_run(one).spec == record.read_run(other).spec
    assert record.read_run(one).provenance.settings_hash == record.read_run(other).provenance.settings_hash


@walls
def test_scored_later_equals_scored_at_once(tasks: dict[str, str], at_once: Path, tmp_path: Path) -> None:
    run, ctx = tmp_path / "run", Context(tmp_path / "run")
    spec = asked(tasks, "algebra", "functions", "lab-chain")
    first = compare.run({**spec, "score": False}, ctx)
    assert (
        first["rows"] == [] and first["unjudged"] > 2 * LIMIT == first["scoring"]["unjudged"] - first["unjudged"] + 12
    )
    assert f"{first['unjudged']} samples are not judged yet; `pipo eval score {run}`" in str(ctx.events)
    with pytest.raises(BadInput, match=r"samples are not judged; `pipo eval score .*run` does it"):
        reports.build([run], tmp_path / "report")
    told = score.run({"folder": str(run), "tasks": [tasks["functions"]]}, Context(tmp_path / "job"))
    same(run, at_once)
    assert told["rescored"] == {
        "samples": 4 * LIMIT * K, "judged_before": 4 * LIMIT * K - first["unjudged"], "to_right": 0, "to_wrong": 0,
    }  # fmt: skip
    before = (run / "records.jsonl").read_bytes()
    compare.run(spec, Context(run))
    assert (run / "records.jsonl").read_bytes() == before, "the run itself finds nothing left to do"
    assert reports.build([run], tmp_path / "report").is_file()


@walls
def test_scored_again_says_what_changed(tasks: dict[str, str], at_once: Path, tmp_path: Path) -> None:
    """The run as a version without scorers would have left it: answers compared as texts, no word on scorers."""
    run = tmp_path / "run"
    shutil.copytree(at_once, run)
    found = record.read(run / "records.jsonl")
    wrong = next(r for r in found if isinstance(r, SampleRecord) and r.task == "algebra" and not r.correct)
    kept = {id(r) for r in found if r is wrong or (isinstance(r, SampleRecord) and r.task != "algebra" and r.correct)}
    old = [msgspec.structs.replace(r, verdict=None, answer="old", correct=id(r) in kept)
           if isinstance(r, SampleRecord) and r.task != "lab-chain" else r for r in found]  # fmt: skip
    record.rewrite(run / "records.jsonl", old)
    header = record.read_run(run)
    del header.spec["scorers"]
    header.spec["benchmarks"] = {"algebra": {"scorer": "math"}, **header.spec["benchmarks"]}
    record.write_json(run / "run.json", header)
    told = score.run({"folder": str(run), "tasks": [tasks["functions"]]}, Context(tmp_path / "job"))
    right = sum(r.correct for r in samples(at_once) if r.task == "algebra")
    assert told["rescored"]["to_right"] == right > 0 and told["rescored"]["to_wrong"] == 1
    assert samples(run) == samples(at_once) and quality(told) == quality(read_summary(at_once))


@walls
def test_stopped_and_gone_on_equals_uninterrupted(tasks: dict[str, str], at_once: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    compare.run({**asked(tasks, "algebra", "functions", "lab-chain"), "score": False}, Context(run))
    spec = {"folder": str(run), "tasks": [tasks["functions"]]}
    before = (run / "records.jsonl").read_bytes()
    with pytest.raises(Cancelled):
        score.run(spec, Context(tmp_path / "job", cancel_at=2))
    assert (run / "records.jsonl").read_bytes() == before, "the run is as it was until all are judged"
    journal = tmp_path / "job" / grading.JOURNAL
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    assert len(rest) + 1 == grading.BATCH
    marked = msgspec.json.decode(first, type=grading.Ruling)
    journal.write_bytes(b"")
    record.append(journal, [msgspec.structs.replace(marked, verdict=Verdict(False, "from before"))])
    with open(journal, "ab") as f:
        f.write(b"".join(rest))
    score.run(spec, Context(tmp_path / "job"))
    ours, theirs = ({grading.key_of(r): r for r in samples(f)} for f in (run, at_once))
    assert ours.pop(marked.key).verdict == Verdict(False, "from before") and theirs.pop(marked.key)
    assert ours == theirs


def test_shards_may_be_merged_first(tasks: dict[str, str], tmp_path: Path) -> None:
    spec = asked(tasks, "algebra")
    compare.run(spec, Context(tmp_path / "whole"))
    for part in (1, 2):
        compare.run({**spec, "shard": f"{part}/2", "score": False}, Context(tmp_path / str(part)))
    folders = [str(tmp_path / "1"), str(tmp_path / "2")]
    merged = merge.run({"folders": folders}, Context(tmp_path / "merged"))
    assert merged["rows"] == [] and merged["unjudged"] > 0
    score.run({"folder": str(tmp_path / "merged")}, Context(tmp_path / "job"))
    same(tmp_path / "merged", tmp_path / "whole")


def test_what_cannot_be_scored_is_named(tasks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(folder: Path, **more: Any) -> None:
        score.run({"folder": str(folder), **more}, Context(tmp_path / "job"))

    with pytest.raises(BadRecord, match="does not exist"):
        scored(tmp_path / "none")
    latency.run(
        {"variants": VARIANTS[:1], "input_lengths": [16], "trials": 1, "tokens": 16}, Context(tmp_path / "latency")
    )  # fmt: skip
    with pytest.raises(BadInput, match="holds a run of kind 'latency'; scored again can be compare and eval"):
        scored(tmp_path / "latency")
    with pytest.raises(Cancelled):
        compare.run(asked(tasks, "algebra"), Context(tmp_path / "cut", cancel_at=6))
    with pytest.raises(BadInput, match="cut is not finished; `pipo jobs resume`"):
        scored(tmp_path / "cut")
    run = tmp_path / "run"
    compare.run({**asked(tasks, "functions"), "score": False, "limit": 1}, Context(run))
    with pytest.raises(BadInput, match="tests of functions are needed .*name its task file with --task"):
        scored(run)
    (tmp_path / "other").mkdir()
    other = make_tasks(tmp_path / "other")["functions"]
    path = tmp_path / "other" / "functions.jsonl"
    path.write_text(path.read_text().replace("it is not 1", "so it is not"))
    with pytest.raises(BadInput, match="functions has other items than the run asked for"):
        scored(run, tasks=[other])
    monkeypatch.setattr("bench.sandbox.probe.why_not", lambda way: "not on this machine")
    with pytest.raises(BadInput, match="cannot be shut in on this machine"):
        scored(run, tasks=[tasks["functions"]])
    assert not any(r.judged for r in samples(run) if r.finish in grading.ENDED), "nothing was changed"


@pytest.mark.parametrize("kind", ["rollouts", "ablate-threshold"])
def test_other_kinds_are_judged_at_once(kind: str, tmp_path: Path) -> None:
    from ablations import threshold
    from bench import rollouts

    job = {"rollouts": rollouts.run, "ablate-threshold": threshold.run}[kind]
    model = {"rollouts": {"model": "lab/teacher", "questions": "lab-chain"}, "ablate-threshold": {}}[kind]
    with pytest.raises(BadInput, match=f"score false: {kind} needs verdicts at once"):
        job({**model, "score": False}, Context(tmp_path))


def typed(argv: list[str], result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, FakeClient]:
    from pipo.cli import main

    client = FakeClient()
    client.outcome = {"state": "done", "result": result}
    monkeypatch.setattr("pipod.client.connect", client.connect)
    with pytest.raises(SystemExit) as end:
        main(argv)
    return int(end.value.code or 0), client


def test_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for argv, kind in ((["eval", "lab/base"], "eval"), (["bench", "compare"], "compare")):
        code, client = typed([*argv, "--no-score", "--detach"], {}, monkeypatch)
        assert code == 0 and client.submitted[0][0] == kind and client.submitted[0][1]["score"] is False
        code, client = typed([*argv, "--unsafe-code-execution", "--detach"], {}, monkeypatch)
        assert client.submitted[0][1]["unsafe"] is True and "score" not in client.submitted[0][1]
        assert typed([*argv, "--no-score", "--unsafe-code-execution"], {}, monkeypatch)[0] == 2
    capsys.readouterr()
    changed = {"rescored": {"samples": 8, "judged_before": 6, "to_right": 2, "to_wrong": 1}}
    code, client = typed(["eval", "score", str(tmp_path), "--data", "/"], changed, monkeypatch)
    assert code == 0 and client.submitted[0][:2] == ("score", {"folder": str(tmp_path), "data": "/"})
    assert "8 samples, 6 of them not for the first time: 2 turned right, 1 turned wrong" in capsys.readouterr().out
    assert typed(["eval", "score", "nowhere"], {}, monkeypatch)[0] == 2
    typed(["eval", "lab/base"], {"unjudged": 7, "rows": []}, monkeypatch)
    assert "7 samples are generated and not judged; `pipo eval score JOB`" in capsys.readouterr().out
