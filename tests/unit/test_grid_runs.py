"""The grid job through the real engine: what is generated once, what goes on, what is taken over, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ablations import grid
from bench import compare
from bench.record import SampleRecord, read, rewrite
from pipo.errors import BadInput, Cancelled
from tests.unit.bench_jobs import Context, make_home
from tests.unit.grid_runs import ITEMS, K, base, logs, run, samples, study
from tests.unit.judged_runs import make_tasks

pytestmark = pytest.mark.slow

SLOTS = {"key": "slots", "values": [4, 12]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def given(home: Path) -> dict[str, Any]:
    return study(home, base(home, "regular"), base(home, "eagle"), base(home, "pipo"), axes=[SLOTS])


@pytest.fixture(scope="module")
def done(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("done")
    return folder, run(given, folder)[0]


def rows(summary: dict[str, Any], task: str = "overall") -> dict[str, dict[str, Any]]:
    return {r["variant"]: r for r in summary["rows"] if r["task"] == task}


def lasting(summary: dict[str, Any]) -> Any:
    """What of a summary no clock decides."""
    timed = ("throughput", "ttft_s", "first_pair_s", "tpot16_s", "tpot_s", "batch")
    kept = [{k: v for k, v in row.items() if k not in timed} for row in summary["rows"]]
    points = [{k: v for k, v in p.items() if k not in ("unit", "taken_from")} for p in summary["points"]]
    return json.loads(json.dumps([points, kept, summary["differences"], summary["lossless"]]))


def test_points_that_decode_equally_are_generated_once(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    made = {variant for variant, _, _ in samples(folder)}
    assert len(summary["points"]) == 6 and len(made) == 3
    assert {p["name"]: p["generated"] for p in summary["points"]} == {
        f"{name} slots={n}": n == 12 for name in ("regular", "eagle", "pipo") for n in (4, 12)
    }
    assert all((r["throughput"] is not None) == name.endswith("12") for name, r in rows(summary).items())


def test_a_point_has_the_numbers_of_a_run_of_its_own(home: Path, tmp_path: Path, done: Any) -> None:
    """The smaller budget, read off, against a study of that budget alone, and against compare."""
    _, summary = done
    alone, _ = run(study(home, base(home, "regular"), base(home, "eagle"), base(home, "pipo"), slots=4), tmp_path / "a")
    spec = {"variants": [{"name": "pipo", "model": str(home / "pipo"), "method": {"name": "pipo", "threshold": 0.5}}],
            "tasks": [str(home / "task.toml")], "k": K, "max_batch": 4, "seed": 7, "slots": 4}  # fmt: skip
    other = compare.run(spec, Context(tmp_path / "b"))
    (compared,) = [r for r in other["rows"] if r["task"] == "overall" and r["budget"] == "loose"]
    for metric in ("avg", "pass", "truncated", "slots", "tokens", "kept_share", "acceptance", "failed", "items"):
        for name in ("regular", "eagle", "pipo"):
            assert rows(summary)[f"{name} slots=4"][metric] == rows(alone)[name][metric], (name, metric)
        assert rows(summary)["pipo slots=4"][metric] == compared[metric], metric


def test_fewer_samples_are_read_off_as_well(home: Path, tmp_path: Path) -> None:
    one = base(home, "eagle")
    both, _ = run(study(home, one, axes=[{"key": "k", "values": [1, 2]}], reference="eagle k=2"), tmp_path / "both")
    alone, _ = run(study(home, one, k=1), tmp_path / "alone")
    assert len(samples(tmp_path / "both")) == ITEMS * 2
    for metric in ("avg", "pass", "slots", "tokens", "acceptance"):
        assert rows(both)["eagle k=1"][metric] == rows(alone)["eagle"][metric], metric


@pytest.mark.parametrize("cancel_at", [25, 60])
def test_a_study_goes_on_where_it_stopped(
    given: dict[str, Any], tmp_path: Path, done: tuple[Path, dict[str, Any]], cancel_at: int
) -> None:
    with pytest.raises(Cancelled):
        run(given, tmp_path, cancel_at)
    begun = {path: path.read_bytes() for path in tmp_path.glob("units/*/records.jsonl")}
    before = samples(tmp_path)
    assert 0 < len(before) < 3 * ITEMS * K
    summary, ctx = run(given, tmp_path)
    after = samples(tmp_path)
    assert len(after) == 3 * ITEMS * K and all(after[key] == r for key, r in before.items()), "none is made again"
    assert all(path.read_bytes().startswith(data) for path, data in begun.items())
    progress = [data for kind, data in ctx.events if kind == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 3 * ITEMS * K
    assert lasting(summary) == lasting(done[1])


def test_a_finished_unit_is_not_generated_again(given: dict[str, Any], tmp_path: Path, done: Any) -> None:
    shutil.copytree(done[0], tmp_path / "again")
    shutil.rmtree(next((tmp_path / "again").glob("units/pipo*")))
    _, ctx = run(given, tmp_path / "again")
    notes = {data["note"] for kind, data in ctx.events if kind == "progress"}
    assert notes == {"pipo slots=4 on toy"}


def test_one_more_point_takes_over_the_finished_ones(
    home: Path, given: dict[str, Any], tmp_path: Path, done: tuple[Path, dict[str, Any]]
) -> None:
    more = {**given, "base": [*given["base"], base(home, "mtp")]}
    summary, ctx = run(more, tmp_path / "reused", reuse=str(done[0]))
    notes = {data["note"] for kind, data in ctx.events if kind == "progress"}
    assert notes == {"mtp slots=4 on toy"}, "only the new one is generated"
    assert logs(ctx)[0] == f"3 of 4 runs are taken from {done[0]}"
    assert {p["name"]: p["taken_from"] for p in summary["points"]} == {
        p["name"]: None if p["base"] == "mtp" else str(done[0]) for p in summary["points"]
    }
    fresh, _ = run(more, tmp_path / "fresh")
    assert lasting(summary) == lasting(fresh), "taken over equals generated"


def test_smaller_points_are_taken_from_larger_ones(
    home: Path, given: dict[str, Any], tmp_path: Path, done: Any
) -> None:
    smaller = {**given, "axis": [{"key": "slots", "values": [6]}], "k": 1}
    summary, ctx = run(smaller, tmp_path / "reused", reuse=str(done[0]))
    assert not [data for kind, data in ctx.events if kind == "progress"]
    fresh, _ = run(smaller, tmp_path / "fresh")
    assert lasting(summary) == lasting(fresh)
    assert all(r["throughput"] is None for r in rows(summary).values()), "another batch: no rate of this one"


def test_an_interrupted_study_that_took_points_over_goes_on(
    home: Path, given: dict[str, Any], tmp_path: Path, done: tuple[Path, dict[str, Any]]
) -> None:
    source = shutil.copytree(done[0], tmp_path / "source")
    more = {**given, "base": [*given["base"], base(home, "mtp")]}
    with pytest.raises(Cancelled):
        run(more, tmp_path / "reused", 12, reuse=str(source))
    shutil.rmtree(source)
    summary, _ = run(more, tmp_path / "reused", reuse=str(source))
    assert [p["taken_from"] for p in summary["points"] if p["base"] == "pipo"] == [str(source)] * 2
    assert len(samples(tmp_path / "reused")) == 4 * ITEMS * K


REFUSED = [
    ({"seed": 8}, "seed is 7 there and 8 here"),
    ({"k": 4}, "k is 2 there and 4 here"),
    ({"limit": 3}, "tasks is .* there and .* here"),
    ({"max_batch": 8}, "max_batch is 4 there and 8 here"),
    ({"axis": [{"key": "slots", "values": [16]}]}, "toy has 12 slots there and 16 here"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED)
def test_points_of_other_settings_are_refused_with_the_reason(
    given: dict[str, Any], tmp_path: Path, done: tuple[Path, dict[str, Any]], change: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=f"has nothing for any point of this study .*{says}.*leave --reuse out"):
        run({**given, **change}, tmp_path, reuse=str(done[0]))
    assert samples(tmp_path) == {}, "before anything is generated"


def test_a_model_that_changed_is_refused_and_the_others_are_taken(
    home: Path, given: dict[str, Any], tmp_path: Path, done: tuple[Path, dict[str, Any]]
) -> None:
    other = tmp_path / "pipo"
    shutil.copytree(home / "pipo", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"note": "changed"}))
    changed = {**given, "base": [*given["base"][:2], {**given["base"][2], "model": str(other)}]}
    _, ctx = run(changed, tmp_path / "job", reuse=str(done[0]))
    assert logs(ctx)[0].startswith("2 of 3 runs are taken from")
    assert "'pipo slots=4' is not taken over: model is" in logs(ctx)[-1]


def test_points_of_another_machine_are_taken_and_that_is_said(given: dict[str, Any], tmp_path: Path, done: Any) -> None:
    source = shutil.copytree(done[0], tmp_path / "source")
    header = json.loads((source / "run.json").read_text())
    header["provenance"]["device"] = "another one"
    (source / "run.json").write_text(json.dumps(header))
    _, ctx = run(given, tmp_path / "job", reuse=str(source))
    assert logs(ctx)[0].startswith("3 of 3 runs") and logs(ctx)[1].startswith("they were made with another device")


def test_only_studies_are_taken_over(home: Path, given: dict[str, Any], tmp_path: Path) -> None:
    spec = {"model": str(home / "regular"), "tasks": [str(home / "task.toml")], "k": 1, "limit": 1}
    compare.run_eval(spec, Context(tmp_path / "eval"))
    with pytest.raises(BadInput, match="holds a run of kind 'eval'; points are taken from ablate-grid runs"):
        run(given, tmp_path / "job", reuse=str(tmp_path / "eval"))


def test_a_folder_with_another_study_is_refused(given: dict[str, Any], done: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(BadInput, match="holds a run with other settings"):
        run({**given, "k": 1}, done[0])


def test_draft_vocabularies_are_built_once_as_a_stage(home: Path, tmp_path: Path) -> None:
    axes = [{"key": "draft_vocab", "values": ["full", 32]}]
    given = study(home, base(home, "eagle"), axes=axes, reference="eagle draft_vocab=full")
    summary, ctx = run(given, tmp_path / "one")
    (model,) = (tmp_path / "one" / "models").glob("*/draft_vocab.safetensors")
    made = model.stat().st_mtime_ns
    few = next(p for p in summary["points"] if p["draft_vocab"] == 32)
    assert 0.9 < few["coverage"] < 1 and "with 32 tokens to draft from" in logs(ctx)[0]
    drafted = [d.id for r in samples(tmp_path / "one").values() if r.variant.endswith("32") for d in r.drafts]
    assert drafted and len(set(drafted)) <= 32
    assert run(given, tmp_path / "one")[0]["points"] == summary["points"] and model.stat().st_mtime_ns == made
    again, _ = run({**given, "k": 1}, tmp_path / "two", reuse=str(tmp_path / "one"))
    assert all(p["taken_from"] for p in again["points"]), "a model built again is the same one"


def test_greedy_eagle_has_the_tokens_of_regular_decoding(home: Path, tmp_path: Path) -> None:
    bases = [base(home, "regular", temperature=0), base(home, "eagle", temperature=0)]
    summary, _ = run(study(home, *bases, k=1), tmp_path)
    (check,) = summary["lossless"]
    assert (check["variant"], check["greedy"], check["same"], check["samples"]) == ("eagle", True, ITEMS, ITEMS)


def test_a_model_that_cannot_is_named_before_anything_is_generated(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="study 'toy', point 'pipo': method pipo needs a PIPO model"):
        run(study(home, base(home, "regular"), base(home, "pipo", model="regular")), tmp_path)
    assert samples(tmp_path) == {}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "ablate-grid: no study; name one of budget"),
        ({"study": "colour"}, "unknown study 'colour'; studies are budget"),
        ({"study": "threshold"}, "threshold is a study of its own kind: `pipo ablate threshold` runs it"),
        ({"study": "budget", "tau": 1}, "ablate-grid: Object contains unknown field `tau`"),
        ({"study": "budget", "shard": "1/2"}, "shard 1/2: a study is not put together from shards"),
        ({"study": "budget", "sampling": {"temperature": 0.5}}, "sampling of a study stands in its bases and axes"),
        ({"study": "budget", "k": 0}, "k 0"),
        ({"study": "budget", "tasks": ["none"]}, "unknown task 'none'"),
        ({"study": "budget", "reuse": "/nowhere"}, "/nowhere/run.json does not exist"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, spec: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        grid.run(spec, Context(tmp_path))


def test_the_summary_lies_in_the_folder(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    assert json.loads((folder / "summary.json").read_bytes()) == json.loads(json.dumps(summary))
    assert summary["kind"] == "ablate-grid" and summary["question"] == "Which?" and summary["axes"][0]["key"] == "slots"
    every = [r for path in folder.glob("units/*/records.jsonl") for r in read(path) if isinstance(r, SampleRecord)]
    assert sum(r["samples"] for r in rows(summary).values()) == 2 * len(every)


def test_answers_that_take_a_judge_are_judged_and_cut_ones_need_none(tmp_path: Path) -> None:
    """lab/base on sums: a smaller budget read off against one generated; and verdicts that a kill left out."""
    task = make_tasks(tmp_path)["algebra"]
    bases = [{"name": "regular", "model": "lab/base", "method": "regular"}]
    given = {"name": "sums", "question": "?", "reference": "regular slots=90", "base": bases, "tasks": [task], "k": 2,
             "limit": 8, "axis": [{"key": "slots", "values": [40, 90]}]}  # fmt: skip
    summary, _ = run(given, tmp_path / "both")
    alone, _ = run({**given, "reference": "regular slots=40", "axis": [{"key": "slots", "values": [40]}]},
                   tmp_path / "alone")  # fmt: skip
    assert summary["scoring"]["unjudged"] == 0 and "symbolic" in summary["scoring"]["tasks"]["algebra"]["by"]
    for metric in ("avg", "pass", "truncated", "slots"):
        assert rows(summary)["regular slots=40"][metric] == rows(alone)["regular slots=40"][metric], metric
    assert 0 < rows(summary)["regular slots=90"]["avg"]["value"] < 1, "else nothing is tested"
    (path,) = (tmp_path / "both").glob("units/*/records.jsonl")
    found = read(path)
    waiting = [
        msgspec.structs.replace(r, judged=False, correct=False, verdict=None)
        if isinstance(r, SampleRecord) and r.verdict and r.verdict.by == "symbolic" else r
        for r in found
    ]  # fmt: skip
    rewrite(path, waiting)
    again, ctx = run(given, tmp_path / "both")
    assert lasting(again) == lasting(summary) and read(path) == found, "judged again, not generated"
    assert not [data for kind, data in ctx.events if kind == "progress"]
