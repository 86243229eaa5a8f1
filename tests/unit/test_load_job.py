"""The job: points in one folder, resumed without doing any twice; the same requests for all; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import provenance
from bench.load.job import run
from bench.load.records import PointRecord, RequestRecord, read
from bench.load.targets import default_scale, fit_rows
from bench.load.traces import Recorded
from pipo.errors import BadInput, BadRecord, Cancelled
from tests.unit.bench_jobs import Context, make_home
from tests.unit.bench_jobs import spec as compare_spec

pytestmark = pytest.mark.slow

SLO = {"ttft": 30.0, "tpot": 5.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def spec(home: Path, *names: str, **more: Any) -> dict[str, Any]:
    usual = {"rates": [200.0, 400.0], "requests": 6, "input_tokens": 7, "output_tokens": 5, "warmup": 1, "max_batch": 4}
    return {"variants": compare_spec(home, *names)["variants"], **usual, **more}


def records(folder: Path, kind: type) -> list[Any]:
    return [r for r in read(folder / "records.jsonl") if isinstance(r, kind)]


def test_every_variant_has_every_rate_with_the_same_requests(home: Path, tmp_path: Path) -> None:
    summary = run(spec(home, "regular", "pipo", slo=SLO), Context(tmp_path))
    assert [(r["variant"], r["load"], r["ok"]) for r in summary["rows"]] == [
        ("regular", 200.0, 6), ("pipo", 200.0, 6), ("regular", 400.0, 6), ("pipo", 400.0, 6),
    ]  # fmt: skip
    of: dict[str, list[RequestRecord]] = {}
    for r in records(tmp_path, RequestRecord):
        of.setdefault(r.point, []).append(r)
    due = {name: [r.due_s for r in rows] for name, rows in of.items()}
    assert due["regular rate=200"] == due["pipo rate=200"] != due["pipo rate=400"]
    assert [2 * t for t in due["pipo rate=400"]] == pytest.approx(due["pipo rate=200"], abs=1e-6)
    assert all(r.tokens == 5 and r.prompt_tokens == 7 for rows in of.values() for r in rows)
    assert {r["metric"] for r in summary["ratios"]} == {"ttft", "first_pair", "tpot", "e2e"}
    assert all(r["n"] == 6 and r["reference"] == "regular" for r in summary["ratios"])
    assert json.loads((tmp_path / "summary.json").read_text())["rows"] == json.loads(json.dumps(summary["rows"]))
    json.dumps(summary, allow_nan=False)


class CancelledAfter(Context):
    """Cancels once so many points are over."""

    def __init__(self, folder: Path, points: int) -> None:
        super().__init__(folder)
        self.points = points

    def check(self) -> None:
        file = self.folder / "records.jsonl"
        self.cancelled = file.exists() and file.read_bytes().count(b'"type":"point"') >= self.points
        if self.cancelled:
            raise Cancelled("stop")


def test_a_cancelled_job_goes_on_with_the_points_it_lacks(home: Path, tmp_path: Path) -> None:
    asked = spec(home, "regular", "pipo", requests=12)
    with pytest.raises(Cancelled):
        run(asked, CancelledAfter(tmp_path, 2))
    before = (tmp_path / "records.jsonl").read_bytes()
    done = {r.point for r in records(tmp_path, PointRecord)}
    assert done == {"regular rate=200", "pipo rate=200"}
    with open(tmp_path / "records.jsonl", "ab") as f:  # what a kill may leave: whole requests, and a torn line
        line = before.splitlines(keepends=True)[1].replace(b"regular rate=200", b"regular rate=400")
        f.write(line + b'{"type":"requ')
    summary = run(asked, Context(tmp_path))
    assert (tmp_path / "records.jsonl").read_bytes().startswith(before)
    points = [r.point for r in records(tmp_path, PointRecord)]
    assert len(points) == len(set(points)) == 4 == len(summary["rows"])
    assert len(records(tmp_path, RequestRecord)) == 48
    context = Context(tmp_path)
    again = run(asked, context)
    assert again == summary and not any(kind == "progress" for kind, _ in context.events)


def test_a_folder_of_other_settings_is_refused(home: Path, tmp_path: Path) -> None:
    run(spec(home, "regular", rates=[400.0], requests=2), Context(tmp_path))
    with pytest.raises(BadInput, match="other settings"):
        run(spec(home, "regular", rates=[400.0], requests=3), Context(tmp_path))


def test_a_line_that_is_no_record_is_named(home: Path, tmp_path: Path) -> None:
    asked = spec(home, "regular", rates=[400.0], requests=2)
    run(asked, Context(tmp_path))
    with open(tmp_path / "records.jsonl", "ab") as f:
        f.write(b"{}\n")
    with pytest.raises(BadRecord, match=r"records\.jsonl:5"):
        run(asked, Context(tmp_path))


def test_responses_of_a_task_are_scored(home: Path, tmp_path: Path) -> None:
    summary = run(spec(home, "regular", rates=[100.0], requests=8, task=str(home / "task.toml")), Context(tmp_path))
    (row,) = summary["rows"]
    found = records(tmp_path, RequestRecord)
    assert [r.item for r in found] == ["i0", "i1", "i2", "i3", "i4", "i0", "i1", "i2"]
    assert [r.sample for r in found] == [0] * 5 + [1] * 3 and all(
        r.correct is not None and r.task == "toy" for r in found
    )
    assert row["avg"]["n"] == 5 and row["cut"] == sum(r.finish == "slots" for r in found)
    assert all(r.slots <= 12 for r in found)


def test_scores_are_those_of_the_text_and_a_failure_is_wrong(home: Path, tmp_path: Path) -> None:
    from bench.load.scoring import score
    from bench.load.summary import _quality
    from bench.load.workload import Ask
    from bench.tasks import Item, Task, boxed

    task = Task("toy", [Item("a", "1+1", "2")], {"tight": 9, "loose": 9}, boxed)
    usual = {"point": "p", "variant": "v", "due_s": 0.0, "sent_s": 0.0, "ended_s": 1.0, "item": "a"}
    texts = [
        ("\\boxed{2}", "eos", "ok"),
        ("\\boxed{2}", "slots", "ok"),
        ("\\boxed{3}", "eos", "ok"),
        ("", "", "failed"),
    ]
    found = [
        RequestRecord(index=i, text=text, finish=finish, status=status, **usual)  # type: ignore[arg-type]
        for i, (text, finish, status) in enumerate(texts)
    ]
    score(task, [Ask(i, 0.0, 0, item=task.items[0]) for i in range(4)], found, lambda ids: "")
    assert [r.correct for r in found] == [True, False, False, False]
    avg = _quality(found)
    assert avg is not None and avg["value"] == 0.25


def test_a_trace_is_replayed_at_its_times(home: Path, tmp_path: Path) -> None:
    rows = [
        {
            "timestamp": 1000 * t,
            "input_length": 512 * (1 + t),
            "output_length": 64 + t,
            "hash_ids": [0, *range(9, 9 + t)],
        }
        for t in range(4)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    asked = spec(
        home, "regular", "pipo", rates=None, trace=str(tmp_path / "t.jsonl"), speedup=50.0, scale=1 / 64, requests=9
    )
    summary = run(asked, Context(tmp_path / "run"))
    found = [r for r in records(tmp_path / "run", RequestRecord) if r.variant == "pipo"]
    assert [r.due_s for r in found] == pytest.approx([0.0, 0.02, 0.04, 0.06], abs=1e-6)
    assert [r.prompt_tokens for r in found] == [8, 16, 24, 32] and [r.tokens for r in found] == [1, 1, 1, 1]
    assert [r["mode"] for r in summary["rows"]] == ["trace", "trace"] and summary["scale"] == 1 / 64


def test_concurrency_keeps_so_many_at_once(home: Path, tmp_path: Path) -> None:
    summary = run(spec(home, "pipo", rates=None, concurrency=[1, 3]), Context(tmp_path))
    assert [(r["load"], r["most"]) for r in summary["rows"]] == [(1.0, 1), (3.0, 3)]


def test_a_search_goes_on_from_its_probes(home: Path, tmp_path: Path) -> None:
    asked = spec(
        home, "regular", rates=[50.0], find_rate=True, slo={"ttft": 30.0, "e2e": 0.0002}, requests=4, precision=2
    )
    summary = run(asked, Context(tmp_path))
    (found,) = summary["found"]
    assert found["rate"] is None and len(found["probes"]) == len(summary["rows"]) == 9
    context = Context(tmp_path)
    assert run(asked, context)["found"] == summary["found"]
    assert not any(kind == "progress" for kind, _ in context.events)


def test_a_probe_lasts_long_enough_for_a_queue_to_grow() -> None:
    from bench.load.spec import LoadSpec

    search = LoadSpec(find_rate=True, slo={"ttft": 1.0})
    assert [search.probe_count(rate) for rate in (0.5, 5.0, 64.0)] == [100, 100, 1280]
    assert LoadSpec(find_rate=True, slo={"ttft": 1.0}, requests=7).probe_count(64.0) == 7
    assert LoadSpec(find_rate=True, slo={"ttft": 1.0}, duration_s=3.0).probe_count(64.0) is None


BAD = {
    "rate": ({"rates": [0.0]}, "rate 0.0"),
    "negative rate": ({"rates": [-2.0]}, "rate -2.0"),
    "rate twice": ({"rates": [1.0, 1.0]}, "name one twice"),
    "rates and a trace": ({"trace": "mooncake"}, "exclude each other"),
    "unknown trace": ({"rates": None, "trace": "no-such"}, "unknown trace 'no-such'"),
    "concurrency": ({"rates": None, "concurrency": [0]}, "concurrency 0"),
    "requests": ({"requests": 0}, "requests 0"),
    "duration": ({"duration_s": float("nan")}, "duration_s nan"),
    "limit": ({"slo": {"speed": 1.0}}, "unknown limit 'speed'"),
    "limit 0": ({"slo": {"ttft": 0.0}}, "limit ttft 0.0"),
    "search without limits": ({"find_rate": True}, "needs an SLO"),
    "burstiness": ({"burstiness": 2.0}, "has no effect on poisson"),
    "key": ({"api_key_file": "k"}, "no effect without a url"),
    "url": ({"url": "ftp://x"}, "must begin with http://"),
    "url with a key": ({"url": "http://a:b@x"}, "would be kept in records"),
    "url without a port": ({"url": "http://x:99999"}, "cannot be read"),
    "url and sglang": ({"url": "http://x", "engine": "sglang"}, "exclude each other"),
    "unknown setting": ({"speed": 1}, "speed"),
    "arrivals": ({"arrivals": "late"}, "arrivals"),
    "task and trace": ({"rates": None, "task": "lab-chain", "trace": "mooncake"}, "a trace has lengths"),
    "method": ({"variants": [{"name": "x", "model": "lab/base", "method": {"name": "pipo"}}]}, "needs a PIPO model"),
    "variant": ({"variants": ["nonsense"]}, "must read NAME=MODEL:METHOD"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_before_anything_runs(home: Path, tmp_path: Path, name: str) -> None:
    more, says = BAD[name]
    with pytest.raises(BadInput, match=says):
        run(spec(home, "regular", **more) if "variants" not in more else {**spec(home), **more}, Context(tmp_path))
    assert not (tmp_path / "run.json").exists()


def test_lab_variants_may_be_named_alone() -> None:
    from bench.load.targets import by_name

    pipo, regular, other = by_name(["pipo", "regular", "x=lab/base:eagle"]) or []
    assert (
        (pipo.name, pipo.model) == ("pipo", "lab/pipo-opd") and regular.model == "lab/base" and other.startswith("x=")
    )


def test_a_trace_is_scaled_until_its_longest_request_fits() -> None:
    assert default_scale([Recorded(0, 900, 100)], 1100) == 1.0
    assert default_scale([Recorded(0, 900, 100), Recorded(0, 5, 5)], 300) == 0.25
    assert default_scale([], 10) == 1.0


def test_rows_are_made_as_long_as_the_longest_request() -> None:
    from pipo.engine import TorchEngine
    from pipo.model.testing import tiny_model

    model = tiny_model(vocab=64, layers=2)
    engine = TorchEngine(model, max_batch=4, context=64, memory=None)
    said = fit_rows(engine, 200, 4)
    assert engine.plan.context >= 200 and (said is None) == (engine.max_batch == 4)
    assert fit_rows(object(), 10**9, 4) is None


def test_provenance_names_the_engine(home: Path, tmp_path: Path) -> None:
    run(spec(home, "regular", rates=[400.0], requests=2), Context(tmp_path))
    header = json.loads((tmp_path / "run.json").read_text())
    assert header["kind"] == "load" and header["provenance"]["engine"] == "torch"
    assert header["provenance"]["settings_hash"] == provenance.settings_hash(header["spec"])
