"""Diffs of load runs: the same requests, points that meet, what is not settled near saturation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import record
from bench.diff import Settings, compare
from bench.diff_load import faster_apart, faster_paired
from bench.load.records import PointRecord, RequestRecord
from bench.record import Run, Variant
from pipo.engine.types import Method
from pipo.errors import BadInput
from reports import diff
from tests.unit.diff_sides import origin

RNG = np.random.default_rng(2)
FIRST = np.exp(RNG.normal(-2, 0.4, 80))


def load(
    path: Path, points: dict[tuple[str, float], np.ndarray], spec: dict[str, Any] | None = None, *, failed: int = 0,
    due: float = 1.0, **rest: Any,
) -> Path:  # fmt: skip
    """A load run: first tokens of each point's requests; four tokens follow, each in a tenth of that time."""
    path.mkdir()
    run = Run(kind="load", spec={"kind": "load", "arrivals": "poisson", **(spec or {})}, provenance=origin(**rest),
              variants=[Variant(n, "m", Method("regular")) for n in dict.fromkeys(n for n, _ in points)])  # fmt: skip
    found: list[Any] = []
    for (name, rate), times in points.items():
        point = f"{name}@{rate:g}"
        for i, t in enumerate(times.tolist()):
            bad = i < failed
            found.append(RequestRecord(
                point=point, variant=name, index=i, due_s=due * i, sent_s=due * i, ended_s=due * i + 1.4 * t,
                status="failed" if bad else "ok", first_s=-1.0 if bad else t, pair_s=-1.0 if bad else 1.1 * t,
                chunk_s=[] if bad else [t * (1 + 0.1 * j) for j in range(5)], chunk_tokens=[] if bad else [1] * 5,
            ))  # fmt: skip
        found.append(PointRecord(point=point, variant=name, mode="rate", load=rate, requests=len(times), wall_s=99.0))
    record.write_json(path / "run.json", run)
    record.append(path / "records.jsonl", found)
    record.write_json(path / "summary.json", {"schema": 1, "kind": "load"})
    return path


def noisy(times: np.ndarray, factor: float = 1.0) -> np.ndarray:
    return factor * times * np.exp(0.05 * RNG.normal(size=times.size))


def test_times_are_ratios_over_the_same_requests(tmp_path: Path) -> None:
    a = load(tmp_path / "a", {("x", 2.0): FIRST, ("x", 4.0): FIRST})
    b = load(tmp_path / "b", {("x", 2.0): noisy(FIRST, 1.3), ("x", 8.0): FIRST}, device="H100")
    found = compare(a, b, Settings())
    assert [(r["metric"], r["how"], r["load"]) for r in found["rows"]] == [
        ("ttft", "paired", 2.0), ("tpot", "paired", 2.0), ("ok", "paired", 2.0)]  # fmt: skip
    first = found["rows"][0]
    assert first["value"] == pytest.approx(1.3, rel=0.03) and 1.2 < first["low"] < first["high"] < 1.4
    assert found["failed"] == [0, 1] and found["rows"][2]["value"] == 0.0
    assert any("2 points of one run only" in n for n in found["notes"]) and any(
        "devices differ" in n for n in found["notes"]
    )
    assert compare(a, b, Settings(margin=50))["failed"] == []
    text = diff.page(found)
    assert (
        "| x | 2 a second | TTFT |" in text
        and "**Worse:** 2 of 3 comparisons, after Holm: x at 2 a second, TTFT 1." in text
    )


def test_requests_that_fail_are_worse(tmp_path: Path) -> None:
    a = load(tmp_path / "a", {("x", 2.0): FIRST})
    b = load(tmp_path / "b", {("x", 2.0): FIRST}, failed=20)
    row = compare(a, b, Settings(metrics=["ok"]))["rows"][0]
    assert (row["a"], row["b"], row["value"], row["failed"]) == (1.0, 0.75, -0.25, True)
    assert compare(a, b, Settings(metrics=["ttft"]))["rows"][0]["n"] == 60, (
        "times of those that ended well on both sides"
    )


def test_other_arrivals_are_unpaired(tmp_path: Path) -> None:
    a, b = (load(tmp_path / n, {("x", 2.0): FIRST}, due=d) for n, d in (("a", 1.0), ("b", 2.0)))
    found = compare(a, b, Settings(metrics=["ttft", "ok"]))
    assert {r["how"] for r in found["rows"]} == {"unpaired"} and found["rows"][0]["value"] == pytest.approx(1.0)
    assert any("other times of arrival" in n for n in found["notes"])


def test_requests_that_move_together_have_no_interval(tmp_path: Path) -> None:
    """A random walk of the ratio, as of two long queues: nothing is settled, and non-inferiority is not shown."""
    walk = np.exp(np.cumsum(0.1 * RNG.normal(size=FIRST.size)))
    a, b = load(tmp_path / "a", {("x", 2.0): FIRST}), load(tmp_path / "b", {("x", 2.0): 3 * FIRST * walk})
    found = compare(a, b, Settings(metrics=["ttft"]))
    assert (found["rows"][0]["low"], found["rows"][0]["settled"], found["failed"]) == (None, "not settled", [])
    assert any("move together" in n for n in found["notes"])
    assert compare(a, b, Settings(metrics=["ttft"], margin=5, non_inferiority=True))["failed"] == [0]


@pytest.mark.parametrize("key", ["task", "trace", "speedup", "arrivals", "input_tokens", "output_tokens"])
def test_other_loads_do_not_compare(key: str, tmp_path: Path) -> None:
    a, b = load(tmp_path / "a", {("x", 2.0): FIRST}), load(tmp_path / "b", {("x", 2.0): FIRST}, {key: "other"})
    with pytest.raises(BadInput, match="the runs differ in"):
        compare(a, b, Settings())


def test_no_load_in_common(tmp_path: Path) -> None:
    a, b = (load(tmp_path / n, {("x", rate): FIRST}) for n, rate in (("a", 2.0), ("b", 3.0)))
    with pytest.raises(BadInput, match="no load in common"):
        compare(a, b, Settings())
    with pytest.raises(BadInput, match="--task"):
        compare(a, a, Settings(tasks=["t"]))


def test_few_requests_give_a_ratio_and_no_interval() -> None:
    one = np.array([1.0])
    assert faster_paired(2 * one, one)[0].low is None and faster_apart(2 * one, one)[0].low is None
    assert faster_paired(FIRST, FIRST)[0].low is None, "nothing varies"
