"""What a summary says about differences and votes, on records written by hand."""

import msgspec
import pytest

from bench import compared, votes
from bench.record import Provenance, Run, SampleRecord, Variant
from bench.scoring import Items
from bench.summary import summarise
from pipo.engine.types import Method

ORIGIN = Provenance(
    settings_hash="0", git_commit="0", git_dirty=False, versions={}, device="cpu", cpu_count=1, threads=1, seed=3,
    engine="torch", started="now",
)  # fmt: skip
VARIANTS = [Variant(name, "m", Method("regular")) for name in ("base", "better", "same")]
BUDGETS = {t: {"tight": 4, "loose": 8} for t in ("t", "u")}
RUN = Run(kind="compare", spec={}, provenance=ORIGIN, variants=VARIANTS, budgets=BUDGETS)


def sample(variant: str, task: str, item: int, number: int, correct: bool, answer: str | None = None) -> SampleRecord:
    return SampleRecord(
        variant=variant, task=task, item=f"i{item}", sample=number, seed=1, correct=correct, slots=2 + item % 3,
        answer=answer if answer is not None else "7" if correct else str(number), tokens=3, steps=2,
    )  # fmt: skip


def records(items: int = 24, k: int = 4) -> list[SampleRecord]:
    """``better`` solves in addition every third sample; ``same`` solves what ``base`` solves, one question aside."""
    out = []
    for task in ("t", "u"):
        for i in range(items):
            for s in range(k):
                base = (i + s) % 4 == 0 or i % 5 == 0
                out.append(sample("base", task, i, s, base))
                out.append(sample("better", task, i, s, base or (i + s) % 3 == 0))
                out.append(sample("same", task, i, s, base if i else not base))
    return out


def gap(summary: dict, variant: str, metric: str, task: str = "overall") -> dict:  # type: ignore[type-arg]
    wanted = {"variant": variant, "metric": metric, "task": task, "budget": "loose"}
    (found,) = [d for d in summary["differences"] if {**d, **wanted} == d]
    return found


@pytest.fixture(scope="module")
def summary() -> dict:  # type: ignore[type-arg]
    return summarise(RUN, records(), k=4, pass_at=[1, 4], references=["base"])


def test_a_settled_difference_has_a_small_p_and_needs_nothing(summary: dict) -> None:  # type: ignore[type-arg]
    found = gap(summary, "better", "avg")
    assert found["low"] > 0 and found["p"] < 0.001 and found["power"] is None
    assert found["bootstrap_low"] > 0
    assert found["p"] <= found["p_bh"] <= found["p_holm"]


def test_an_open_difference_says_what_three_points_would_need(summary: dict) -> None:  # type: ignore[type-arg]
    found = gap(summary, "same", "avg")
    assert found["low"] < 0 < found["high"] and found["p"] > 0.05
    need = found["power"]
    assert need["points"] == compared.POINTS and need["k"] == 4
    assert need["questions"] > found["n"] * (need["detectable"] / 0.03) ** 2 * 0.8


def test_mcnemar_counts_questions_over_tasks(summary: dict) -> None:  # type: ignore[type-arg]
    single, both = gap(summary, "better", "avg", "t")["mcnemar"], gap(summary, "better", "avg")["mcnemar"]
    first = sum(not (i % 4 == 0 or i % 5 == 0) and i % 3 == 0 for i in range(24))
    assert (single["only"], single["only_reference"]) == (first, 0)
    assert (both["only"], both["p"]) == (2 * first, pytest.approx(2 / 2 ** (2 * first)))
    assert gap(summary, "better", "slots")["mcnemar"] is None
    assert gap(summary, "better", "slots")["power"] is None


def test_corrections_know_how_many_differences_were_looked_at(summary: dict) -> None:  # type: ignore[type-arg]
    """Two variants under two budgets are four differences over all tasks; tasks by themselves are eight."""
    for overall, count in ((True, 4), (False, 8)):
        family = [d for d in summary["differences"] if d["metric"] == "avg" and (d["task"] == "overall") is overall]
        assert len(family) == count
        least = min(family, key=lambda d: d["p"])
        assert least["p_holm"] == pytest.approx(min(1.0, count * least["p"]))


def test_budgets_of_as_many_slots_are_looked_at_once() -> None:
    """A run whose tight budget is its loose one has every difference twice; they are one test each."""
    alike = msgspec.structs.replace(RUN, budgets={t: {"tight": 8, "loose": 8} for t in BUDGETS})
    found = summarise(alike, records(), k=4, pass_at=[1], references=["base"])["differences"]
    for overall, count in ((True, 2), (False, 4)):
        family = [d for d in found if d["metric"] == "avg" and (d["task"] == "overall") is overall]
        assert len(family) == 2 * count
        least = min(family, key=lambda d: d["p"])
        assert least["p_holm"] == pytest.approx(min(1.0, count * least["p"]))


def test_one_question_has_neither_p_nor_power() -> None:
    found = gap(summarise(RUN, records(1), k=4, pass_at=[1], references=["base"]), "same", "avg", "t")
    assert (found["p"], found["power"], found["p_holm"], found["bootstrap_low"]) == (None, None, None, None)


def items_of(rows: list[list[SampleRecord]]) -> Items:
    return {f"i{n}": row for n, row in enumerate(rows)}


def test_votes_leave_out_what_the_budget_cut() -> None:
    """Three samples say 7 (right) twice and 9 twice; the second 9 came too late, so 7 has the majority."""
    right = [sample("base", "t", 0, 0, True, "7"), sample("base", "t", 0, 1, True, " 7")]
    wrong = [sample("base", "t", 0, 2, False, "9"), sample("base", "t", 2, 3, False, "9")]
    found = votes.shares(items_of([right + wrong] * 2), 3, [4])
    assert found["maj@4"] is not None and found["maj@4"].value == 1.0
    tied = votes.shares(items_of([right + wrong] * 2), 8, [4])
    assert tied["maj@4"] is not None and tied["maj@4"].value == pytest.approx(0.5)


def test_no_majority_where_right_samples_have_no_answer() -> None:
    code = [msg for n in range(2) if (msg := sample("base", "t", 0, n, True))]
    for r in code:
        r.answer = None
    assert votes.shares(items_of([code, code]), 8, [1])["maj@1"] is None


def test_every_k_is_there_and_agrees_with_the_asked_ones(summary: dict) -> None:  # type: ignore[type-arg]
    for row in summary["rows"]:
        assert [e["value"] for e in row["pass_all"]] == sorted(e["value"] for e in row["pass_all"])
        assert row["pass_all"][0]["value"] == pytest.approx(row["avg"]["value"])
        assert row["pass_all"][3] == row["pass"]["4"]
        assert row["maj"]["1"]["value"] == pytest.approx(row["avg"]["value"])
