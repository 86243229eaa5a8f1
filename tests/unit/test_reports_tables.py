"""Tables and sentences of a report against golden text, from hand-made summaries."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reports import exhibits, tables, text
from reports.kinds import shown
from reports.load import LoadedRun, load
from reports.pace import MIXED, SAME, Pace, batch_one, ratio_word, whole_batch
from reports.page import page
from reports.settle import BETTER, OPEN, WORSE, settled
from reports.verdict import answers, conclusion, judged_against, verified
from tests.unit.reports_runs import compare_summary, estimate, latency_summary, threshold_summary, write_run


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load(write_run(tmp_path_factory.mktemp("c"), compare_summary()))


@pytest.fixture(scope="module")
def latency(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load(write_run(tmp_path_factory.mktemp("l"), latency_summary()))


@pytest.fixture(scope="module")
def threshold(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load(write_run(tmp_path_factory.mktemp("t"), threshold_summary()))


def test_numbers_as_words() -> None:
    assert text.number(-0.04) == "0.0"
    assert text.number(-0.06, sign=True) == "−0.1"
    assert text.number(0.0, sign=True) == "0.0"
    assert text.number(None) == "–"
    assert text.percent({"value": 0.473, "low": 0.442, "high": 0.504}) == "47.3 ±3.1"
    assert text.percent({"value": 0.473, "low": None, "high": None}) == "47.3"
    assert text.percent(None) == "–"
    assert text.interval(estimate(0.052, 0.041), 100, sign=True) == "+5.2 [+1.1, +9.3]"
    assert text.listed([]) == ""
    assert text.listed(["a", "b", "c"]) == "a, b and c"


def test_markdown_escapes_bars_and_aligns() -> None:
    assert text.markdown(["a", "n"], [["x|y", 3]]) == "| a | n |\n| :-- | --: |\n| x\\|y | 3 |"


def test_csv_flattens_and_keeps_all_columns(tmp_path: Path) -> None:
    text.write_csv(tmp_path / "t.csv", [{"a": 1, "b": {"low": 0.5}}, {"a": 2, "c": None}])
    assert (tmp_path / "t.csv").read_text().splitlines() == ["a,b.low,c", "1,0.5,", "2,,"]


def test_comparison_table(compare: LoadedRun) -> None:
    lines = tables.comparison(compare, "overall", "tight").splitlines()
    assert lines[0] == "| variant | avg@4 % | pass@4 % | cut % | failed | slots |", "speed is the loose budget's"
    assert lines[2] == "| regular | 33.6 ±3.0 | 50.8 ±3.5 | 31.0 ±2.0 | 0 of 2400 | 68.0 ±1.4 |"
    assert lines[4].startswith("| mtp | 38.0 ±3.0 | 61.0 ±3.5 | 31.0 ±2.0 | 1 of 2400 |")
    assert len(lines) == 2 + 6
    loose = tables.comparison(compare, "overall", "loose").splitlines()
    assert loose[0] == lines[0] + " tokens/slot | tokens/step | kept % | tokens/s |"
    assert loose[2].endswith(" | 1.00 ±0.01 | 1.00 ±0.01 | – | 400 [388, 412] |")


def test_a_run_of_one_budget_shows_its_speed(compare: LoadedRun) -> None:
    rows = [r for r in compare.rows if r["budget"] == "tight"]
    run = msgspec.structs.replace(compare, summary={**compare.summary, "rows": rows})
    assert "400 [388, 412]" in tables.comparison(run, "overall", "tight")


def test_a_pair_of_references_stands_in_the_differences_once(compare: LoadedRun) -> None:
    """Regular against control says nothing that control against regular did not."""
    rows = compare.summary["differences"]
    pairs = {(d["variant"], d["reference"]) for d in rows}
    back = [{**d, "variant": d["reference"], "reference": d["variant"]} for d in rows
            if (d["reference"], d["variant"]) not in pairs]  # fmt: skip
    assert back
    run = msgspec.structs.replace(compare, summary={**compare.summary, "differences": [*rows, *back]})
    for overall in (True, False):
        assert tables.differences(run, overall) == tables.differences(compare, overall)


def test_differences_are_split_into_overall_and_tasks(compare: LoadedRun) -> None:
    overall, by_task = tables.differences(compare, overall=True), tables.differences(compare, overall=False)
    assert overall.splitlines()[0] == "| variant | against | budget | avg@4 points [95%] | pass@4 points [95%] |"
    tight, loose = (line for line in overall.splitlines() if line.startswith("| pipo-opd | control |"))
    assert tight.startswith("| pipo-opd | control | tight |") and tight.endswith("| +11.2 [+6.2, +16.2], better |")
    assert loose.endswith("| −3.9 [−8.9, +1.1], not settled |")
    assert "lab-chain" not in overall
    assert "all tasks" not in by_task
    assert "| pipo-sft | control | lab-recall | loose | −10.9 [−15.9, −5.9], worse |" in by_task


def test_failures_are_shown(compare: LoadedRun, latency: LoadedRun) -> None:
    assert "| mtp | lab-chain | i7 | 2 | out of \\| memory |" in tables.failures(compare)
    assert tables.failures(latency) == ""


def test_latency_table(latency: LoadedRun) -> None:
    lines = tables.latency(latency).splitlines()
    row = next(line for line in lines if line.startswith("| pipo-opd | 8192 |"))
    assert row.endswith("| 1.81 | 81 | – | – | 2.34 [2.20, 2.46] | 1.58 [1.49, 1.66] | 1.58 [1.49, 1.66] |")
    assert tables.machine(latency) == ""


def test_latency_tables_follow_protocol_and_floor(latency: LoadedRun) -> None:
    times = {"p50": 0.5, "p90": 0.6, "p99": 0.7, "mean": 0.55}
    row = latency.rows[0] | {"ttft_s": times, "tpot_s": times, "ttft_over_floor": 1.504, "tpot_over_floor": 3.0}
    floor = {"variant": "pipo", "keep": 0.8, "input_tokens": 8192}
    floor |= {f"{m}_{part}": v for m in ("ttft", "tpot") for part, v in
              (("allowed", 2.0), ("measured", 1.5), ("reached", 0.75))}  # fmt: skip
    rates = {"name": "cpu", "dtype": "float32", "bandwidth": 2.5e10, "matmul_rate": 1e11, "attention_rate": 3e10,
             "call_s": 2e-6}  # fmt: skip
    summary = latency.summary | {"rows": [row], "ratios": [], "floor": [floor], "machine": rates, "statistic": "mean"}
    run = msgspec.structs.replace(latency, summary=summary)
    assert "| regular | 512 | 550.0 |" in tables.latency(run) and "| 1.50 | 3.00 | – |" in tables.latency(run)
    assert "| regular | 512 | 500.0 | 600.0 | 700.0 | 550.0 |" in tables.tails(run)
    assert "| pipo, 80 % kept by force | 8192 | 2.00 | 1.50 | 0.75 | 2.00 | 1.50 | 0.75 |" in tables.floor(run)
    assert tables.machine(run).startswith("Floor of cpu, float32: 25.0 GB/s, matrix products at 100.0 and attention")
    assert tables.machine(run) in page([run], {})


def test_acceptance_table_has_a_line_for_each_eagle_row(compare: LoadedRun) -> None:
    assert tables.acceptance(compare) == ""
    shares = [estimate(0.7, 0.01), estimate(0.5, 0.02), None]
    rows = [r | {"acceptance_by_position": shares if r["variant"] == "eagle" else None} for r in compare.rows]
    run = msgspec.structs.replace(compare, summary={**compare.summary, "rows": rows})
    lines = tables.acceptance(run).splitlines()
    assert lines[0] == "| variant | task | draft 1 % | draft 2 % | draft 3 % | tokens/step |"
    assert "| eagle | all tasks | 70.0 ±1.0 | 50.0 ±2.0 | – | 1.55 ±0.01 |" in lines
    assert len(lines) == 2 + 4
    assert "### Drafts accepted by their place in the chain" in page([run], {})


def test_threshold_table(threshold: LoadedRun) -> None:
    table = tables.threshold(threshold)
    assert "| tight | 0.95 | confidence | 25.0 ±0.5 |" in table
    assert "| tight | 0 | coin flip (same decoding) | 0.0 ±0.5 |" in table
    assert table.count("\n") == 1 + 2 * 7 * 2


def test_threshold_table_says_what_survives_correction(tmp_path: Path) -> None:
    summary = threshold_summary()
    for gap in summary["differences"]:
        gap["p_holm"] = 0.0004 if gap["threshold"] == 0.8 else 0.25
    lines = tables.threshold(load(write_run(tmp_path, summary))).splitlines()
    assert lines[0].endswith("| p (Holm) |")
    assert [line.split(" | ")[-1] for line in lines if "| 0.8 | confidence" in line] == ["< 0.001 |"] * 2
    assert [line.split(" | ")[-1] for line in lines if "| 0.9 | confidence" in line] == ["0.250 |"] * 2


def test_the_paper_s_numbers_stand_once(compare: LoadedRun, latency: LoadedRun, threshold: LoadedRun) -> None:
    """In the part on the paper; a run's own part speaks of the run."""
    runs = [compare, latency, threshold]
    own = "\n\n".join(part for run in runs for part in shown(run.kind).section(run, []))
    assert "paper" not in own
    theirs = "\n\n".join(exhibits.section(runs, exhibits.exhibits(runs), {}))
    for cells in ("| 46.52 | 67.31 |", "| 1.65 | 2.07 |", "| 2.64 | 1.98 |", "| 66.5 | 65.01 |", "59.64 at random"):
        assert theirs.count(cells) == 1, cells


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.3, BETTER), (-0.3, -0.1, WORSE), (-0.1, 0.3, OPEN), (0.0, 0.2, OPEN), (None, None, OPEN)],
)
def test_a_difference_is_settled_where_its_interval_leaves_out_zero(
    low: float | None, high: float | None, word: str
) -> None:
    assert settled({"value": 0.1, "low": low, "high": high}) == word
    assert settled(None) == OPEN


def test_speed_is_the_same_only_where_the_whole_interval_is_near_one() -> None:
    assert ratio_word({"value": 1.0, "low": 0.97, "high": 1.03}) == SAME
    assert ratio_word({"value": 1.0, "low": 0.90, "high": 1.10}) == OPEN
    assert ratio_word({"value": 1.2, "low": 1.10, "high": 1.30}) == BETTER
    assert ratio_word({"value": 0.8, "low": 0.70, "high": 0.90}) == WORSE
    assert ratio_word(None) == OPEN


QUALITY = {BETTER: estimate(0.10), WORSE: estimate(-0.10), OPEN: estimate(0.01)}
RISK = "(a loss of up to 3.0 points is not excluded)"
CONCLUSIONS = {
    (BETTER, BETTER): "**better and faster: it pays**",
    (BETTER, WORSE): "**better but slower: quality is bought with time**",
    (BETTER, SAME): "**better and about as fast**",
    (WORSE, BETTER): "**worse but faster: speed is bought with quality**",
    (WORSE, WORSE): "**worse and slower: it does not pay**",
    (WORSE, OPEN): "**worse and not shown to be faster: it does not pay**",
    (OPEN, BETTER): f"**faster; its quality is not settled** {RISK}",
    (OPEN, WORSE): f"**slower: no gain is shown; its quality is not settled** {RISK}",
}


@pytest.mark.parametrize(("quality", "pace"), CONCLUSIONS)
def test_conclusion_follows_the_data(quality: str, pace: str) -> None:
    assert conclusion([QUALITY[quality]], Pace(pace)) == CONCLUSIONS[quality, pace]


def test_least_favourable_reference_decides() -> None:
    assert conclusion([QUALITY[BETTER], QUALITY[WORSE]], Pace(BETTER)).startswith("**worse")
    assert conclusion([QUALITY[BETTER], QUALITY[OPEN]], Pace(BETTER)).startswith("**faster; its quality is not settled")


def test_a_variant_on_a_reference_model_is_judged_against_that_one(compare: LoadedRun) -> None:
    assert judged_against(compare, "eagle") == ["regular"]
    assert judged_against(compare, "pipo-opd") == ["regular", "control"]


def test_eagle_on_its_references_model_is_a_matter_of_speed_alone(compare: LoadedRun) -> None:
    assert verified(compare, "eagle", ["regular"])
    assert not verified(compare, "pipo-opd", ["regular"]) and not verified(compare, "eagle", ["regular", "control"])
    for d in compare.summary["differences"]:
        if (d["variant"], d["reference"], d["budget"]) == ("eagle", "regular", "tight"):
            d.update(value=-0.1, low=-0.2, high=-0.05)
    (line,) = (line for line in answers([compare])[0].splitlines() if line.startswith("- **eagle**"))
    assert "draws from the same distribution, so only speed is open" in line
    assert "(tight budget −10.0 [−20.0, −5.0], worse) is chance or float rounding" in line


def test_pace_names_batch_length_and_mixed_speeds(compare: LoadedRun, latency: LoadedRun) -> None:
    pace = batch_one(latency, "pipo-opd")
    assert pace.word == BETTER
    assert pace.text == (
        "At batch 1 after 8192 tokens: first token 2.34 [2.20, 2.46] times, later tokens 1.58 [1.49, 1.66] times as "
        "fast as regular."
    )
    assert whole_batch(compare, "pipo-opd").text == "In batches of 64: 1.48 times the tokens per second."
    assert whole_batch(compare, "control").word == OPEN
    for ratio in latency.summary["ratios"]:
        if ratio["variant"] == "eagle" and ratio["metric"] == "ttft":
            ratio.update(value=0.8, low=0.75, high=0.85)
    assert batch_one(latency, "eagle").word == MIXED
    assert batch_one(latency, "eagle").said == "slower to the first token, faster after it"


def test_a_speed_up_of_the_first_token_alone_is_called_so(latency: LoadedRun) -> None:
    ratios = [{**r, "value": 0.95, "low": 0.8, "high": 1.1} if r["metric"] == "tpot" else r
              for r in latency.summary["ratios"]]  # fmt: skip
    run = msgspec.structs.replace(latency, summary={**latency.summary, "ratios": ratios})
    pace = batch_one(run, "pipo-opd")
    assert pace.word == BETTER and pace.said == "faster to the first token, not shown to be faster after it"
    assert "faster to the first token, not shown to be faster after it" in answers([run])[0]


def test_a_gate_that_is_the_same_under_both_budgets_is_told_once(threshold: LoadedRun) -> None:
    tight = [d for d in threshold.summary["differences"] if d["budget"] == "tight"]
    same = {**threshold.summary, "differences": tight + [{**d, "budget": "loose"} for d in tight]}
    (bullets,) = answers([msgspec.structs.replace(threshold, summary=same)])
    assert bullets.count("Gate") == 1 and bullets.startswith("- **Gate, tight and loose budgets:** pass@4")


def test_answers_name_winner_by_budget_and_gate(compare: LoadedRun, threshold: LoadedRun) -> None:
    bullets, table = answers([compare, threshold])
    assert "**Tight budget, all tasks:** the highest pass@4 has **pipo-opd**, 80.0 [76.5, 83.5] %" in bullets
    assert "**Loose budget, all tasks:** the highest pass@4 has **control**, 90.6 [87.1, 94.1] %" in bullets
    assert "better at 5, worse at none, not settled at none of 5 thresholds; largest difference at 0.8" in bullets
    assert table.count("\n") == 1 + 4


def test_answers_without_a_comparison(latency: LoadedRun) -> None:
    (bullets,) = answers([latency])
    assert "- **pipo-opd**: faster. At batch 1 after 8192 tokens" in bullets
    assert "**regular**" not in bullets
