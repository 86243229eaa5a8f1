"""Diffs of two runs: what they say, against the summary's own differences and by hand; what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import diff_stats as ds
from bench import record, stats, stats_paired
from bench.diff import Settings, compare
from bench.record import SampleRecord
from bench.stats import Estimate
from bench.summary import differences
from pipo.errors import BadInput, BadRecord
from tests.unit.diff_sides import chances, drawn, folder, header, latency, samples, write

RNG = np.random.default_rng(5)
P = chances(RNG, 40)
OLD = {("x", "t"): drawn(RNG, P), ("x", "u"): drawn(RNG, P[:20])}
BETTER = {key: table | (RNG.random(table.shape) < 0.5) for key, table in OLD.items()}
Row = dict[str, Any]


def one(rows: list[Row], **wanted: Any) -> Row:
    (found,) = [r for r in rows if {**r, **wanted} == r]
    return found


def test_a_paired_row_is_the_difference_of_a_comparison(tmp_path: Path) -> None:
    """The same verdicts as two variants of one run: value, interval, p, bootstrap and McNemar are the summary's."""
    found = compare(folder(tmp_path / "a", OLD), folder(tmp_path / "b", BETTER), Settings(metrics=["avg", "pass@4"]))
    both = {("old", t): v for (_, t), v in OLD.items()} | {("new", t): v for (_, t), v in BETTER.items()}
    for theirs in differences(header(both), samples(both), [("new", "old")], [4]):
        if theirs["budget"] == "loose" and theirs["metric"] in ("avg", "pass@4"):
            ours = one(found["rows"], task=theirs["task"], metric=theirs["metric"])
            for key in ("value", "low", "high", "p", "bootstrap_low", "bootstrap_high"):
                assert ours[key] == pytest.approx(theirs[key]), key
            assert ours["mcnemar"][0] == theirs["mcnemar"]
            assert len(ours["mcnemar"]) == (4 if theirs["metric"] == "avg" else 1)
            assert (ours["settled"], ours["how"]) == ("better", "paired")
    assert [r["decides"] for r in found["rows"]] == [True] * 2 + [False] * 4
    assert found["failed"] == []


def test_a_and_b_the_other_way_round_is_worse_and_fails(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", BETTER), folder(tmp_path / "b", OLD)
    found = compare(a, b, Settings())
    assert [r["settled"] for r in found["rows"] if r["decides"]] == ["worse", "worse"]
    assert found["failed"] == [0, 1]
    lost = -100 * found["rows"][0]["high"]
    assert compare(a, b, Settings(margin=lost - 0.01, metrics=["avg"]))["failed"] == [0]
    assert compare(a, b, Settings(margin=lost + 0.01, metrics=["avg"]))["failed"] == [], (
        "the interval reaches the margin"
    )


def test_slots_are_better_where_there_are_fewer(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", OLD, slots=10), folder(tmp_path / "b", OLD, slots=12)
    row = compare(a, b, Settings(metrics=["slots"]))["rows"][0]
    assert (row["a"], row["b"], row["value"], row["settled"], row["failed"]) == (10, 12, 2, "worse", True)
    assert not compare(a, b, Settings(metrics=["slots"], margin=25))["failed"], "a fifth more is within 25%"
    assert not compare(b, a, Settings(metrics=["slots"]))["failed"]


def test_non_inferiority_must_be_shown(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", OLD), folder(tmp_path / "b", OLD)
    assert compare(a, b, Settings(margin=1, non_inferiority=True))["failed"] == [0, 1], "too few questions to show it"
    assert compare(a, b, Settings(margin=10, non_inferiority=True))["failed"] == []


def test_other_questions_are_compared_unpaired_and_it_is_said(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", OLD), folder(tmp_path / "b", OLD, prefix="j")
    found = compare(a, b, Settings(metrics=["avg"]))
    row = found["rows"][0]
    assert (row["how"], row["mcnemar"], row["value"]) == ("unpaired", None, 0.0)
    assert "t: other questions (40 and 40, 0 of them in both): unpaired" in found["notes"][0]
    paired = compare(a, folder(tmp_path / "c", OLD), Settings(metrics=["avg"]))["rows"][0]
    assert row["high"] > 3 * paired["high"]


def test_changed_questions_of_the_same_names_are_unpaired(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", OLD)
    b = folder(tmp_path / "b", OLD, {"tasks": {"t": "f1", "u": "f0"}})
    found = compare(a, b, Settings(metrics=["avg"]))
    assert found["rows"][0]["how"] == "partly paired"
    assert {r["task"]: r["how"] for r in found["rows"][1:]} == {"t": "unpaired", "u": "paired"}
    assert any("another text or answer" in note for note in found["notes"])


def test_other_seeds_are_paired_by_question_and_it_is_said(tmp_path: Path) -> None:
    found = compare(folder(tmp_path / "a", OLD), folder(tmp_path / "b", OLD, seed=9), Settings())
    assert found["rows"][0]["how"] == "paired"
    assert any("other seeds; paired by question" in note for note in found["notes"])


def test_what_differs_is_listed(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", OLD, {"sampling": {"temperature": 1.0}})
    b = folder(tmp_path / "b", OLD, {"sampling": {"temperature": 0.6}}, provenance={
        "git_commit": "f00d", "git_dirty": True, "device": "H100", "versions": {"torch": "2.14"},
        "models": {"m": "def"}})  # fmt: skip
    assert compare(a, b, Settings())["changed"] == [
        {"what": "sampling.temperature", "a": 1.0, "b": 0.6}, {"what": "weights of x", "a": "abc", "b": "def"},
        {"what": "version of torch", "a": "2.13", "b": "2.14"},
        {"what": "commit", "a": "c0ffee", "b": "f00d, with changes"}, {"what": "device", "a": "cpu", "b": "H100"},
    ]  # fmt: skip
    assert compare(a, a, Settings())["changed"] == []


def renamed(names: dict[str, str]) -> dict[tuple[str, str], Any]:
    return {(names[v], t): table for (v, t), table in OLD.items()}


def test_variants_are_matched_by_name_or_by_map(tmp_path: Path) -> None:
    two = {**OLD, **renamed({"x": "y"})}
    a, b = folder(tmp_path / "a", two), folder(tmp_path / "b", {**OLD, **renamed({"x": "z"})})
    found = compare(a, b, Settings(metrics=["avg"]))
    assert {r["variant"] for r in found["rows"]} == {"x"}
    assert found["notes"] == ["only in the first run, not compared: y", "only in the second run, not compared: z"]
    found = compare(a, b, Settings(metrics=["avg"], names={"y": "z"}))
    assert {(r["was"], r["variant"]) for r in found["rows"]} == {("x", "x"), ("y", "z")}
    assert found["changed"] == [], "of variants that are not compared nothing is said"
    alone = folder(tmp_path / "c", renamed({"x": "q"}))
    assert "other names: x and q" in compare(folder(tmp_path / "d", OLD), alone, Settings())["notes"][0]


U = {"t": {"tight": 8, "loose": 64}, "u": {"tight": 64, "loose": 64}}
REFUSED: dict[str, tuple[dict[str, Any], Settings, str]] = {
    "other k": ({"spec": {"k": 8}}, Settings(), "4 samples an item in the first run, 8"),
    "other budget": ({"budgets": U}, Settings(), "t has budgets .*--slots"),
    "other tasks": ({"budgets": {"t": {"tight": 64, "loose": 64}}}, Settings(), "'u' is not in the second.*--task t"),
    "unknown task": ({}, Settings(tasks=["v"]), "'v' is not in the first run; .*--task t --task u"),
    "other scorer": ({"spec": {"benchmarks": {"t": {"scorer": "math"}}}}, Settings(), "scored by 'exact'.* 'math'"),
    "other scorer's version": ({"spec": {"scorers": {"t": "math-2"}}}, Settings(), "'exact'.* 'math-2'"),
    "other kind": ({"kind": "ablate-threshold"}, Settings(), "two of the same kind"),
    "unknown metric": ({}, Settings(metrics=["ttft"]), "'ttft' is none of these runs'.*avg, pass@1"),
    "too large k": ({}, Settings(metrics=["pass@5"]), "'pass@5'"),
    "unknown name": ({}, Settings(names={"x": "w"}), "'w' is no variant of the second run; they are x"),
    "unknown old name": ({}, Settings(names={"w": "x"}), "'w' is no variant of the first run"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_does_not_compare_is_refused(how: str, tmp_path: Path) -> None:
    rest, settings, words = REFUSED[how]
    a, b = folder(tmp_path / "a", OLD), folder(tmp_path / "b", OLD, **rest)
    with pytest.raises(BadInput, match=words):
        compare(a, b, settings)


def test_samples_that_are_not_judged_are_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", OLD)
    waiting = samples(OLD)
    waiting[7].judged = False
    b = write(tmp_path / "b", header(OLD), waiting)
    with pytest.raises(BadInput, match=f"{b} has samples that are not judged.*pipo eval score"):
        compare(a, b, Settings())


def test_tasks_that_both_have_can_be_named(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", OLD)
    b = folder(tmp_path / "b", {("x", "t"): OLD["x", "t"]})
    assert {r["task"] for r in compare(a, b, Settings(tasks=["t"]))["rows"]} == {"t"}


@pytest.mark.parametrize("values", [{"margin": -1}, {"margin": 100}, {"alpha": 0}, {"alpha": 0.6},
                                    {"non_inferiority": True}])  # fmt: skip
def test_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="margin|alpha"):
        Settings(**values)


UNUSABLE = ["no folder", "not finished", "no records", "torn", "empty", "other kind", "schema", "budgets", "k"]


@pytest.mark.parametrize("how", UNUSABLE)
def test_unusable_folders_are_named(how: str, tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", OLD), folder(tmp_path / "b", OLD)
    if how == "no folder":
        b = tmp_path / "c"
    elif how == "not finished":
        (b / "summary.json").unlink()
    elif how == "no records":
        (b / "records.jsonl").unlink()
    elif how == "torn":
        (b / "records.jsonl").write_text("{\n")
    elif how == "empty":
        (b / "records.jsonl").write_text("")
    elif how == "other kind":
        b = folder(tmp_path / "d", OLD, kind="lab-build")
    else:
        run = header(OLD, {"k": "many"} if how == "k" else None)
        run.schema = 99 if how == "schema" else 1
        run.budgets = {"t": {"tight": 4}} if how == "budgets" else run.budgets
        record.write_json(b / "run.json", run)
    with pytest.raises(BadInput if how == "other kind" else BadRecord, match=str(b)):
        compare(a, b, Settings())


def test_tokens_within_a_tight_budget_are_counted_as_summaries_do(tmp_path: Path) -> None:
    """Places are kept where a budget needs them: a sample of 10 slots under one of 4."""
    run = header(OLD)
    run.budgets = {t: {"tight": 4, "loose": 64} for t in ("t", "u")}
    found = [
        SampleRecord(variant="x", task=t, item=f"i{i}", sample=0, seed=1, slots=10, tokens=15, places=[1, 0, *[1] * 18],
                     pad_id=0, gold="g")
        for t in ("t", "u") for i in range(3)
    ]  # fmt: skip
    run.spec["k"] = 1
    a, b = write(tmp_path / "a", run, found), write(tmp_path / "b", run, found)
    rows = compare(a, b, Settings(metrics=["tokens"]))["rows"]
    assert one(rows, task="overall", budget="tight")["a"] == 7 and one(rows, task="overall", budget="loose")["a"] == 15


TIMES = [1.00, 1.02, 0.98, 1.01, 0.99, 1.03, 0.97, 1.00]


def test_latency_is_a_ratio_of_medians(tmp_path: Path) -> None:
    a = latency(tmp_path / "a", {("x", 512): TIMES, ("x", 2048): TIMES})
    b = latency(tmp_path / "b", {("x", 512): [1.2 * t for t in TIMES], ("x", 8192): TIMES}, device="H100")
    found = compare(a, b, Settings(metrics=["ttft"]))
    (row,) = found["rows"]
    assert row["value"] == pytest.approx(1.2) and row["low"] < 1.2 < row["high"]
    assert (row["a"], row["settled"], row["failed"], row["input_tokens"]) == (1.0, "worse", True, 512)
    assert any("devices differ (cpu, H100)" in note for note in found["notes"])
    assert any("input lengths in one run only, not compared: 2048, 8192" in note for note in found["notes"])
    assert compare(a, b, Settings(metrics=["ttft"], margin=30))["failed"] == []
    assert compare(b, a, Settings())["failed"] == []
    assert len(compare(a, a, Settings())["rows"]) == 4, "two lengths, first token and time per token"


def test_one_trial_gives_a_ratio_and_no_interval(tmp_path: Path) -> None:
    a, b = (latency(tmp_path / n, {("x", 512): [t]}) for n, t in (("a", 1.0), ("b", 9.0)))
    row = compare(a, b, Settings(metrics=["ttft"]))["rows"][0]
    assert row["value"] == pytest.approx(9.0) and row["low"] is None and row["settled"] == "not settled"
    assert not row["failed"]


@pytest.mark.parametrize("key", ["shape", "protocol", "tokens", "dtype"])
def test_times_of_other_settings_do_not_compare(key: str, tmp_path: Path) -> None:
    a = latency(tmp_path / "a", {("x", 512): TIMES})
    b = latency(tmp_path / "b", {("x", 512): TIMES}, {key: "other"})
    with pytest.raises(BadInput, match="the runs differ in"):
        compare(a, b, Settings())


def test_by_the_papers_protocol_means_are_compared(tmp_path: Path) -> None:
    spec = {"protocol": "paper"}
    a = latency(tmp_path / "a", {("x", 512): TIMES}, spec)
    b = latency(tmp_path / "b", {("x", 512): [*TIMES[:-1], 9.0]}, spec)
    rows = compare(a, b, Settings())["rows"]
    assert [r["metric"] for r in rows] == ["ttft", "tpot16"]
    assert rows[0]["value"] == pytest.approx(2.0)


def test_intervals_at_any_level_belong_to_the_p_values() -> None:
    parts = [
        stats_paired.difference(RNG.normal(0.1, 0.4, 30), 0.25),
        stats_paired.difference(RNG.normal(0, 0.3, 12), 1),
    ]
    plain = stats.combine(parts)
    assert ds.interval(parts, 0.05) == (plain.low, plain.high)
    for alpha in (0.2, 0.01, 0.001, 1e-5):
        low, high = ds.interval(parts, alpha)
        assert low is not None and high is not None and low < plain.value < high
        for end in (low, high):
            assert ds.p_beyond(parts, -end) == pytest.approx(alpha, rel=1e-3)
    ends = [ds.interval(parts, a)[0] for a in (0.2, 0.05, 0.01, 0.001)]
    assert ends == sorted(ends, reverse=True)  # type: ignore[type-var]


def test_unpaired_differences_of_plain_intervals_are_welch_s() -> None:
    import scipy.stats

    x, y = RNG.normal(0.5, 0.2, 25), RNG.normal(0.4, 0.3, 14)
    found = ds.unpaired(stats.mean(x), stats.mean(y))
    theirs = scipy.stats.ttest_ind(x, y, equal_var=False)
    assert found.value == pytest.approx(x.mean() - y.mean())
    assert found.se == pytest.approx(math.sqrt(x.var(ddof=1) / 25 + y.var(ddof=1) / 14))
    assert stats.p_value([found]) == pytest.approx(theirs.pvalue, abs=0.02)
    assert ds.unpaired(stats.mean(x), Estimate(0.3)).low is None


def test_turned_estimates() -> None:
    assert ds.turned(Estimate(1.0, 0.5, 0.2, 2.0, 9)) == Estimate(-1.0, 0.5, -2.0, -0.2, 9)
