"""The threshold study on a tiny random model, through the real engine; and every study file loads."""

import json
from pathlib import Path
from typing import Any

import pytest

from ablations import study, threshold
from bench import record, stats_paired
from bench.record import SampleRecord
from pipo.errors import BadInput, Cancelled
from pipo.jobs import LocalContext

ITEMS, K = 3, 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    folder = tmp_path_factory.mktemp("ablations")
    for name, pipo in (("regular", False), ("pipo", True)):
        save_model(tiny_model(pipo=pipo, vocab=VOCAB_SIZE, layers=2), folder / name, lab_tokenizer())
    rows = [{"prompt": f"<bos> chain a = {n} + 2 ?", "answer": "2"} for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "task.toml").write_text('name = "toy"\nfile = "items.jsonl"\n[budgets]\ntight = 6\nloose = 16\n')
    return folder


def spec(home: Path, **more: Any) -> dict[str, Any]:
    return {"model": str(home / "pipo"), "tasks": [str(home / "task.toml")], "k": K, "thresholds": [0, 0.5, 1], **more}


@pytest.fixture(scope="module")
def done(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, threshold.run(spec(home), LocalContext(folder))


def points(summary: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return [p for p in summary["points"] if {**p, **wanted} == p]


def test_every_study_file_is_a_valid_spec() -> None:
    assert "threshold" in study.names()
    assert threshold.ThresholdSpec(**study.load_study("threshold")).thresholds == [0, 0.5, 0.8, 0.9, 0.95, 0.98, 1]
    with pytest.raises(BadInput, match="unknown study 'colour'; studies are .*threshold, training"):
        study.load_study("colour")


def test_points_at_both_ends_are_reused_not_generated(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    made = {r.variant for r in record.read(folder / "records.jsonl") if isinstance(r, SampleRecord)}
    assert made == {"tau=0", "tau=0.5", "tau=1", "random@0.5"}
    for value, rate in ((0.0, 1.0), (1.0, 0.0)):
        (gate,) = points(summary, threshold=value, gate="confidence", task="toy", budget="loose")
        (coin,) = points(summary, threshold=value, gate="random", task="toy", budget="loose")
        assert coin["reused"] and not gate["reused"] and coin["keep_rate"] == rate
        assert (coin["avg"], coin["slots"]) == (gate["avg"], gate["slots"])
        assert gate["pad_ratio"]["value"] == pytest.approx(1 - rate)
    assert {d["threshold"] for d in summary["differences"]} == {0.5}, "no difference where nothing differs"


def test_the_coin_keeps_as_many_drafts_as_the_gate_did(done: tuple[Path, dict[str, Any]]) -> None:
    _, summary = done
    (gate,) = points(summary, threshold=0.5, gate="confidence", task="toy", budget="loose")
    (coin,) = points(summary, threshold=0.5, gate="random", task="toy", budget="loose")
    assert 0 < gate["kept_share"]["value"] < 1, "the test needs a threshold that decides"
    assert coin["keep_rate"] == pytest.approx(gate["kept_share"]["value"])
    assert coin["method"]["keep_rate"] == coin["keep_rate"] and coin["method"]["name"] == "random"
    drafts = ITEMS * K * 16
    assert abs(coin["kept_share"]["value"] - coin["keep_rate"]) < 4 * 0.5 / drafts**0.5


def test_the_summary_has_both_gates_budgets_and_the_mean_over_tasks(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    assert len(summary["points"]) == 3 * 2 * 2 * 2
    assert summary["matched"] == "per task" and summary["kind"] == "ablate-threshold"
    assert json.loads((folder / "summary.json").read_bytes()) == summary
    assert {d["metric"] for d in summary["differences"]} == {"avg", "pass@1", "pass@2", "slots", "tokens"}


def test_p_is_corrected_for_all_thresholds_and_both_budgets(home: Path, tmp_path: Path) -> None:
    summary = threshold.run(spec(home, thresholds=[0.3, 0.5, 0.7]), LocalContext(tmp_path))
    for metric in ("slots", "tokens", "avg"):
        family = [d for d in summary["differences"] if d["metric"] == metric and d["task"] == "overall"]
        known = [d for d in family if d["p"] is not None]
        assert [d["p_holm"] for d in known] == stats_paired.holm([d["p"] for d in known]), metric
        assert all(d["p_holm"] is None and d["p_bh"] is None for d in family if d["p"] is None)
        assert not {"variant", "reference"} & set(family[0]), "the schema is kept"
    tokens = [d for d in summary["differences"] if d["metric"] == "tokens" and d["task"] == "overall"]
    assert sum(d["p"] is not None for d in tokens) > 2, "the test needs some that are tested"


def test_without_the_coin_only_the_gate_runs(home: Path, tmp_path: Path) -> None:
    summary = threshold.run(spec(home, random=False, thresholds=[0.5]), LocalContext(tmp_path))
    assert {p["gate"] for p in summary["points"]} == {"confidence"} and summary["differences"] == []


def test_an_interrupted_study_goes_on(home: Path, tmp_path: Path, done: tuple[Path, dict[str, Any]]) -> None:
    class Stops(LocalContext):
        left = 45

        def check(self) -> None:
            self.left -= 1
            self.cancelled = self.left < 0
            super().check()

    with pytest.raises(Cancelled):
        threshold.run(spec(home), Stops(tmp_path))
    begun = (tmp_path / "records.jsonl").read_bytes()
    events: list[dict[str, Any]] = []
    summary = threshold.run(spec(home), LocalContext(tmp_path, lambda kind, data: events.append(data)))
    assert begun and (tmp_path / "records.jsonl").read_bytes().startswith(begun)
    assert events[-1]["done"] == events[-1]["total"] == 6 * ITEMS * K
    for one, other in zip(summary["points"], done[1]["points"], strict=True):
        for key in ("variant", "threshold", "gate", "keep_rate", "avg", "pass", "slots", "kept_share", "reused"):
            assert one[key] == other[key], key


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"thresholds": []}, "no thresholds"),
        ({"thresholds": [0.5, 0.5]}, "name one twice"),
        ({"thresholds": [1.01]}, r"threshold 1.01 must lie in \[0, 1\]"),
        ({"thresholds": [float("nan")]}, r"threshold nan must lie in \[0, 1\]"),
        ({"k": 2, "pass_at": [4]}, r"k is 4, n \(samples an item\) is 2"),
        ({"tau": 1}, "ablate-threshold: Object contains unknown field `tau`"),
    ],
)
def test_bad_settings_are_refused(home: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        threshold.run(spec(home, **change), LocalContext(tmp_path))


def test_a_regular_model_has_no_gate(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs a PIPO model"):
        threshold.run(spec(home, model=str(home / "regular")), LocalContext(tmp_path))
