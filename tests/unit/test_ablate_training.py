"""The training study: its file, its data, its statistics, its summary; and a small one end to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations import training, training_stats
from ablations.training_spec import Row, needs, train_settings, variants
from bench import stats
from pipo.cli.show_training import show
from pipo.errors import BadInput, Cancelled, JobFailed
from pipo.jobs import LocalContext
from tests.unit.training_runs import finish, stage, study


def rows(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "control", "train": "regular"}, *given]


def test_the_study_file_is_valid_and_names_every_setting_it_relies_on() -> None:
    s = study()
    order = list(s.stages())
    assert order[0] == "base-seed0" and order[1:4] == [f"control-seed{i}" for i in range(3)]
    assert order.index("pipo-opd-seed2") < order.index("split-1-seed0") < order.index("linear-seed0")
    found = {r.name: train_settings(s, r, 0, Path("m"), Path("d")) for r in s.row}
    sft, split, opd = found["pipo-sft"], found["split-0.25"], found["pipo-opd"]
    assert (sft.tuner, sft.augmentation, sft.rho_max, sft.all_pad, sft.lr) == ("full", "shift", 0.4, 0.1, 6e-3)
    assert (split.augmentation, split.rho_max, split.all_pad) == ("split", 0.25, 0.0)
    assert (opd.tokens, opd.thresholds, opd.kl) == (60_000, (0.0, 0.95), "full")
    assert found["control"].tokens == sft.tokens + opd.tokens and found["base"] is None


def test_stages_need_the_roll_outs_and_their_own_seed_of_other_rows() -> None:
    found = needs(study(only=["sft-longer"], seeds=[1]))
    assert found == {
        "rollouts": (),
        "pipo-sft-seed1": ("rollouts",),
        "pipo-opd-seed1": ("rollouts", "pipo-sft-seed1"),
        "sft-longer-seed1": ("rollouts", "pipo-sft-seed1", "pipo-opd-seed1"),
    }


def test_a_model_without_pairs_is_decoded_regularly_and_coins_come_after_thresholds() -> None:
    s = study()
    known = {r.name: r for r in s.row}
    assert [v.method.name for v in variants(s, known["control"], 1, Path("m"))] == ["regular"]
    found = variants(s, known["no-confidence"], 0, Path("m"))
    assert [v.name for v in found][:3] == [f"no-confidence-seed0 {x}" for x in ("tau=0", "tau=1", "coin=0.2")]
    assert found[2].method.keep_rate == 0.2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"row": rows({"name": "x", "train": "sft", "lr": 1})}, "unknown field `lr`"),
        ({"sft": {"learning": 1}}, "unknown field `learning`"),
        (
            {"row": rows({"name": "x", "train": "sft", "settings": {"rho_max": 2.0}})},
            r"rho_max 2.0 must lie in \[0, 1\]",
        ),
        ({"row": rows({"name": "x", "train": "opd"})}, "opd starts from a PIPO model"),
        ({"row": rows({"name": "x", "train": "opd", "from": "y"})}, "put that row before it, with the same seeds"),
        ({"row": rows({"name": "x", "train": "sft", "from": "control"})}, "makes no PIPO model"),
        ({"row": rows({"name": "control", "train": "sft"})}, "two rows are named 'control'"),
        ({"row": rows({"name": "A b", "train": "sft"})}, "row name 'A b' must be of a-z"),
        ({"row": rows({"name": "x", "train": "sft", "seeds": [1, 1]})}, "must be one or more, each once"),
        ({"row": rows({"name": "x", "train": "sft", "thresholds": [2.0]})}, r"threshold 2.0 must lie in \[0, 1\]"),
        ({"row": rows({"name": "x", "train": "opd", "from": "x", "filter": 2.0})}, r"filter 2.0 must lie in \[0, 1\]"),
        ({"only": ["nope"]}, "no row 'nope' in this study"),
        ({"seeds": [7]}, r"seeds \[7\] leave no row anything to do"),
        ({"tasks": ["x"]}, "unknown lab task 'x'"),
        ({"minutes": 0}, "minutes 0.0 must be above 0"),
        ({"tau": 1}, "unknown field `tau`"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    base = {"only": ["control"]} if change.get("seeds") else {}
    with pytest.raises(BadInput, match=says):
        training.run({**base, **change}, LocalContext(tmp_path))
    assert not (tmp_path / "stages").exists()


def test_data_are_right_answers_the_shortest_of_them_or_prompts_by_the_teachers_share(tmp_path: Path) -> None:
    from ablations.training_stage import write_data

    lines = [
        {"prompt": "p", "texts": ["1 + 2 3", "1 2", "1", "2 3"], "correct": [True, True, False, True]},
        {"prompt": "q", "texts": ["1", "2", "3", "4"], "correct": [False, True, False, False]},
        {"prompt": "r", "texts": ["1", "2", "3", "4"], "correct": [False] * 4},
    ]
    (tmp_path / "chunk-0000.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))

    def data(**row: Any) -> list[Any]:
        path, count = write_data(Row(name="x", **row), tmp_path, tmp_path / "data.jsonl")
        found = [json.loads(x) for x in path.read_text().splitlines()]
        assert count == len(found)
        return [(x["prompt"], x["response"]) if "response" in x else x["prompt"] for x in found]

    assert data(train="sft") == [("p", "1 + 2 3"), ("p", "1 2"), ("p", "2 3"), ("q", "2")]
    assert data(train="sft", data="shortest") == [("p", "1 2"), ("q", "2")]
    assert [data(train="opd", filter=f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)] == [
        list("pqr"),
        list("pq"),
        ["p"],
        ["p"],
        [],
    ]


def test_without_a_seed_effect_the_interval_is_the_one_by_question() -> None:
    rng = np.random.default_rng(0)
    by_question = rng.random(50)
    x = np.stack([by_question] * 3, 1)
    found, plain = training_stats.estimate(x), stats.mean(by_question)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert found.seeds == 3 and found.seed_low == pytest.approx(found.seed_high)


def test_intervals_over_questions_and_seeds_hold_the_true_mean_as_often_as_they_say() -> None:
    rng, held, wide = np.random.default_rng(1), 0, 0
    for _ in range(300):
        x = rng.normal(0, 0.3, (60, 1)) + rng.normal(0, 0.05, (1, 3)) + rng.normal(0, 0.3, (60, 3))
        one = training_stats.estimate(x)
        held += one.low <= 0 <= one.high
        plain = stats.mean(x.mean(1))
        wide += plain.low <= 0 <= plain.high
    assert 0.93 <= held / 300 <= 0.99, held / 300
    assert wide < held, "by question alone, seeds are left out"


def test_a_row_with_one_seed_borrows_how_much_the_others_vary() -> None:
    rng = np.random.default_rng(2)
    noise = rng.random((40, 1))
    many = noise + np.array([[0.0, 0.2, 0.4]])
    borrowed = training_stats.pooled([many, many[:, :1]])
    assert borrowed.value == pytest.approx(0.04) and borrowed.dof == 2
    alone, held = training_stats.estimate(noise), training_stats.estimate(noise, borrowed)
    assert held.se == pytest.approx((alone.se**2 + 0.04) ** 0.5) and held.high > alone.high
    fixed = training_stats.estimate(noise, borrowed, fixed=True)
    assert fixed.se == pytest.approx(alone.se), "a model that was not trained has no seed"


def test_differences_pair_questions_and_seeds() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((40, 3))
    shifted = training_stats.difference(x + 0.1, x)
    assert shifted.value == pytest.approx(0.1) and shifted.se == pytest.approx(0, abs=1e-9)
    other = training_stats.difference(x + 0.1, x[:, :1], training_stats.SeedVariance(0.01, 4))
    assert other.value == pytest.approx(float((x.mean(1) - x[:, 0]).mean()) + 0.1)
    plain = stats.mean(x.mean(1) - x[:, 0])
    assert other.se == pytest.approx((plain.se**2 + 0.01 * (1 / 3 + 1)) ** 0.5)
    with pytest.raises(BadInput, match="40 and 3 questions"):
        training_stats.difference(x, x[:3])


def test_area_is_the_mean_over_kept_shares_whatever_the_order() -> None:
    scores = np.array([[0.2], [0.4], [0.0]])
    assert training_stats.area([1.0, 0.0, 0.5], scores)[0] == pytest.approx((0.2 + 0.1) / 2 * 1.0)
    assert training_stats.area([0.3, 0.3, 0.3], scores)[0] == pytest.approx(0.2)


def summary(folder: Path) -> dict[str, Any]:
    for seed in (0, 1):
        stage(folder / "stages", f"control-seed{seed}", [0.5])
        stage(folder / "stages", f"pipo-sft-seed{seed}", [0.3, 0.5 + 0.1 * seed, 0.6])
    why = "stage pipo-opd-seed0 ended with code 1: no more disk"
    return finish(study(only=["control", "pipo-opd"], seeds=[0, 1]), folder, {"pipo-opd-seed0": why})


def test_the_summary_has_means_over_seeds_keys_and_what_is_missing(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert found["items"] == {"lab-chain": 4}
    (row,) = [
        r for r in found["rows"] if (r["row"], r["threshold"], r["budget"]) == ("pipo-sft", 0.95, "loose")
    ]  # fmt: skip
    assert row["avg"]["value"] == pytest.approx(0.55) and row["avg"]["seeds"] == 2
    assert (row["avg"]["seed_low"], row["avg"]["seed_high"]) == pytest.approx((0.5, 0.6))
    assert row["kept_share"]["value"] == 0.5
    (key,) = found["keys"]
    assert key["row"] == "pipo-sft" and key["best"]["threshold"] == 1.0
    assert key["kept_reference"]["threshold"] == 0.95, "at 0 it is shown to be below the control"
    assert key["area"]["value"] == pytest.approx((0.3 + 0.55) / 4 + (0.55 + 0.6) / 4)
    (gap,) = [
        d for d in found["differences"]
        if (d["row"], d["reference"], d["threshold"], d["budget"], d["metric"])
        == ("pipo-sft", "control", 0.0, "loose", "avg")
    ]  # fmt: skip
    assert gap["value"] == pytest.approx(-0.2) and gap["high"] < 0
    assert found["missing"] == [
        {"row": "pipo-opd", "seed": 0, "why": "stage pipo-opd-seed0 ended with code 1: no more disk"},
        {"row": "pipo-opd", "seed": 1, "why": "not done yet"},
    ]
    assert {t["row"]: t["seeds_missing"] for t in found["trainings"]}["pipo-opd"] == [0, 1]


def test_the_terminal_shows_a_line_a_row_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(summary(tmp_path))
    out = capsys.readouterr().out
    line = next(x for x in out.splitlines() if x.startswith("pipo-sft"))
    assert "tau 0.95" in line and "50.0..60.0" in line and "60.0 (tau 1)" in line and "50 | " in line
    assert "missing: pipo-opd, seed 1: not done yet" in out and "pipo-opd  " not in out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_study_is_cancelled_goes_on_and_is_not_done_again(tmp_path: Path) -> None:
    asked = {"smoke": True, "seeds": [0]}

    class Stops(LocalContext):
        def check(self) -> None:
            self.cancelled = (tmp_path / "stages" / "control-seed0" / "done.json").exists()
            super().check()

    with pytest.raises(Cancelled):
        training.run(asked, Stops(tmp_path))
    begun = (tmp_path / "stages" / "control-seed0" / "records.jsonl").read_bytes()
    texts: list[str] = []
    ctx = LocalContext(tmp_path, lambda kind, data: texts.append(data["text"]) if kind == "log" else None)
    found = training.run(asked, ctx)
    assert "control-seed0: started" not in texts and "pipo-opd-seed0: done" in texts
    assert (tmp_path / "stages" / "control-seed0" / "records.jsonl").read_bytes() == begun
    assert found["missing"] == [] and [t["row"] for t in found["trainings"]] == ["control", "pipo-sft", "pipo-opd"]
    assert found == json.loads((tmp_path / "summary.json").read_bytes())
    regular, gated = (
        [r for r in found["rows"] if r["row"] == name and r["budget"] == "loose"] for name in ("control", "pipo-opd")
    )
    assert len(regular) == 1 and regular[0]["kept_share"] is None
    assert [r["kept_share"]["value"] for r in gated if r["threshold"] in (0, 1)] == [1, 0]
    texts.clear()
    assert training.run(asked, ctx) == found and texts == []
    with pytest.raises(BadInput, match="holds a run with other settings"):
        training.run({**asked, "k": 1}, ctx)


@pytest.mark.slow
def test_a_failed_stage_costs_only_what_needs_it(tmp_path: Path) -> None:
    broken = tmp_path / "stages" / "pipo-sft-seed0"
    broken.mkdir(parents=True)
    (broken / "data.jsonl").mkdir()  # in the way of the row's data
    with pytest.raises(JobFailed, match="stage pipo-sft-seed0 ended with code 1"):
        training.run({"smoke": True, "seeds": [0]}, LocalContext(tmp_path))
    found = json.loads((tmp_path / "summary.json").read_bytes())
    assert {r["row"] for r in found["rows"]} == {"control"}
    assert [m["row"] for m in found["missing"]] == ["pipo-sft", "pipo-opd"]
