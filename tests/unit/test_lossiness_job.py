"""The lossiness study as a job, on tiny random models through the real engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ablations import lossiness, study
from ablations.looks import read
from ablations.lossiness_distances import DistanceRecord
from bench import record
from bench.record import SampleRecord
from pipo.errors import BadInput, BadRecord, Cancelled
from pipo.jobs import LocalContext

pytestmark = pytest.mark.slow

ITEMS, K = 3, 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    folder = tmp_path_factory.mktemp("lossiness")
    for seed, (name, pipo) in enumerate((("base", False), ("other", False), ("one", True), ("two", True))):
        model = tiny_model(pipo=pipo, vocab=VOCAB_SIZE, layers=4, seed=seed)
        save_model(model, folder / name, lab_tokenizer())
    save_model(tiny_model(vocab=VOCAB_SIZE + 64, layers=4), folder / "wide", lab_tokenizer())
    rows = [{"prompt": f"<bos> chain a = {n} + 2 ?", "answer": "2"} for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "task.toml").write_text('name = "toy"\nfile = "items.jsonl"\n[budgets]\ntight = 6\nloose = 12\n')
    return folder


def spec(home: Path, **more: Any) -> dict[str, Any]:
    return {
        "base": str(home / "base"), "others": [str(home / "other")], "models": [str(home / "one"), str(home / "two")],
        "tasks": [str(home / "task.toml")], "k": K, "thresholds": [0.0, 0.5, 1.0], "match": 0.5, "limit": None, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, lossiness.run(spec(home), LocalContext(folder))


def rows(summary: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in summary["rows"] if {**r, **wanted} == r]


def test_the_study_file_is_a_valid_spec() -> None:
    assert lossiness.LossinessSpec(**study.load_study("lossiness")).thresholds == [0.0, 0.5, 0.95, 1.0]


def test_every_method_reads_every_text_in_full(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    found = read(folder / "distances.jsonl", DistanceRecord)
    assert len(found) == ITEMS * K * (2 + 1 + 2 * (3 + 1)), "mtp, eagle, other; two models at three thresholds, a coin"
    lengths = {(r.task, r.item, r.sample): len(r.sources) for r in found}
    assert len(lengths) == ITEMS * K == summary["texts"]
    for r in found:
        assert len(r.tv) == len(r.sources) == lengths[r.task, r.item, r.sample]
        assert all(0 <= v <= 1 + 1e-6 for v in r.tv) and len(r.twin_tv) in (0, len(r.tv))
    assert json.loads((folder / "summary.json").read_bytes()) == summary


def test_what_must_be_nought_is(home: Path, done: tuple[Path, dict[str, Any]]) -> None:
    _, summary = done
    assert summary["lossless"]["holds"] and summary["lossless"]["places"] > 0
    (first,) = rows(summary, method="mtp", place="first")
    assert first["tv"]["value"] == 0
    for model in ("one", "two"):
        (twin,) = rows(summary, method="pipo 1", model=str(home / model), place="all")
        assert twin["twin_tv"]["value"] == 0 < twin["tv"]["value"]
        assert not rows(summary, method="pipo 0", model=str(home / model), place="after PAD")


def test_the_coin_keeps_as_many_drafts_as_the_gate_it_is_held_against(home: Path, done: Any) -> None:
    folder, summary = done
    found = read(folder / "distances.jsonl", DistanceRecord)
    share = lossiness.kept_share(found, str(home / "one"), "pipo 0.5")
    assert 0 < share < 1
    gaps = {(d["method"], d["reference"]) for d in summary["differences"]}
    assert {("random", "pipo 0.5"), ("pipo 0", "pipo 1"), ("pipo 1", "regular"), ("pipo 0.5", "mtp")} <= gaps


def test_what_rejecting_changes_is_read_off_the_rejected_places(home: Path, done: Any) -> None:
    folder, summary = done
    found = read(folder / "distances.jsonl", DistanceRecord)
    gaps = {(d["method"], d["model"]): d for d in summary["differences"] if d["reference"] == "its rejected drafts"}
    assert {method for method, _ in gaps} == {"pipo 0.5", "pipo 1"}, "elsewhere nothing is rejected"
    model = str(home / "one")
    at = [
        tv - (1 - accept)
        for r in found
        if (r.method, r.model) == ("pipo 1", model)
        for s, tv, accept in zip(r.sources, r.tv, r.accept_reference, strict=True)
        if s == "after PAD"
    ]
    assert gaps["pipo 1", model]["value"] == pytest.approx(sum(at) / len(at))


def test_an_interrupted_study_goes_on_and_ends_alike(home: Path, tmp_path: Path, done: Any) -> None:
    class Stops(LocalContext):
        left = 45

        def check(self) -> None:
            self.left -= 1
            self.cancelled = self.left < 0
            super().check()

    with pytest.raises(Cancelled):
        lossiness.run(spec(home), Stops(tmp_path))
    path = tmp_path / "distances.jsonl"
    begun = path.read_bytes()
    assert begun, "the test needs a study that has measured something"
    path.write_bytes(begun + b'{"type":"distance","meth')  # a line torn by a kill
    events: list[dict[str, Any]] = []
    summary = lossiness.run(spec(home), LocalContext(tmp_path, lambda kind, data: events.append(data)))
    assert path.read_bytes().startswith(begun)
    assert events[-1]["done"] == events[-1]["total"]
    skip = ("batch",)
    assert {k: v for k, v in summary.items() if k not in skip} == {k: v for k, v in done[1].items() if k not in skip}


@pytest.mark.parametrize("whole", [1, 3, 8])
def test_a_text_whose_lines_were_written_in_part_is_not_counted_twice(
    home: Path, tmp_path: Path, done: Any, whole: int
) -> None:
    folder = shutil.copytree(done[0], tmp_path / "killed")
    (folder / "summary.json").unlink()
    path = folder / "distances.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:whole]) + lines[whole][:40])  # the write of a text's nine lines was cut
    summary = lossiness.run(spec(home), LocalContext(folder))
    assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert summary == done[1]


def test_a_text_that_ended_by_a_failure_is_left_out(home: Path, tmp_path: Path, done: Any) -> None:
    folder = shutil.copytree(done[0], tmp_path / "failed")
    (folder / "summary.json").unlink()
    (folder / "distances.jsonl").unlink()
    made = list(record.each(folder / "records.jsonl"))
    at = next(i for i, r in enumerate(made) if isinstance(r, SampleRecord))
    made[at] = msgspec.structs.replace(made[at], finish="failed", error="the output is not finite")
    record.rewrite(folder / "records.jsonl", made)
    assert lossiness.run(spec(home), LocalContext(folder))["texts"] == ITEMS * K - 1


def test_texts_can_be_cut(home: Path, tmp_path: Path) -> None:
    lossiness.run(spec(home, places=4, match=None, models=[str(home / "one")]), LocalContext(tmp_path))
    found = read(tmp_path / "distances.jsonl", DistanceRecord)
    assert {len(r.sources) for r in found} == {4} and "random" not in {r.method for r in found}


def test_a_line_that_is_no_distance_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"type":"distance"}\n')
    with pytest.raises(BadRecord, match=r"d.jsonl:1: no DistanceRecord"):
        read(tmp_path / "d.jsonl", DistanceRecord)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"models": []}, "at least one PIPO model"),
        ({"thresholds": [0.5, 0.5]}, "name each once"),
        ({"match": 0.7}, "match 0.7 is none of the thresholds"),
        ({"thresholds": [2.0], "match": None}, r"threshold 2.0 must lie in \[0, 1\]"),
        ({"places": 1}, "places 1 must be at least 2"),
        ({"depth": 0}, r"depth 0 must lie in \[1, 16\]"),
        ({"engine": "sglang"}, "only the torch engine holds"),
        ({"tau": 1}, "ablate-lossiness: Object contains unknown field `tau`"),
    ],
)
def test_bad_settings_are_refused(home: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        lossiness.run(spec(home, **change), LocalContext(tmp_path))


def test_models_that_cannot_be_compared_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs a PIPO model"):
        lossiness.run(spec(home, models=[str(home / "other")], others=[]), LocalContext(tmp_path / "a"))
    with pytest.raises(BadInput, match="is a PIPO model"):
        lossiness.run(spec(home, base=str(home / "two"), models=[str(home / "one")]), LocalContext(tmp_path / "b"))
    with pytest.raises(BadInput, match="distances need one vocabulary"):
        lossiness.run(spec(home, models=[str(home / "wide")]), LocalContext(tmp_path / "c"))
