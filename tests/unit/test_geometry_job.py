"""The geometry study as a job, on tiny random models through the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ablations import geometry, study, threshold
from ablations.geometry import PairRecord
from ablations.geometry_measures import QUANTITIES
from ablations.geometry_pads import DraftRecord
from ablations.looks import read
from bench import compare, record
from bench.record import Run, SampleRecord, Variant
from pipo.engine.types import Method
from pipo.errors import BadInput, BadRecord, Cancelled
from pipo.jobs import LocalContext
from tests.unit.diff_sides import origin

pytestmark = pytest.mark.slow

ITEMS, K = 3, 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    folder = tmp_path_factory.mktemp("geometry")
    for seed, (name, pipo) in enumerate((("base", False), ("one", True), ("two", True))):
        model = tiny_model(pipo=pipo, vocab=VOCAB_SIZE, layers=4, seed=seed)
        save_model(model, folder / name, lab_tokenizer())
    save_model(tiny_model(vocab=VOCAB_SIZE + 64, layers=4), folder / "wide", lab_tokenizer())
    rows = [{"prompt": f"<bos> chain a = {n} + 2 ?", "answer": "2"} for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "task.toml").write_text('name = "toy"\nfile = "items.jsonl"\n[budgets]\ntight = 6\nloose = 12\n')
    return folder


def spec(home: Path, **more: Any) -> dict[str, Any]:
    return {
        "models": [str(home / "one"), str(home / "two")], "starts": ["sum", "random"], "threshold": 0.5, "pairs": 12,
        "tasks": [str(home / "task.toml")], "k": K, "limit": None, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, geometry.run(spec(home), LocalContext(folder))


def test_the_study_file_is_a_valid_spec() -> None:
    assert geometry.GeometrySpec(**study.load_study("geometry")).pairs == 1400


def test_all_subjects_are_measured_on_the_first_model_s_pairs(home: Path, done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    found = read(folder / "pairs.jsonl", PairRecord)
    assert {r.subject for r in found} == {*spec(home)["models"], "start sum", "start random"}
    by_item = {(r.item, tuple(r.pairs)) for r in found}
    assert len(by_item) == ITEMS, "the same pairs for every subject"
    assert summary["pairs"] == 12 and summary["prompts"] == ITEMS
    samples = [r for r in record.read(folder / "records.jsonl") if isinstance(r, SampleRecord)]
    written = {
        pair
        for r in samples
        if r.variant == str(home / "one")
        for pair in zip(r.places[::2], r.places[1::2], strict=True)
    }
    assert {pair for _, chosen in by_item for pair in chosen} <= written
    assert json.loads((folder / "summary.json").read_bytes()) == json.loads(json.dumps(summary))


def test_controls_are_where_they_must_be(done: tuple[Path, dict[str, Any]]) -> None:
    _, summary = done
    value = {(r["subject"], r["quantity"]): r["value"] for r in summary["rows"]}
    assert len(value) == 4 * len(QUANTITIES)
    assert value["start sum", "first_slot_jacobian_share"]["value"] == pytest.approx(0.5)
    assert value["start sum", "swap_cosine"]["value"] == pytest.approx(1.0)
    assert value["start sum", "cosine_to_sum"]["value"] == pytest.approx(1.0)
    gaps = {(d["subject"], d["quantity"]): d for d in summary["differences"]}
    for quantity in QUANTITIES:
        gap = gaps["start sum", quantity]
        first = value[gap["reference"], quantity]["value"]
        assert gap["value"] == pytest.approx(value["start sum", quantity]["value"] - first, abs=1e-6)
    assert {s["subject"] for s in summary["spaces"]} == set(summary["subjects"])
    assert set(QUANTITIES) < set(summary["definitions"])


def test_pads_of_each_model_and_what_it_would_have_said(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    drafts = read(folder / "drafts.jsonl", DraftRecord)
    assert len(drafts) == 2 * ITEMS * K and all(0 <= c <= 1 for d in drafts for c in d.chance)
    assert [p["variant"] for p in summary["pads"]] == summary["models"]
    for entry in summary["pads"]:
        assert entry["slots"] == sum(b["kept"] + b["rejected"] for b in entry["confidence"])
        assert entry["slots"] == sum(a["slots"] for a in entry["after"]) == sum(a["slots"] for a in entry["by_part"])


def test_pads_of_other_runs_are_read_from_their_records(home: Path, tmp_path: Path) -> None:
    tasks = [str(home / "task.toml")]
    other = {"model": str(home / "one"), "tasks": tasks, "k": 1, "thresholds": [0.5], "random": True}
    threshold.run(other, LocalContext(tmp_path / "other"))
    summary = geometry.run(spec(home, runs=[str(tmp_path / "other")]), LocalContext(tmp_path / "mine"))
    extra = [p for p in summary["pads"] if p["run"]]
    assert [p["variant"] for p in extra] == ["tau=0.5"] and extra[0]["agreement_expected"] is None
    assert extra[0]["slots"] > 0


def test_an_interrupted_study_goes_on_and_ends_alike(home: Path, tmp_path: Path, done: Any) -> None:
    for name, lines in (("records.jsonl", 1), ("pairs.jsonl", 2), ("drafts.jsonl", 3)):

        class Stops(LocalContext):
            file, enough = tmp_path / name, lines

            def check(self) -> None:
                self.cancelled = self.file.exists() and self.file.read_bytes().count(b"\n") >= self.enough
                super().check()

        with pytest.raises(Cancelled):
            geometry.run(spec(home), Stops(tmp_path))
    kept = {name: (tmp_path / name).read_bytes() for name in ("records.jsonl", "pairs.jsonl", "drafts.jsonl")}
    assert all(kept.values()), {name: len(text) for name, text in kept.items()}
    events: list[dict[str, Any]] = []
    summary = geometry.run(spec(home), LocalContext(tmp_path, lambda kind, data: events.append(data)))
    for name, text in kept.items():
        assert (tmp_path / name).read_bytes().startswith(text), name
    assert events[-1]["done"] == events[-1]["total"]
    assert {**summary, "batch": 0} == {**done[1], "batch": 0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"models": []}, "name at least one PIPO model"),
        ({"starts": ["mean"]}, "known are sum, identity, random"),
        ({"pairs": 0}, "pairs 0 must be at least 1"),
        ({"threshold": 1.5}, r"threshold 1.5 must lie in \[0, 1\]"),
        ({"threshold": 1.0}, "wrote no pair of two tokens at threshold 1"),
        ({"engine": "sglang"}, "only the torch engine holds"),
        ({"tau": 1}, "ablate-geometry: Object contains unknown field `tau`"),
    ],
)
def test_bad_settings_are_refused(home: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        geometry.run(spec(home, **change), LocalContext(tmp_path))


def test_models_and_runs_that_cannot_be_used_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs a PIPO model"):
        geometry.run(spec(home, models=[str(home / "base")]), LocalContext(tmp_path / "a"))
    with pytest.raises(BadInput, match="models that are compared need one vocabulary"):
        geometry.run(spec(home, models=[str(home / "one"), str(home / "wide")]), LocalContext(tmp_path / "b"))
    with pytest.raises(BadRecord, match="is not a run folder"):
        geometry.run(spec(home, runs=[str(tmp_path)]), LocalContext(tmp_path / "c"))


def test_of_a_comparison_the_pair_methods_alone_have_pads(home: Path, tmp_path: Path) -> None:
    """EAGLE offers more drafts than it has slots, and none of them is a PAD."""
    methods = {"chain": ("base", Method("eagle", depth=3)), "mine": ("one", Method("pipo", threshold=0.5))}
    variants = [
        {"name": n, "model": str(home / m), "method": msgspec.to_builtins(of)} for n, (m, of) in methods.items()
    ]
    compare.run({"variants": variants, "tasks": [str(home / "task.toml")], "k": 2}, LocalContext(tmp_path / "other"))
    summary = geometry.run(spec(home, runs=[str(tmp_path / "other")]), LocalContext(tmp_path / "mine"))
    assert [p["variant"] for p in summary["pads"] if p["run"]] == ["mine"]


@pytest.mark.parametrize(("model", "says"), [("one", "has no records.jsonl"), ("gone", "the tokenizer of .*gone is")])
def test_runs_whose_pads_cannot_be_read_are_refused_before_any_work(
    home: Path, tmp_path: Path, model: str, says: str
) -> None:
    variants = [Variant("mine", str(home / model), Method("pipo", threshold=0.5))]
    (tmp_path / "other").mkdir()
    record.write_json(tmp_path / "other" / "run.json", Run(kind="ablate-grid", spec={}, provenance=origin(),
                                                           variants=variants))  # fmt: skip
    if model == "gone":
        (tmp_path / "other" / "records.jsonl").touch()
    with pytest.raises(BadInput, match=says):
        geometry.run(spec(home, runs=[str(tmp_path / "other")]), LocalContext(tmp_path / "mine"))
    assert not (tmp_path / "mine" / "records.jsonl").exists()
