"""On-policy distillation with roll-outs by a real SGLang server: its weights follow the trainer's, step by step."""

from __future__ import annotations

import json

import pytest

from pipo.jobs import LocalContext
from pipo.lab.tokenizer import lab_tokenizer
from pipo.model import load_model, save_model
from pipo.model.testing import tiny_model
from pipo.train.jobs import run_opd
from pipo.train.rollouts import MEMORY_DISK

pytestmark = [pytest.mark.slow, pytest.mark.runtime, pytest.mark.xdist_group("sglang_opd"), pytest.mark.timeout(600)]


def test_the_servers_log_probabilities_are_the_trainers_after_every_step(tmp_path):
    save_model(tiny_model(vocab=128), tmp_path / "student", lab_tokenizer())
    save_model(tiny_model(pipo=False, vocab=128, seed=5), tmp_path / "teacher", lab_tokenizer())
    rows = [{"prompt": f"<bos> chain a = {i % 10} + 2 ?"} for i in range(16)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    before = set(MEMORY_DISK.glob("pipo-student-*")) if MEMORY_DISK.is_dir() else set()
    spec = {"model": str(tmp_path / "student"), "teacher": str(tmp_path / "teacher"), "holdout": 0,
            "data": str(tmp_path / "prompts.jsonl"), "rollouts": 6, "epochs": 1.2, "max_slots": 8, "lr": 0.02,
            "lora_rank": 4, "lora_dropout": 0.0, "sample_every": 0, "engine": "sglang", "thresholds": [0.5],
            "server": {"cpu_rig": True}}  # fmt: skip
    result = run_opd(spec, LocalContext(tmp_path / "job"))
    rows = [json.loads(x) for x in (tmp_path / "job" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and load_model(result["model"]).is_pipo
    for row in rows:
        assert row["logprob_gap_max"] < 2e-3, row
    assert rows[0]["backbone_kl"] != rows[-1]["backbone_kl"]
    after = set(MEMORY_DISK.glob("pipo-student-*")) if MEMORY_DISK.is_dir() else set()
    assert after == before, "the folder of the weights goes when the training ends"
