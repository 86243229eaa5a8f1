"""Times of requests, their percentiles and intervals, goodput, and the search for a rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.load import metrics, numbers, summary
from bench.load.records import PointRecord, RequestRecord
from bench.load.search import highest_rate


def request(
    index: int = 0, due: float = 0.0, first: float = 0.1, chunks: Any = ((0.1, 1), (0.2, 2), (0.4, 2)), **more: Any
):
    usual = {
        "point": "p", "variant": "v", "index": index, "due_s": due, "sent_s": due, "first_s": first,
        "ended_s": due + (chunks[-1][0] if chunks else 0.0), "chunk_s": [t for t, _ in chunks],
        "chunk_tokens": [n for _, n in chunks],
    }  # fmt: skip
    return RequestRecord(**(usual | more))


def point(**more: Any) -> PointRecord:
    usual = {"point": "p", "variant": "v", "mode": "rate", "load": 1.0, "requests": 4, "wall_s": 4.0}
    return PointRecord(**(usual | more))


def test_tokens_of_one_chunk_have_no_gap_and_the_chunk_has_one() -> None:
    r = request()
    assert metrics.gaps(r) == pytest.approx([0.1, 0.2])
    assert metrics.itl(r) == pytest.approx([0.1, 0.0, 0.2, 0.0])
    assert sum(metrics.itl(r)) == pytest.approx(sum(metrics.gaps(r)))
    assert metrics.longest_gap(r) == pytest.approx(0.2) and r.tokens == 5


def test_a_pair_in_the_first_chunk_has_a_gap_of_nothing() -> None:
    assert metrics.itl(request(chunks=((0.1, 2), (0.3, 1)))) == pytest.approx([0.0, 0.2])


def test_tpot_is_the_time_after_the_first_token_over_the_tokens_after_it() -> None:
    assert metrics.tpot(request()) == pytest.approx(0.3 / 4)
    assert metrics.tpot(request(chunks=((0.1, 1),))) == -1 and metrics.tpot(request(chunks=())) == -1


def test_the_first_token_may_come_before_the_rest_of_its_chunk() -> None:
    r = request(first=0.08, chunks=((0.1, 2), (0.2, 2)))
    assert metrics.tpot(r) == pytest.approx(0.12 / 3)


@pytest.mark.parametrize(
    ("slo", "kept"),
    [({"ttft": 0.1}, True), ({"ttft": 0.09}, False), ({"tpot": 0.075}, True), ({"tpot": 0.07}, False),
     ({"gap": 0.19}, False), ({"e2e": 0.4, "ttft": 0.2}, True), ({"e2e": 0.39, "ttft": 0.2}, False)],
)  # fmt: skip
def test_an_slo_is_met_where_all_limits_are(slo: dict[str, float], kept: bool) -> None:
    assert metrics.meets(request(), {k: v + 1e-9 for k, v in slo.items()}) is kept
    assert not metrics.meets(request(status="failed"), slo)


def test_one_token_has_no_pace_to_miss() -> None:
    assert metrics.meets(request(chunks=((0.1, 1),)), {"tpot": 1e-6})


def test_percentiles_stand_only_where_a_request_lies_beyond_them() -> None:
    few, many = numbers.percentiles(range(15)), numbers.percentiles(range(100))
    assert few is not None and many is not None
    assert few["p50"]["value"] == 7 and few["p90"] is not None and few["p95"] is None and few["p99"] is None
    assert many["p99"]["value"] == pytest.approx(98.01) and many["p50"]["low"] < 49.5 < many["p50"]["high"]
    assert numbers.percentiles([]) is None


def test_one_value_has_no_interval() -> None:
    one = numbers.percentiles([3.0])
    assert one is not None and one["p50"] == {"value": 3.0, "low": None, "high": None}


def test_pooled_percentiles_are_those_of_all_values() -> None:
    groups = [[float(i + j) for j in range(i % 5)] for i in range(60)]
    found = numbers.pooled(groups)
    flat = [v for g in groups for v in g]
    assert found is not None and found["n"] == len(flat)
    assert found["p90"]["value"] == pytest.approx(np.quantile(flat, 0.9))
    assert found["p90"]["low"] <= found["p90"]["value"] <= found["p90"]["high"]
    assert numbers.pooled([]) is None and numbers.pooled([[], []]) is None


@pytest.mark.slow
@pytest.mark.parametrize(("load", "least", "plain_most"), [(0.5, 0.8, 0.8), (0.8, 0.6, 0.42)])
def test_intervals_cover_the_median_of_a_queue_more_often_than_plain_ones(
    load: float, least: float, plain_most: float
) -> None:
    """Times in an M/M/1 queue, 300 runs of 200 requests: neighbours hang together, the more the higher the load."""
    rng = np.random.default_rng(3)

    def times(n: int) -> Any:
        gap, work = rng.exponential(1 / load, n), rng.exponential(1.0, n)
        out = np.zeros(n)
        for i in range(1, n):
            out[i] = max(0.0, out[i - 1] + work[i - 1] - gap[i])
        return out + work

    truth = float(np.median(times(300_000)))
    ours = plain = 0
    for _ in range(300):
        x = times(500)[300:]
        found = numbers.percentiles(x)
        assert found is not None
        ours += found["p50"]["low"] <= truth <= found["p50"]["high"]
        medians = np.median(x[rng.integers(0, x.size, (300, x.size))], axis=1)
        low, high = np.quantile(medians, (0.025, 0.975))
        plain += low <= truth <= high
    said = f"blocks cover {ours / 3:.1f}%, single requests {plain / 3:.1f}%"
    assert ours / 300 > least and plain / 300 < plain_most and ours > plain, said


def test_a_share_of_all_has_wilsons_interval_and_one_in_bursts_a_wider_one() -> None:
    all_ = numbers.share([True] * 100)
    assert all_.value == 1.0 and all_.low is not None and 0.96 < all_.low < 0.97 and all_.high == 1.0
    even, burst = [i % 4 != 0 for i in range(200)], [i >= 50 for i in range(200)]
    a, b = numbers.share(even), numbers.share(burst)
    assert a.value == b.value == 0.75 and a.low is not None and b.low is not None and b.low < a.low - 0.05


def test_a_paired_ratio_is_taken_within_each_request() -> None:
    slow = np.array([1.0, 10.0, 100.0, 1000.0])
    e = numbers.ratio(2 * slow, slow)
    assert e.value == 2.0 and e.low == e.high == 2.0 and e.n == 4


def test_times_that_a_queue_moves_together_are_told_from_those_it_does_not() -> None:
    rng = np.random.default_rng(0)
    apart, tied = np.exp(rng.normal(size=200)), np.exp(np.cumsum(rng.normal(size=200)) / 5)
    assert abs(numbers.together(apart)) < 0.25 and numbers.together(tied) > 0.8
    assert numbers.together([1.0] * 50) == 0.0 and numbers.together([1.0, 2.0]) == 0.0


def test_goodput_counts_all_requests_and_rates_over_the_wall_time() -> None:
    requests = [request(i) for i in range(3)] + [request(3, status="timeout")]
    found = summary.goodput(point(), requests, {"ttft": 0.2})
    assert found is not None and found["share"]["value"] == 0.75 and found["rate_s"] == 0.75
    assert summary.goodput(point(), requests, {}) is None


def test_the_series_counts_every_request_once() -> None:
    requests = [request(i, due=0.5 * i) for i in range(8)]
    rows = summary.series(point(wall_s=4.0), requests)
    assert sum(r["due"] for r in rows) == 8 and sum(r["ended"] for r in rows) == 8
    assert max(r["in_flight"] for r in rows) == 1 and any(r["ttft"] is None for r in rows)


def truth(limit: float) -> Any:
    tried: list[float] = []

    def probe(rate: float) -> dict[str, Any]:
        tried.append(rate)
        return {"value": 1.0 if rate <= limit else 0.5}

    return probe, tried


@pytest.mark.parametrize("limit", [0.03, 1.0, 7.3, 950.0])
def test_the_search_finds_the_limit_from_both_sides(limit: float) -> None:
    probe, tried = truth(limit)
    found = highest_rate(probe, 2.0, 0.95, 1.1)
    assert found["rate"] <= limit < found["next"] <= 1.1 * found["rate"] * 1.01
    assert len(tried) == len(set(tried)) <= 2 + 2 * abs(math.log2(limit / 2)) + 4
    assert [p["rate"] for p in found["probes"]] == tried


def test_a_search_that_nothing_meets_says_so() -> None:
    found = highest_rate(truth(0.0)[0], 2.0, 0.95, 1.1)
    assert found["rate"] is None and found["share"] is None and found["next"] <= 2 / 128


def test_a_search_without_an_end_stops() -> None:
    found = highest_rate(truth(1e30)[0], 2.0, 0.95, 1.1)
    assert found["next"] is None and found["rate"] == pytest.approx(2 * 2**14, rel=0.01)
