"""The grid's statistics: tokens a step as paired ratios, p corrected over a study's points, what must be equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ablations import grid_spec, grid_summary
from bench import stats, stats_paired
from bench.record import Record, SampleRecord
from bench.tasks import Item, Task
from pipo.engine.types import Method

REGULAR = {"name": "regular", "model": "lab/base", "method": "regular"}
EAGLE = {"name": "eagle", "model": "lab/base", "method": "eagle"}
PIPO = {"name": "pipo", "model": "lab/pipo-opd", "method": "pipo"}


def sample(item: int, number: int, steps: int, after: int, **more: Any) -> SampleRecord:
    """A regular sample of ``steps`` steps, with ``after`` tokens behind the first one."""
    return SampleRecord(
        variant=more.pop("variant", "v"), task="t", item=f"i{item:03d}", sample=number, seed=1, steps=steps,
        slots=1 + after, tokens=1 + after, ttft_s=0.1, token_times_s=[0.1, *[0.2] * after], **more,
    )  # fmt: skip


def questions(rng: np.random.Generator, n: int, rate: float, own: np.ndarray) -> list[list[SampleRecord]]:
    """n questions of two samples; each step gives one token and with a chance another one, ``own`` by question."""
    out = []
    for i in range(n):
        steps = rng.integers(5, 30, size=2)
        out.append([sample(i, j, int(s) + 1, int(s + rng.binomial(s, rate + own[i]))) for j, s in enumerate(steps)])
    return out


def test_values_by_question_have_the_ratios_mean_and_error() -> None:
    rng = np.random.default_rng(1)
    found = questions(rng, 40, 0.5, rng.uniform(-0.2, 0.2, 40))
    values = grid_summary.ratio_values(found, Method("regular"))
    steps = [float(sum(r.steps - 1 for r in s)) for s in found]
    plain = stats.ratio([float(sum(r.tokens - 1 for r in s)) for s in found], steps)
    assert values is not None and values.mean() == pytest.approx(plain.value)
    assert values.std(ddof=1) / np.sqrt(40) == pytest.approx(plain.se)


def test_the_paired_interval_covers_and_is_narrower_than_two_plain_ones() -> None:
    rng = np.random.default_rng(2)
    hits, widths, alone = 0, [], []
    for _ in range(400):
        own = rng.uniform(-0.3, 0.3, 50)
        sides = [grid_summary.ratio_values(questions(rng, 50, rate, own), Method("regular")) for rate in (0.6, 0.5)]
        one, two = sides
        assert one is not None and two is not None
        found = stats_paired.difference(one - two)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.1 <= found.high
        widths.append(found.high - found.low)
        alone.append(4 * np.sqrt(one.var(ddof=1) / 50 + two.var(ddof=1) / 50))
    assert 0.92 <= hits / 400 <= 0.98, f"covered {hits} of 400"
    assert np.mean(widths) < 0.8 * np.mean(alone)


def test_samples_of_one_step_have_no_ratio() -> None:
    assert grid_summary.ratio_values([[sample(0, 0, 1, 0)]], Method("regular")) is None


def study(*bases: dict[str, Any], axes: Sequence[dict[str, Any]] = ()) -> list[grid_spec.Point]:
    raw = {"question": "?", "reference": bases[0]["name"], "base": list(bases), "axis": list(axes), "k": 2}
    return grid_spec.expand(grid_spec.read(raw, "toy"))


def made(points: Sequence[grid_spec.Point], items: int = 30) -> dict[str, list[Record]]:
    """Random verdicts and lengths for every point."""
    rng = np.random.default_rng(3)
    return {
        p.name: [
            sample(i, j, 12, int(rng.integers(11, 22)), variant=p.name, correct=bool(rng.random() < 0.3 + 0.15 * n))
            for i in range(items) for j in range(2)
        ]
        for n, p in enumerate(points)
    }  # fmt: skip


TASKS = [Task("t", [Item("i0", "?", "1")], {"tight": 8, "loose": 64}, lambda text: text)]


def test_p_is_corrected_over_all_points_of_a_study() -> None:
    points = study(REGULAR, EAGLE, axes=[{"key": "depth", "values": [1, 2, 3], "only": ["eagle"]}])
    rows = grid_summary.differences(points, made(points), TASKS)
    metrics = {"avg", "pass@1", "pass@2", "slots", "tokens", "tokens_per_step"}
    assert {r["metric"] for r in rows} == metrics and {r["task"] for r in rows} == {"t", "overall"}
    for metric in metrics:
        family = [r for r in rows if r["metric"] == metric and r["task"] == "overall"]
        assert [r["variant"] for r in family] == ["eagle depth=1", "eagle depth=2", "eagle depth=3"]
        assert [r["p_holm"] for r in family] == stats_paired.holm([r["p"] for r in family]), metric
    assert any(r["p"] < 0.05 < r["p_holm"] for r in rows), "else the correction is not seen"


def test_differences_are_point_minus_reference() -> None:
    points = study(REGULAR, EAGLE)
    own = made(points)
    (row,) = [r for r in grid_summary.differences(points, own, TASKS) if (r["metric"], r["task"]) == ("avg", "overall")]
    shares = [np.mean([r.correct for r in own[p.name] if isinstance(r, SampleRecord)]) for p in points]
    assert row["value"] == pytest.approx(shares[1] - shares[0]) and row["reference"] == "regular"


@pytest.mark.parametrize(
    ("bases", "equal"),
    [
        ((REGULAR, EAGLE), ["eagle"]),
        ((REGULAR, PIPO), []),
        ((REGULAR, {**EAGLE, "temperature": 0.5}), []),
        ((REGULAR, {**EAGLE, "slots": 9}), []),
        (({**EAGLE, "depth": 1}, {**EAGLE, "name": "few", "draft_vocab": 32}), ["few"]),
        ((REGULAR, {**REGULAR, "name": "other", "model": "lab/control"}), []),
        ((REGULAR, {**EAGLE, "model": "lab/control"}), []),
        ((REGULAR, {**REGULAR, "name": "mtp", "method": "mtp"}), []),
    ],
)
def test_only_eagle_on_the_same_model_and_sampling_must_be_equal(bases: Any, equal: list[str]) -> None:
    points = study(*bases)
    own = made(points)
    found = grid_summary.lossless(points, own, grid_summary.differences(points, own, TASKS))
    assert [c["variant"] for c in found] == equal
    assert all(c["same"] is None for c in found), "sampled: tokens may differ"


def test_greedy_samples_with_other_tokens_are_counted() -> None:
    points = study({**REGULAR, "temperature": 0}, {**EAGLE, "temperature": 0})
    own = made(points)
    for r in own["eagle"][:3]:
        assert isinstance(r, SampleRecord)
        r.places = [99]
    (check,) = grid_summary.lossless(points, own, [])
    assert (check["greedy"], check["samples"], check["same"]) == (True, 60, 57)


@pytest.mark.parametrize(
    ("k", "asked", "found"),
    [
        (1, None, [1]),
        (4, None, [1, 2, 4]),
        (8, None, [1, 2, 4, 8]),
        (3, None, [1, 2, 3]),
        (2, [1, 4], [1]),
        (8, [5], [5]),
    ],
)
def test_pass_at_all_samples_is_always_there_unless_others_are_asked_for(k: int, asked: Any, found: list[int]) -> None:
    assert grid_summary.pass_at(k, asked) == found
