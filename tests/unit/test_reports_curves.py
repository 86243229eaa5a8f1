"""Trainings in a report: from the job's folder to figure, tables and text; what is missing is left out."""

import json

import pytest

import reports
from bench.train import run_sft
from pipo.errors import BadRecord
from pipo.jobs import LocalContext
from pipo.lab.tokenizer import lab_tokenizer
from pipo.model import save_model
from pipo.model.testing import tiny_model
from reports import curves
from reports.load import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real training of a few steps, as the daemon's worker runs it."""
    where = tmp_path_factory.mktemp("training")
    save_model(tiny_model(pipo=False, vocab=128), where / "base", lab_tokenizer())
    row = {"prompt": "<bos> chain a = {} + 2 ?", "response": "a 4 + 2 = 6 \\boxed{{ 6 }} <eos>"}
    lines = [json.dumps({k: v.format(i % 10) for k, v in row.items()}) for i in range(40)]
    (where / "data.jsonl").write_text("\n".join(lines) + "\n")
    spec = {"model": str(where / "base"), "data": str(where / "data.jsonl"), "recipe": "lab", "log_every": 1,
            "micro_tokens": 128, "out": str(where / "secret")}  # fmt: skip
    run_sft(spec, LocalContext(where / "job"))
    return where / "job"


def test_a_training_is_a_run_with_provenance(folder):
    run = load(folder)
    assert run.kind == "train-sft" and run.records == 0 and len(run.rows) == run.summary["result"]["steps"]
    assert run.run.spec["optimizer"] == "muon" and len(run.run.provenance.settings_hash) == 16
    assert run.summary["calibration"]["stage"] == "sft"


def test_its_report_has_the_figure_the_steps_and_the_gate(folder, tmp_path):
    text = reports.build([folder], tmp_path).read_text()
    assert "![Losses, confidence and calibration](train-sft.png)" in text and (tmp_path / "train-sft.svg").exists()
    assert "| step | tokens | backbone loss | mtp loss | confidence loss |" in text
    assert "### What the gate would keep, on held-out rows" in text and "settings hash" in text
    assert "In short" not in text, "a training alone answers nothing about decoding"
    assert "secret" not in text
    rows = (tmp_path / "train-sft.csv").read_text().splitlines()
    assert len(rows) == 1 + load(folder).summary["result"]["steps"]


def test_the_figure_has_six_panels_whose_axes_are_named(folder):
    axes = curves.figure(load(folder)).axes
    assert len(axes) == 6 and all(a.get_xlabel() and a.get_ylabel() and a.get_title() for a in axes)


def test_steps_in_the_table_hold_first_and_last(folder):
    run = load(folder)
    table = curves.steps_table(run).splitlines()[2:]
    assert len(table) <= curves.ROWS_IN_TABLE
    assert table[0].startswith("| 1 |") and table[-1].startswith(f"| {run.rows[-1]['step']} |")


def test_an_unfinished_training_is_refused(folder, tmp_path):
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    with pytest.raises(BadRecord, match="the run has not finished"):
        load(tmp_path)
