"""The training study in a report: figure, tables, what it settles, the paper beside it; from hand-made stages."""

from pathlib import Path

import pytest

import reports
from pipo.errors import BadRecord
from reports import training
from reports.load import load, load_all
from tests.unit.reports_runs import compare_summary, write_run
from tests.unit.training_runs import finish, stage, study

ONLY = ["base", "control", "pipo-opd", "sft-longer", "linear", "shortest", "no-confidence"]


def write_study(folder: Path) -> Path:
    stages = folder / "stages"
    stage(stages, "base-seed0", [0.4])
    for seed in (0, 1, 2):
        shift = 0.01 * (seed - 1)
        stage(stages, f"control-seed{seed}", [0.5 + shift])
        stage(stages, f"pipo-sft-seed{seed}", [0.3 + shift, 0.40 + shift, 0.42 + shift])
        stage(stages, f"pipo-opd-seed{seed}", [0.45 + shift, 0.49 + shift, 0.48 + shift])
    stage(stages, "linear-seed0", [0.31, 0.40, 0.42])
    stage(stages, "no-confidence-seed0", [0.3, 0.0, 0.4], coins={0.2: 0.38, 0.4: 0.36, 0.6: 0.34, 0.8: 0.32})
    values = stages / "no-confidence-seed0" / "values.json"
    values.write_text(values.read_text().replace("tau=0.95", "tau=0.5"))  # the row is not measured there
    finish(study(only=ONLY), folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("report")
    return reports.build([write_study(top / "study")], top / "out")


def line(page: str, start: str) -> list[str]:
    (found,) = [x for x in page.splitlines() if x.startswith(start)]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_row_has_quality_seeds_kept_share_and_both_kept_shares_at_no_loss(built: Path) -> None:
    page = built.read_text()
    cells = line(page, "| pipo-opd | 3 | 0.95 | 49.0")
    assert cells[4] == "48.0 to 50.0" and cells[6] == "50.0"
    assert cells[7].startswith("−1.0 [−1.0, −1.0]") and cells[8] == "49.0 (0.95)"
    assert cells[10:] == ["none", "50.0 (0.95)"], "the same loss in every seed and question is a loss"
    assert line(page, "| control | 3 | regular | 50.0")[8:] == ["–"] * 4


def test_a_row_measured_elsewhere_is_shown_and_compared_there(built: Path) -> None:
    page = built.read_text()
    assert line(page, "| no-confidence | 1 | 0 | 30.0")[6] == "100.0"
    assert line(page, "| no-confidence | pipo-sft | 0 |")[3].startswith("+0.0 [") or "0.0 [" in page
    assert "| no-confidence | coin 0.4 | loose | 36.0" in page


def test_differences_say_what_they_settle_and_the_short_answer_repeats_it(built: Path) -> None:
    page = built.read_text()
    assert line(page, "| pipo-opd | pipo-sft | 0.95 |")[3] == "+9.0 [+9.0, +9.0], better"
    assert line(page, "| linear | pipo-sft | 0.95 |")[3].endswith("not settled"), "one seed borrows the seeds' spread"
    short = page[: page.index("## What training buys")]
    assert "**Training, better** (area, points): pipo-opd − pipo-sft +9." in short, short
    assert "**Training, not settled** (area, points): linear − pipo-sft" in short


def test_the_papers_claims_are_confirmed_only_where_intervals_allow(built: Path) -> None:
    page = built.read_text()
    confirmed = line(page, "| OPD after SFT helps (table 1) | pipo-opd − pipo-sft | avg@4 |")
    assert confirmed[3] == "+1.24" and confirmed[5] == "confirms"
    assert line(page, "| a linear compressor costs (table 3) | linear − pipo-sft | avg@4 |")[5] == "not settled"
    assert line(page, "| the shortest correct answers alone cost (table 3) | shortest − pipo-sft | avg@4 |")[4:] == [
        "–", "not measured",
    ]  # fmt: skip
    assert training.verdict({"low": 0.1, "high": 0.2, "value": 0.15}, "-") == "contradicts"


def test_what_is_missing_is_named(built: Path) -> None:
    page = built.read_text()
    assert "**Missing:** sft-longer, seed 0, 1 and 2 (not done yet); shortest, seed 0 (not done yet)." in page


def test_the_figure_has_a_panel_a_group_with_the_rows_it_is_held_against(built: Path) -> None:
    run = load(built.parent.parent / "study")
    assert training.panels(run) == {
        "headline": ["pipo-sft", "pipo-opd"],
        "compressor and data": ["pipo-sft", "linear"],
        "confidence head": ["pipo-sft", "no-confidence"],
    }
    axes = [ax for ax in training.figure(run).axes if ax.get_visible()]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["base, regular", "control, regular", "pipo-sft (3 seeds)", "pipo-opd (3 seeds)"]
    drawn = axes[2].containers[-1].lines[0]
    assert list(drawn.get_xdata()) == pytest.approx([0, 20, 40, 60, 80, 100], abs=0.5)
    assert drawn.get_ydata()[2] == pytest.approx(36)
    assert (built.parent / "training.png").stat().st_size > 10_000


def test_tables_lie_beside_the_page(built: Path) -> None:
    found = sorted(p.name for p in built.parent.glob("*.csv"))
    own = ["training-differences.csv", "training-keys.csv", "training-trainings.csv", "training.csv"]
    assert found == ["table3.csv", *own], "and the paper's table 3"
    assert "avg.seed_low" in (built.parent / "training.csv").read_text().splitlines()[0].split(",")


def test_records_are_counted_over_stages_and_a_bad_one_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    assert load(folder).records == 12
    (folder / "stages" / "control-seed1" / "records.jsonl").write_text("{\n")
    with pytest.raises(BadRecord, match=r"control-seed1/records\.jsonl:1"):
        load(folder)


def test_a_study_stands_behind_comparisons_and_without_gated_rows_has_no_figure(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    stage(folder / "stages", "control-seed0", [0.5])
    finish(study(only=["control"], seeds=[0]), folder)
    folders = [folder, write_run(tmp_path / "compare", compare_summary())]
    assert [run.kind for run in load_all(folders)] == ["compare", "ablate-training"]
    page = reports.build(folders, tmp_path / "out").read_text()
    assert page.index("## Comparison") < page.index("## What training buys")
    assert "training.png" not in page


def test_a_summary_of_another_version_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"schema": 1, "kind": "ablate-training", "rows": [{"row": "a"}]})
    with pytest.raises(BadRecord, match="has no 'trainings': another version wrote it"):
        load(folder)
