"""When requests arrive: rates and shapes of drawn arrivals, and traces replayed at the recorded times."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.load.arrivals import arrivals, gaps
from bench.load.traces import Recorded, find_trace, ideal, read_recorded, read_trace, scaled
from pipo.config import paths
from pipo.errors import BadInput

IDS = range(3, 90)


@pytest.mark.parametrize(("kind", "shape"), [("poisson", 1.0), ("gamma", 0.3), ("gamma", 4.0)])
def test_gaps_have_the_gammas_mean_and_shape(kind: str, shape: float) -> None:
    found = np.array(gaps(kind, 20_000, 5, shape))  # type: ignore[arg-type]
    se = found.std() / np.sqrt(found.size)
    assert abs(found.mean() - 1) < 4 * se, f"mean {found.mean():.4f}, standard error {se:.4f}"
    assert found.var() == pytest.approx(1 / shape, rel=0.1)
    p = stats.kstest(found, stats.gamma(shape, scale=1 / shape).cdf).pvalue
    assert p > 0.001, f"Kolmogorov-Smirnov against the gamma of shape {shape}: p {p:.2g}"


def test_a_seed_fixes_the_pattern_and_the_rate_stretches_it() -> None:
    slow = arrivals("poisson", 2.0, 7, requests=50, duration_s=None)
    fast = arrivals("poisson", 8.0, 7, requests=50, duration_s=None)
    assert slow[0] == 0.0 and np.allclose(np.array(slow), 4 * np.array(fast))
    assert arrivals("poisson", 2.0, 8, requests=50, duration_s=None) != slow


def test_a_duration_ends_the_arrivals_and_a_shorter_one_is_a_prefix() -> None:
    long = arrivals("gamma", 50.0, 1, requests=None, duration_s=20.0, burstiness=0.5)
    short = arrivals("gamma", 50.0, 1, requests=None, duration_s=5.0, burstiness=0.5)
    assert long[: len(short)] == short and max(long) < 20.0
    assert abs(len(long) / 20.0 - 50.0) < 4 * 50.0 / np.sqrt(0.5 * 1000)


def test_constant_arrivals_are_even() -> None:
    assert arrivals("constant", 4.0, 0, requests=5, duration_s=None) == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(BadInput, match="rate"):
        arrivals("poisson", rate, 0, requests=5, duration_s=None)


def test_more_than_a_million_arrivals_are_refused() -> None:
    with pytest.raises(BadInput, match="million|1000000"):
        arrivals("constant", 1e6, 0, requests=None, duration_s=10.0)


# Traces


def azure(folder: Path, *rows: str) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join(("TIMESTAMP,ContextTokens,GeneratedTokens", *rows)) + "\n")
    return path


def test_azures_times_keep_all_their_digits(tmp_path: Path) -> None:
    path = azure(tmp_path, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109")
    first, second = read_recorded(path, 10)
    assert (first.at_s, first.input, first.output) == (0.0, 374, 44)
    assert second.at_s == pytest.approx(4.314579, abs=1e-7)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("yesterday,5,5", "line 2"), ("2023-11-16 18:15:46,x,5", "line 2"), ("2023-11-16 18:15:46,0,5", "0 tokens in"),
        ("2023-11-16 18:15:46,5", "line 2"), ("2023-11-16 18:15:46,5,-1", "-1 out"),
        (f"2023-11-16 18:15:46,{10**12},5", "are no request"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_request_of_azures_is_named(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_recorded(azure(tmp_path, row), 10)


@pytest.mark.parametrize(
    "line",
    ["", "nonsense", "[]", '{"hash_ids": 5}', "[" * 100_000,
     '{"timestamp": 1e999, "hash_ids": [1], "input_length": 5, "output_length": 1}'],
)  # fmt: skip
def test_a_line_that_is_no_request_of_mooncakes_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(BadInput, match="line 1"):
        read_recorded(path, 10)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"TIMESTAMP,ContextTokens,GeneratedTokens\n"])
def test_a_file_without_requests_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"trace\.csv"):
        read_recorded(tmp_path / "trace.csv", 10)


def test_an_unknown_trace_is_bad_input(tmp_path: Path) -> None:
    for name in ("no-such", str(tmp_path / "none.csv"), str(tmp_path)):
        with pytest.raises(BadInput, match="traces are azure-conv, azure-code, mooncake"):
            find_trace(name)
    with pytest.raises(BadInput, match="has no AzureLLM"):
        find_trace("azure-conv", tmp_path)


def test_blocks_shared_in_the_trace_are_shared_in_the_prompts() -> None:
    recorded = [Recorded(0, 1024, 512, (1, 2)), Recorded(1, 1536, 100, (1, 2, 3)), Recorded(2, 700, 5, (4, 5))]
    a, b, c = scaled(recorded, 1 / 32, IDS)
    assert (len(a.prompt), len(b.prompt), len(c.prompt)) == (32, 48, 22)
    assert b.prompt[:32] == a.prompt and c.prompt[:16] != a.prompt[:16]
    assert (a.seen, b.seen, c.seen, a.output, c.output) == (0, 32, 0, 16, 1)


def test_prompts_of_a_trace_without_blocks_are_its_own() -> None:
    one, two = scaled([Recorded(0, 100, 40), Recorded(1, 100, 4)], 0.25, IDS)
    assert len(one.prompt) == 25 and one.output == 10 and one.prompt != two.prompt
    assert scaled([Recorded(0, 100, 40)], 0.25, IDS, seed=1)[0].prompt != one.prompt


def data(name: str) -> Path:
    folder = paths().data
    if folder is None or not (folder / name).is_file():
        pytest.skip(f"PIPO_DATA has no {name}")
    return folder / name


def test_the_real_conversation_trace_is_read_as_published() -> None:
    path = data("AzureLLMInferenceTrace_conv.csv")
    found = read_recorded(path, 100_000)
    rows = path.read_text().splitlines()[1:]
    assert len(found) == len(rows) == 19_366
    stamps = [r.split(",")[0][:26] for r in rows]
    start = datetime.fromisoformat(stamps[0])
    for i in (0, 1, 57, 9_999, 19_365):
        want = (datetime.fromisoformat(stamps[i]) - start).total_seconds()
        assert found[i].at_s == pytest.approx(want, abs=2e-6)
        assert (found[i].input, found[i].output) == tuple(int(x) for x in rows[i].split(",")[1:])


def test_the_real_mooncake_trace_shares_what_it_recorded() -> None:
    path = data("mooncake_conversation_trace.jsonl")
    found = read_recorded(path, 300)
    lines = [json.loads(line) for line in path.read_text().splitlines()[:300]]
    assert [r.at_s for r in found] == [line["timestamp"] / 1000 for line in lines]
    requests = read_trace(path, 300, 16, IDS)
    assert [len(r.prompt) for r in requests] == [max(1, round(line["input_length"] / 32)) for line in lines]
    repeated, seen = 0, set()
    for line in lines:
        blocks = line["hash_ids"]
        repeated += next((i for i, h in enumerate(blocks) if h not in seen), len(blocks))
        seen |= set(blocks)
    total = sum(len(r.prompt) for r in requests)
    assert 0.05 < ideal(requests) == pytest.approx(16 * repeated / total, abs=0.01)
