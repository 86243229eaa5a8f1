"""Calibration numbers against hand-made cases."""

import json
import random

import pytest
import torch

from pipo.data.rows import Row
from pipo.model.testing import tiny_model
from pipo.train.calibrate import calibration, reliability, write_calibration
from pipo.train.data import collate_pairs
from pipo.train.jobs import hold_out
from pipo.train.objectives import PipoSFT


def test_reliability_by_hand():
    found = reliability(torch.tensor([0.95, 0.95, 0.15, 1.0]), torch.tensor([1.0, 0.8, 0.25, 0.9]))
    assert found["drafts"] == 4
    top, low = found["bins"][9], found["bins"][1]
    assert top["count"] == 3 and top["confidence"] == pytest.approx(2.9 / 3) and top["target"] == pytest.approx(0.9)
    assert low["count"] == 1 and low["confidence"] == pytest.approx(0.15)
    assert found["ece"] == pytest.approx((3 * abs(2.9 / 3 - 0.9) + 0.1) / 4, abs=1e-6)
    assert found["brier"] == pytest.approx((0.05**2 + 0.15**2 + 0.1**2 + 0.1**2) / 4, abs=1e-6)
    kept = {k["threshold"]: k for k in found["kept"]}
    assert kept[0.5]["share"] == 0.75 and kept[0.5]["target"] == pytest.approx(0.9) and kept[0.0]["share"] == 1


def test_no_drafts_have_no_error():
    found = reliability(torch.zeros(0), torch.zeros(0))
    assert found["ece"] is None and found["drafts"] == 0 and found["kept"][0]["share"] is None


def test_calibration_reads_every_supervised_draft_and_leaves_the_training_tally_alone(tmp_path):
    model, objective = tiny_model(), PipoSFT()
    objective.tally.add("x", 1, 1)
    rows = [Row([1, 5], [6, 7, 8, 2]), Row([1, 5, 6], [7, 8, 2])]
    batch = collate_pairs(0, "split", 0.0, 0.0)(rows, random.Random(0))
    found = calibration(model, objective, [batch, batch])
    assert found["drafts"] == 2 * objective.counts(batch)[1] == 6
    assert objective.metrics() == {"x": 1}
    shown = write_calibration(tmp_path, "sft", found)
    assert shown["ece"] == found["ece"] and json.loads((tmp_path / "calibration.json").read_text())["stage"] == "sft"


def test_held_out_rows_share_no_prompt_with_the_others():
    keys = [i // 4 for i in range(100)]
    rest, out = hold_out(list(range(100)), keys, 64, 0)
    assert sorted(rest + out) == list(range(100)) and len(out) == 8, "a tenth at most, whole prompts"
    assert not {keys[i] for i in rest} & {keys[i] for i in out}
    assert hold_out(list(range(9)), list(range(9)), 64, 0)[1] == [] == hold_out([1] * 50, [1] * 50, 0, 0)[1]


def test_rows_of_a_file_are_held_out_by_prompt_and_stay_packed(tmp_path):
    from pipo.data.packed import PackedRows
    from pipo.jobs import LocalContext
    from pipo.lab.tokenizer import lab_tokenizer
    from pipo.train.jobs import sft_plan, sft_rows
    from pipo.train.settings import SFTSettings

    lines = [
        {"prompt": f"<bos> chain a = {i % 25 % 10} + {i % 25 // 10} ?", "response": f"{i % 10} <eos>"}
        for i in range(100)
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    said = []
    settings = SFTSettings(model="m", data=str(tmp_path / "d.jsonl"), micro_rows=2, accumulate=3, epochs=1)
    rows, out = sft_rows(
        settings, lab_tokenizer(), LocalContext(tmp_path, lambda kind, data: said.append(data["text"]))
    )
    assert isinstance(rows, PackedRows) and len(rows) == 92 and len(out) == 8 and "100 rows" in said[0]
    assert not {tuple(r.prompt) for r in rows} & {tuple(r.prompt) for r in out}
    assert len({r.source for r in [*rows, *out]}) == 100
    assert rows.lengths() == [len(r.prompt) + len(r.response) for r in rows]
    assert len(sft_plan(settings, rows).steps) == 92 // 6
