"""Budget curves and costs: against scoring sample by sample, the rows of the same summary, and known truth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bench import budget, costs, scoring, stats
from bench.record import Provenance, Record, Run, SampleRecord, ThroughputRecord, Variant
from bench.summary import summarise
from pipo.engine.types import Method

ORIGIN = Provenance(
    settings_hash="0", git_commit="0", git_dirty=False, versions={}, device="cpu", cpu_count=1, threads=1, seed=3,
    engine="torch", started="now",
)  # fmt: skip
VARIANTS = [Variant("regular", "m", Method("regular")), Variant("pipo", "p", Method("pipo"))]
BUDGETS = {"t": {"tight": 20, "loose": 64}, "u": {"tight": 16, "loose": 32}}
RUN = Run(kind="compare", spec={}, provenance=ORIGIN, variants=VARIANTS, budgets=BUDGETS)
WALLS = {("regular", "t"): 6.0, ("regular", "u"): 4.0, ("pipo", "t"): 3.0, ("pipo", "u"): 2.5}
Summary = dict[str, Any]


def records(k: int = 4, items: int = 12, seed: int = 0) -> list[Record]:
    """Samples of random length; pairs take half of the slots. Items come in another order for each variant."""
    rng = np.random.default_rng(seed)
    out: list[Record] = []
    for task, sizes in BUDGETS.items():
        for variant, pair in (("regular", 1), ("pipo", 2)):
            for i in rng.permutation(items):
                for s in range(k):
                    slots = int(rng.integers(3, 1.4 * sizes["loose"]) / pair)
                    cut = slots >= sizes["loose"]
                    slots = min(slots, sizes["loose"])
                    out.append(SampleRecord(
                        variant=variant, task=task, item=f"i{i}", sample=s, seed=1, slots=slots, steps=slots,
                        tokens=pair * slots, finish="slots" if cut else "eos", places=[5] * (pair * slots), pad_id=0,
                        correct=not cut and bool(rng.random() < 0.5),
                    ))  # fmt: skip
            wall = WALLS[variant, task] / 2
            out += [ThroughputRecord(variant=variant, task=task, batch=8, wall_s=wall, tokens=9, slots=9, steps=9)] * 2
    return out


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise(RUN, records(), k=4, pass_at=[1, 4], references=["regular"])


def one(rows: list[Summary], **wanted: Any) -> Summary:
    (found,) = [r for r in rows if {**r, **wanted} == r]
    return found


def of(variant: str, task: str) -> list[SampleRecord]:
    return [r for r in records() if isinstance(r, SampleRecord) and (r.variant, r.task) == (variant, task)]


@pytest.mark.parametrize("axis", budget.AXES)
@pytest.mark.parametrize("variant", ["regular", "pipo"])
def test_curves_are_what_each_budget_alone_would_have_given(summary: Summary, axis: str, variant: str) -> None:
    """Every point of the curve, sample by sample, from a run that is cut there."""
    rows = of(variant, "t")
    share = WALLS[variant, "t"] / sum(r.steps for r in rows)
    spent = {"slots": lambda r: r.slots, "tokens": lambda r: r.tokens, "device_s": lambda r: r.steps * share}[axis]
    curve = one(summary["curves"], variant=variant, task="t", axis=axis)
    for i, b in enumerate(curve["budgets"]):
        groups: dict[str, list[bool]] = {}
        for r in rows:
            groups.setdefault(r.item, []).append(r.correct and spent(r) <= b * (1 + 1e-9))
        assert curve["avg"]["value"][i] == pytest.approx(np.mean([np.mean(g) for g in groups.values()]), abs=1e-5)
        best = np.mean([stats.pass_at_k(4, sum(g), 4) for g in groups.values()])
        assert curve["pass"]["value"][i] == pytest.approx(best, abs=1e-5)
        assert curve["used"][i] == pytest.approx(np.mean([min(spent(r), b) for r in rows]), rel=1e-5)


@pytest.mark.parametrize("task", ["t", "u", "overall"])
def test_the_end_of_the_slot_curve_is_the_row_of_the_loose_budget(summary: Summary, task: str) -> None:
    for variant in ("regular", "pipo"):
        curve = one(summary["curves"], variant=variant, task=task, axis="slots")
        row = one(summary["rows"], variant=variant, task=task, budget="loose")
        assert curve["avg"]["value"][-1] == pytest.approx(row["avg"]["value"], abs=1e-5)
        for side in ("low", "high"):
            assert curve["pass"][side][-1] == pytest.approx(row["pass"]["4"][side], abs=1e-5)
        assert curve["cut"][-1] == pytest.approx(row["truncated"]["value"], abs=1e-5)
        assert curve["used"][-1] == pytest.approx(row["slots"]["value"], rel=1e-5)


def test_curves_never_fall_and_start_at_a_sixteenth(summary: Summary) -> None:
    for curve in summary["curves"]:
        assert curve["fractions"][0] == pytest.approx(1 / 16, abs=1e-6) and curve["fractions"][-1] == 1.0
        for part in ("avg", "pass"):
            assert curve[part]["value"] == sorted(curve[part]["value"]), curve
    assert one(summary["curves"], variant="pipo", task="overall", axis="slots")["budgets"] is None
    assert one(summary["curves"], variant="pipo", task="t", axis="tokens")["budgets"][-1] == 64.0


def test_seconds_end_where_the_first_sample_was_cut(summary: Summary) -> None:
    """Nobody knows how a sample that the slots cut would have gone on, so no variant is shown beyond."""
    cheapest = min(
        WALLS[v, "t"] / sum(r.steps for r in of(v, "t")) * r.steps
        for v in ("regular", "pipo") for r in of(v, "t") if r.finish == "slots"
    )  # fmt: skip
    for variant in ("regular", "pipo"):
        curve = one(summary["curves"], variant=variant, task="t", axis="device_s")
        assert curve["budgets"][-1] == pytest.approx(cheapest)


def test_device_seconds_share_out_the_whole_wall_clock() -> None:
    found = budget.collect(RUN, records())
    assert found["t"]["regular"].spent["device_s"].sum() == pytest.approx(6.0)
    assert found["t"]["regular"].names == found["t"]["pipo"].names


def test_without_times_there_are_slots_and_tokens_only() -> None:
    rows = [r for r in records() if isinstance(r, SampleRecord)]
    found = summarise(RUN, rows, k=4, pass_at=[4], references=["regular"])
    assert {c["axis"] for c in found["curves"]} == {"slots", "tokens"}
    assert found["equal_time"] == found["cost_ratios"] == []
    assert "device_s" not in found["costs"][0] and found["costs"][0]["slots"]["value"] > 0


@pytest.mark.parametrize("size", ["tight", "loose"])
def test_cost_of_a_right_answer(summary: Summary, size: str) -> None:
    rows, slots = of("pipo", "t"), BUDGETS["t"][size]
    right = sum(scoring.right(r, slots) for r in rows)
    found = one(summary["costs"], variant="pipo", task="t", budget=size)
    assert found["right"] == right
    assert found["slots"]["value"] == pytest.approx(sum(min(r.slots, slots) for r in rows) / right)
    assert found["tokens"]["value"] == pytest.approx(sum(scoring.tokens_within(r, slots) for r in rows) / right)
    seconds = 3.0 * sum(min(r.steps, slots) for r in rows) / sum(r.steps for r in rows)
    assert found["device_s"]["value"] == pytest.approx(seconds / right)
    assert found["device_s"]["low"] < found["device_s"]["value"] < found["device_s"]["high"]


def test_ratio_of_costs_is_that_of_the_costs_and_paired(summary: Summary) -> None:
    ratio = one(summary["cost_ratios"], variant="pipo", task="overall", budget="loose")
    a, b = (one(summary["costs"], variant=v, task="overall", budget="loose") for v in ("pipo", "regular"))
    assert ratio["value"] == pytest.approx(a["device_s"]["value"] / b["device_s"]["value"])
    twin = [r for r in records() if r.variant == "regular"]
    copies = [SampleRecord(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "variant": "pipo"})
              if isinstance(r, SampleRecord) else ThroughputRecord(variant="pipo", task=r.task, batch=8,  # type: ignore[union-attr]
                                                                   wall_s=r.wall_s / 2, tokens=1, slots=1, steps=1)
              for r in twin]  # fmt: skip
    same = summarise(RUN, [*twin, *reversed(copies)], k=4, pass_at=[4], references=["regular"])
    found = one(same["cost_ratios"], variant="pipo", task="overall", budget="loose")
    assert found["value"] == pytest.approx(0.5) and found["low"] in (None, pytest.approx(0.5))


def test_nothing_right_has_no_price() -> None:
    rows = [r for r in records() if isinstance(r, SampleRecord)]
    for r in rows:
        r.correct = False
    found = costs.spending(RUN, rows, [("pipo", "regular")], 4)
    assert all(c["slots"] == {"value": None, "low": None, "high": None} for c in found["costs"])
    assert costs.spending(RUN, [], [("pipo", "regular")], 4)["costs"] == []


def test_equal_time_gives_each_variant_the_samples_that_fit(summary: Summary) -> None:
    mean = {v: WALLS[v, "t"] / 48 for v in ("regular", "pipo")}  # 12 questions, 4 samples
    fast, slow = (one(summary["equal_time"], variant=v, task="t") for v in ("pipo", "regular"))
    assert fast["seconds"] == slow["seconds"] == pytest.approx(4 * mean["pipo"])
    assert fast["samples"] == pytest.approx(4.0)
    assert slow["samples"] == pytest.approx(4 * mean["pipo"] / mean["regular"]) == pytest.approx(2.0)
    curve = {v: one(summary["rows"], variant=v, task="t", budget="loose")["pass_all"] for v in ("regular", "pipo")}
    assert fast["value"] == pytest.approx(curve["pipo"][3]["value"])
    assert slow["value"] == pytest.approx(curve["regular"][1]["value"])
    gap = one(summary["equal_time_differences"], variant="pipo", task="t")
    assert gap["value"] == pytest.approx(fast["value"] - slow["value"]) and gap["low"] < gap["value"] < gap["high"]


def test_a_summary_is_plain_json(summary: Summary) -> None:
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize(("questions", "mean"), [(30, 0.3), (30, 0.6), (200, 0.1), (200, 0.6), (200, 0.9)])
def test_intervals_of_costs_cover(questions: int, mean: float) -> None:
    """Simulated questions: hard ones are seldom solved and take longer."""
    rng = np.random.default_rng(17)

    def draw(*size: int) -> tuple[np.ndarray, np.ndarray]:
        p = rng.beta(4 * mean, 4 * (1 - mean), size)
        return np.exp(rng.normal(0, 0.5, (*size, 4)) + 0.8 * (1 - p)[..., None]).sum(-1), rng.binomial(4, p)

    spent, right = draw(400_000)
    truth, hits, runs = spent.sum() / right.sum(), 0, 1000
    for cost, solved in zip(*draw(runs, questions), strict=True):
        found = costs._answer(costs._draws(cost, 0), costs._draws(solved.astype(float), 0), questions - 1)
        hits += (found["low"] or 0.0) <= truth <= (found["high"] or np.inf)
    assert 0.93 <= hits / runs <= 0.97, f"covers {100 * hits / runs:.1f}%"
