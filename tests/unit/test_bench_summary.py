"""Scoring and summaries on records written by hand."""

import pytest

from bench import acceptance, scoring
from bench.record import Provenance, Record, Run, SampleRecord, ThroughputRecord, Variant
from bench.summary import summarise, throughput
from bench.timing import Trace, tpot
from pipo.engine.types import Draft, Event, Method
from pipo.errors import BadInput

VARIANTS = [Variant("regular", "m", Method("regular")), Variant("pipo", "p", Method("pipo"))]
ORIGIN = Provenance(
    settings_hash="0", git_commit="0", git_dirty=False, versions={}, device="cpu", cpu_count=1, threads=1, seed=3,
    engine="torch", started="now",
)  # fmt: skip
RUN = Run(kind="compare", spec={}, provenance=ORIGIN, variants=VARIANTS, budgets={"t": {"tight": 2, "loose": 4}})


def sample(variant: str, item: str, number: int, correct: bool, slots: int = 2, finish: str = "eos") -> SampleRecord:
    pair = variant == "pipo"
    places = [5, 0] * slots if pair else [5] * slots
    return SampleRecord(
        variant=variant, task="t", item=item, sample=number, seed=1, places=places, pad_id=0, correct=correct,
        finish=finish, slots=slots, tokens=slots, steps=slots, ttft_s=1.0, first_pair_s=1.5,
        token_times_s=[1.0 + 0.5 * i for i in range(slots)],
        drafts=[Draft(7, False, 0.1)] * (slots - 1) if pair else [], error="broke" if finish == "failed" else None,
    )  # fmt: skip


def records() -> list[Record]:
    regular = [sample("regular", "a", 0, True), sample("regular", "a", 1, False), sample("regular", "b", 0, True, 3),
               sample("regular", "b", 1, False, 4, "slots")]  # fmt: skip
    pipo = [sample("pipo", "a", 0, True), sample("pipo", "a", 1, True), sample("pipo", "b", 0, False),
            sample("pipo", "b", 1, False, 0, "failed")]  # fmt: skip
    speed = [ThroughputRecord(variant="regular", task="t", batch=4, wall_s=2.0, tokens=9, slots=9, steps=4)] * 2
    return [*regular, *pipo, *speed]


def row(variant: str, budget: str, task: str = "t") -> dict:  # type: ignore[type-arg]
    summary = summarise(RUN, records(), k=2, pass_at=[1, 2], references=["regular"])
    (found,) = [r for r in summary["rows"] if (r["variant"], r["budget"], r["task"]) == (variant, budget, task)]
    return found


def test_quality_under_both_budgets() -> None:
    loose, tight = row("regular", "loose"), row("regular", "tight")
    assert loose["avg"]["value"] == 0.5 and loose["pass"]["2"]["value"] == 1.0
    assert tight["avg"]["value"] == 0.25 and tight["pass"]["2"]["value"] == 0.5, "3 slots > 2: cut, so wrong"
    assert (loose["truncated"]["value"], tight["truncated"]["value"]) == (0.25, 0.5)
    assert loose["slots"]["value"] == (2 + 2 + 3 + 4) / 4 and tight["slots"]["value"] == 2.0
    assert loose["items"] == 2 and loose["samples"] == 4


def test_a_failed_generation_is_counted_and_shown() -> None:
    found = row("pipo", "loose")
    assert found["failed"] == 1 and found["samples"] == 4
    assert found["avg"]["value"] == 0.5, "the failed sample stays in the average, as wrong"
    assert summarise(RUN, records(), k=2, pass_at=[1])["failures"] == [
        {"variant": "pipo", "task": "t", "item": "b", "sample": 1, "error": "broke"}
    ]


def test_pads_are_no_tokens_within_a_budget() -> None:
    long = sample("pipo", "a", 0, True, slots=4)
    assert scoring.tokens_within(long, 2) == 2, "two slots of (5, PAD)"
    assert scoring.tokens_within(sample("regular", "a", 0, True, slots=4), 3) == 3


def test_overall_is_the_mean_over_tasks_and_failures_add_up() -> None:
    run = Run(kind="compare", spec={}, provenance=ORIGIN, variants=VARIANTS[:1],
              budgets={"t": {"tight": 2, "loose": 4}, "u": {"tight": 1, "loose": 4}})  # fmt: skip
    other = [SampleRecord(variant="regular", task="u", item=i, sample=0, seed=0, correct=True, slots=1) for i in "ab"]
    summary = summarise(run, [*records(), *other], k=1, pass_at=[1])
    overall = {r["budget"]: r for r in summary["rows"] if r["task"] == "overall"}
    assert overall["loose"]["avg"]["value"] == pytest.approx((0.5 + 1.0) / 2)
    assert overall["tight"]["avg"]["value"] == pytest.approx((0.25 + 1.0) / 2)
    assert overall["loose"]["items"] == 4
    assert overall["loose"]["throughput"]["tokens_s"] == pytest.approx(4.5)


def test_differences_are_paired_by_item() -> None:
    summary = summarise(RUN, records(), k=2, pass_at=[1, 2], references=["regular"])
    key = {"variant": "pipo", "reference": "regular", "task": "t", "budget": "loose"}
    (avg,) = [d for d in summary["differences"] if {**d, **key, "metric": "avg"} == d]
    assert (avg["value"], avg["n"]) == (0.0, 2)
    assert avg["se"] == pytest.approx(0.5), "items differ by +0.5 and -0.5"
    (p2,) = [d for d in summary["differences"] if {**d, **key, "metric": "pass@2"} == d]
    assert p2["value"] == -0.5
    assert not [d for d in summary["differences"] if d["variant"] == d["reference"]]


def test_speed_of_a_batch() -> None:
    found = row("regular", "loose")
    assert found["throughput"] | {"low": 0, "high": 0} == {
        "tokens_s": 4.5, "low": 0, "high": 0, "full_tokens_s": None, "tokens": 18, "wall_s": 4.0,
    }  # fmt: skip
    assert found["ttft_s"]["p50"] == 1.0 and found["tpot_s"]["p50"] == 0.5
    assert found["tpot16_s"] is None, "no sample has 16 tokens"
    assert found["acceptance"]["value"] == 1.0


def test_no_interval_leaves_what_can_be() -> None:
    """Two questions, or two stretches of time, have intervals far beyond a share of 1 and below a speed of 0."""
    rates = [ThroughputRecord(variant="v", task="t", batch=1, wall_s=1.0, tokens=n, slots=n, steps=n) for n in (1, 99)]
    found = throughput(rates)
    assert found and found["low"] == 0.0 and found["high"] > 100
    summary = summarise(RUN, records(), k=2, pass_at=[1, 2], references=["regular"])
    gaps = [d for d in summary["differences"] if d["metric"] in ("avg", "pass@2")]
    assert any(d["low"] == -1.0 for d in gaps)
    assert all(-1.0 <= d[side] <= 1.0 for d in gaps for side in ("low", "high") if d[side] is not None)


def chain_sample(item: str, number: int, kept: str) -> SampleRecord:
    """An eagle sample whose drafts were kept (1) or not (0) as ``kept`` says."""
    r = sample("eagle", item, number, True, slots=len(kept) + 1)
    r.drafts = [Draft(7, c == "1") for c in kept]
    return r


def test_acceptance_by_position_is_given_that_all_earlier_drafts_were_accepted() -> None:
    method = Method("eagle", depth=3)
    run = Run(kind="compare", spec={}, provenance=ORIGIN, variants=[Variant("eagle", "m", method)],
              budgets={"t": {"tight": 2, "loose": 99}})  # fmt: skip
    # chains: 110, 000, 1 (cut by the end); and 111, 100
    rows = [chain_sample("a", 0, "1100001"), chain_sample("b", 0, "111100")]
    summary = summarise(run, rows, k=1, pass_at=[1])
    for found in summary["rows"]:
        first, second, third = found["acceptance_by_position"]
        assert [first["value"], second["value"], third["value"]] == [4 / 5, 2 / 3, 1 / 2], found["task"]
        assert first["n"] == 2 and first["low"] < first["value"] < first["high"]
    assert acceptance.by_position(method, {"a": [chain_sample("a", 0, "000")]})[1:] == [None, None]  # type: ignore[index]
    assert row("regular", "loose")["acceptance_by_position"] is None


def test_pass_at_beyond_the_samples_names_both() -> None:
    assert scoring.check_pass_at(None, 3) == [1, 2]
    assert scoring.check_pass_at([4, 1], 4) == [1, 4]
    with pytest.raises(BadInput, match=r"k is 8, n \(samples an item\) is 4"):
        scoring.check_pass_at([8], 4)
    with pytest.raises(BadInput, match="k 0 "):
        scoring.check_pass_at(None, 0)


def test_time_per_token_counts_between_step_ends() -> None:
    alone = [float(i) for i in range(32)]
    assert tpot(alone, 0.0, 16) == tpot(alone, 0.0) == 1.0
    pairs = [float(i // 2) for i in range(32)]
    assert tpot(pairs, 0.0, 16) == 0.5, "the second token of the first pair is not credited"
    assert tpot(alone[:10], 0.0, 16) == -1.0
    assert tpot([3.0], 3.0) == -1.0


def test_a_trace_keeps_times_from_submission() -> None:
    trace = Trace(10.0, Method("pipo"))
    trace.add(Event(request_id="r", time=12.0, tokens=(5,)), 3)
    trace.add(Event(request_id="r", time=12.5, tokens=(6,), places=(5, 6), slots=1, drafts=(Draft(6, True, 0.9),)), 3)
    trace.add(Event(request_id="r", time=13.5, tokens=(7,), places=(7, 0), slots=1, finish="eos"), 4)
    assert (trace.ttft, trace.first_pair, trace.times) == (2.0, 2.5, [2.0, 2.5, 3.5])
    assert (trace.tokens, trace.slots, trace.steps, trace.finish) == ([5, 6, 7], 2, 2, "eos")
    assert trace.tpot() == 1.0, "from the end of the first step: the first draft is not credited"
    regular = Trace(0.0, Method("regular"))
    regular.add(Event(request_id="r", time=1.0, tokens=(5,), places=(5,), slots=1), 0)
    regular.add(Event(request_id="r", time=2.0, tokens=(6,), places=(6,), slots=1), 1)
    assert (regular.ttft, regular.first_pair, regular.steps) == (1.0, 2.0, 2)
