"""Latency and streaming on tiny random models, through the real engine."""

from pathlib import Path
from typing import Any

import pytest

from bench import generate, latency, record
from bench.record import LatencyRecord
from pipo.errors import BadInput
from tests.unit.bench_jobs import WORDS, Context, make_home, spec


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("bench"))


def test_latency_times_every_variant_and_forced_shares(home: Path, tmp_path: Path) -> None:
    asked = {"variants": spec(home, "regular", "eagle", "pipo")["variants"], "input_lengths": [16, 33], "trials": 3,
             "tokens": 16}  # fmt: skip
    ctx = Context(tmp_path)
    summary = latency.run(asked, ctx)
    arms = [("regular", None), ("eagle", None), ("pipo", None), ("pipo", 1.0), ("pipo", 0.8)]
    assert [(r["variant"], r["keep"]) for r in summary["rows"]] == arms * 2
    full = next(r for r in summary["rows"] if r["keep"] == 1.0)
    assert full["kept_share"] == 1.0 and full["tokens_per_step"] == 2.0
    assert all(0 < r["ttft_s"]["p50"] <= r["first_pair_s"]["p50"] <= r["first_pair_s"]["p90"] for r in summary["rows"])
    assert len(summary["ratios"]) == 4 * 2 * 4 and all(r["low"] <= r["value"] <= r["high"] for r in summary["ratios"])
    assert len(summary["floor"]) == 8 and all(r["ttft_flops_ratio"] > 0 for r in summary["floor"])
    rows = [r for r in record.read(tmp_path / "records.jsonl") if isinstance(r, LatencyRecord)]
    assert len(rows) == 5 * 2 * 3 and all(r.tokens >= 16 and len(r.token_times_s) == r.tokens for r in rows)
    order = [r.variant for r in rows]
    assert order[0] != order[5] != order[10], "the order rotates from trial to trial"
    before = (tmp_path / "records.jsonl").read_bytes()
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(before.splitlines(keepends=True)[:-3]))
    latency.run(asked, Context(tmp_path))
    assert len(record.read(path)) == len(rows) and path.read_bytes().startswith(before[:1000])


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
