"""Latency and streaming on tiny random models, through the real engine."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import generate, latency, latency_arms, record
from bench.latency_models import check_room
from bench.machine import Machine
from bench.record import LatencyRecord, Variant
from pipo.engine.types import Method
from pipo.errors import BadInput, Cancelled
from tests.unit.bench_jobs import WORDS, Context, make_home, spec

RATES = Machine(name="test", bandwidth=1e9, matmul_rate=1e9, attention_rate=1e9, call_s=1e-6, dtype="float32")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.dtype]]:
    """A machine of known rates instead of a measured one; what it was asked for."""
    asked: list[tuple[str, torch.dtype]] = []

    def measure(device: str, dtype: torch.dtype) -> Machine:
        asked.append((device, dtype))
        return RATES

    monkeypatch.setattr("bench.machine.measure", measure)
    return asked


def test_latency_times_every_variant_and_forced_shares(home: Path, tmp_path: Path, measured: list[object]) -> None:
    asked = {"variants": spec(home, "regular", "eagle", "pipo")["variants"], "input_lengths": [16, 33], "trials": 3,
             "tokens": 16}  # fmt: skip
    summary = latency.run(asked, Context(tmp_path))
    arms = [("regular", None), ("eagle", None), ("pipo", None), ("pipo", 1.0), ("pipo", 0.8)]
    assert [(r["variant"], r["keep"]) for r in summary["rows"]] == arms * 2
    full = next(r for r in summary["rows"] if r["keep"] == 1.0)
    assert full["kept_share"] == 1.0 and full["tokens_per_step"] == 2.0
    for r in summary["rows"]:
        assert (
            0 < r["ttft_s"]["p50"] <= r["first_pair_s"]["p50"] <= r["first_pair_s"]["p90"] <= r["first_pair_s"]["p99"]
        )
        assert r["ttft_over_floor"] == r["ttft_s"]["p50"] / r["ttft_floor_s"] > 0
        assert r["tpot_over_floor"] == r["tpot_s"]["p50"] / r["tpot_floor_s"] > 0
        assert r["tpot_floor_s"] == r["step_floor_s"] / r["tokens_per_step"]
        assert min(r["step_s"].values()) > 0
    assert len(summary["ratios"]) == 4 * 2 * 4 and all(r["low"] <= r["value"] <= r["high"] for r in summary["ratios"])
    rows = {(r["variant"], r["keep"], r["input_tokens"]): r for r in summary["rows"]}
    assert len(summary["floor"]) == 8
    for f in summary["floor"]:
        one, base = rows[f["variant"], f["keep"], f["input_tokens"]], rows["regular", None, f["input_tokens"]]
        assert f["tpot_allowed"] == base["tpot_floor_s"] / one["tpot_floor_s"]
        assert f["ttft_reached"] == f["ttft_measured"] / f["ttft_allowed"]
    assert (summary["machine"]["name"], measured) == ("test", [("cpu", torch.float32)])
    found = [r for r in record.read(tmp_path / "records.jsonl") if isinstance(r, LatencyRecord)]
    assert len(found) == 5 * 2 * 3 and all(r.tokens >= 16 and len(r.token_times_s) == r.tokens for r in found)
    order = [r.variant for r in found]
    assert order[0] != order[5] != order[10], "the order rotates from trial to trial"


def test_latency_goes_on_from_what_is_there(home: Path, tmp_path: Path, measured: list[object]) -> None:
    asked = {"variants": spec(home, "regular", "pipo")["variants"], "input_lengths": [16], "trials": 3, "tokens": 16}
    whole = latency.run(asked, Context(tmp_path))
    path, floor = tmp_path / "records.jsonl", (tmp_path / "floor.json").read_bytes()
    before = path.read_bytes()
    path.write_bytes(b"".join(before.splitlines(keepends=True)[:-3]))
    latency.run(asked, Context(tmp_path))
    assert len(record.read(path)) == 4 * 3 and path.read_bytes().startswith(before[:1000])
    assert latency.run(asked, Context(tmp_path))["floor"], "nothing left to do: the summary alone"
    assert len(measured) == 1 and whole["machine"] == json.loads(floor)["machine"]
    ctx = Context(tmp_path / "again", cancel_at=9)
    with pytest.raises(Cancelled):
        latency.run(asked, ctx)


def test_a_shape_runs_all_methods_on_one_random_model(tmp_path: Path, measured: list[object]) -> None:
    asked = {
        "shape": "lab",
        "input_lengths": [64],
        "trials": 2,
        "tokens": 18,
        "protocol": "paper",
        "keep": [1.0, 0.335],
    }
    summary = latency.run(asked, Context(tmp_path))
    rows = {r["variant"] + (f"@{r['keep']:g}" if r["keep"] is not None else ""): r for r in summary["rows"]}
    assert list(rows) == ["regular", "mtp", "eagle", "pipo@1", "pipo@0.335"]
    assert rows["mtp"]["tokens_per_step"] == rows["pipo@1"]["tokens_per_step"] == 2.0
    assert 0 <= rows["pipo@0.335"]["kept_share"] < 1
    assert (summary["shape"], summary["statistic"], summary["tpot"], summary["trials"]) == ("lab", "mean", "tpot16", 2)
    for r in rows.values():
        assert r["tpot_over_floor"] == r["tpot16_s"]["mean"] / r["tpot_floor_s"]
    assert {r["metric"] for r in summary["ratios"] if r["variant"] == "eagle"} == {"ttft", "first_pair"}
    ratio = next(r for r in summary["ratios"] if (r["variant"], r["metric"]) == ("mtp", "tpot16"))
    assert ratio["value"] == pytest.approx(rows["regular"]["tpot16_s"]["mean"] / rows["mtp"]["tpot16_s"]["mean"])


def test_the_papers_protocol() -> None:
    paper = latency.LatencySpec(protocol="paper")
    assert paper.lengths == [2048, 4096, 8192, 16384, 32768, 65536, 131072]
    assert (paper.trial_count, paper.new_tokens, paper.statistic, paper.tpot) == (16, 16, "mean", "tpot16")
    assert latency.LatencySpec(protocol="paper", input_lengths=[2048], trials=3).lengths == [2048]
    assert latency.LatencySpec(shape="lab").forced == [1.0, 0.8, 0.335]


@pytest.mark.parametrize("length", [4096, 2049])
def test_prompts_beyond_the_model_are_refused_before_anything_runs(home: Path, tmp_path: Path, length: int) -> None:
    asked = {"variants": spec(home, "regular")["variants"], "input_lengths": [16, length], "tokens": 2048}
    with pytest.raises(BadInput, match=rf"variant regular needs {length + 2048} places for {length} prompt tokens"):
        latency.run(asked, Context(tmp_path))
    assert not (tmp_path / "records.jsonl").exists()
    with pytest.raises(BadInput, match="do not fit into the 262144 positions of shape 'lab'"):
        latency.run({"shape": "lab", "input_lengths": [262_140]}, Context(tmp_path))


class ManyRows:
    """An engine whose plan holds 4 rows, or one that is wider."""

    def __init__(self, positions: int) -> None:
        self.max_batch, self.plan = 4, SimpleNamespace(context=64)
        self.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions))

    def resize(self, *, max_batch: int) -> None:
        self.max_batch, self.plan = max_batch, SimpleNamespace(context=256)


def test_an_engine_gives_up_rows_for_a_long_prompt() -> None:
    (arm,) = latency_arms.arms_of([Variant("regular", "m", Method("regular"))], [])
    short, long, longer = (latency.LatencySpec(input_lengths=[n], tokens=16) for n in (48, 49, 241))
    engine = ManyRows(positions=1024)
    check_room(arm, engine, short)
    assert engine.max_batch == 4
    check_room(arm, engine, long)
    assert engine.max_batch == 1
    with pytest.raises(BadInput, match="needs 257 places for 241 prompt tokens.*the memory leaves a row 256"):
        check_room(arm, engine, longer)
    pairs = latency_arms.arms_of([Variant("pipo", "m", Method("pipo"))], [])[0]
    check_room(pairs, engine, longer)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input_lengths": []}, "input_lengths"),
        ({"input_lengths": [8, 8]}, "twice"),
        ({"trials": 0}, "trials 0"),
        ({"tokens": 3}, "tokens 3 must be at least 16"),
        ({"keep": 1.5}, r"keep 1.5 must lie in \[0, 1\]"),
        ({"keep": float("nan")}, r"keep nan must lie in \[0, 1\]"),
        ({"trails": 3}, "unknown field `trails`"),
        ({"shape": "lab", "variants": []}, "shape 'lab' and variants exclude each other"),
        ({"shape": "lab", "family": "/f"}, "shape 'lab' and family exclude each other"),
        ({"shape": "lab", "keep": []}, "keep is empty"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 has no effect without a shape"),
        ({"shape": "4b"}, "unknown shape '4b'; shapes are lab"),
        ({"protocol": "theirs"}, "protocol"),
    ],
)
def test_bad_latency_settings_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        latency.run(change, Context(tmp_path))


@pytest.mark.parametrize("kind", ["regular", "pipo"])
def test_generate_streams_what_it_returns(home: Path, tmp_path: Path, kind: str) -> None:
    ctx = Context(tmp_path)
    asked = {"model": str(home / kind), "prompt": " ".join(WORDS), "seed": 3, "max_tokens": 9}
    result = generate.run(asked, ctx)
    pieces = [data for event, data in ctx.events if event == "token"]
    assert "".join(p["text"] for p in pieces) == result["text"] != ""
    assert sum(p["kept"] is True for p in pieces) == result["kept"]
    assert sum(p["kept"] is not None for p in pieces) == result["offered"]
    assert result["method"]["name"] == kind and result["ttft_s"] > 0
    assert generate.run(asked, Context(tmp_path))["text"] == result["text"], "the seed fixes the sample"


def test_generate_refuses_an_empty_prompt_and_unknown_settings(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no token"):
        generate.run({"model": str(home / "regular"), "prompt": " "}, Context(tmp_path))
    with pytest.raises(BadInput, match="max_slots 0"):
        generate.run({"model": str(home / "regular"), "prompt": "a", "max_slots": 0}, Context(tmp_path))
    with pytest.raises(BadInput, match="missing required field `prompt`"):
        generate.run({"model": str(home / "regular")}, Context(tmp_path))
