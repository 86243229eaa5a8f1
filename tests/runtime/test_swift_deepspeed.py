"""ZeRO-2 of the real DeepSpeed on a CPU, two processes, against the embedded engine. Skipped where it is not installed.

DeepSpeed is built from source (``DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed``) and compiles its
communication on first use, so neither ``make setup`` nor CI has it. A job refuses it on a CPU: this is for tests alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipo.jobs import LocalContext
from pipo.sglang import machine
from pipo.swift import command, launch
from pipo.swift.checkpoint import latest
from pipo.train.settings import SFTSettings, convert
from tests.runtime.swift_runs import curve, embedded, furthest, write_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("swift-deepspeed"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(machine.installed("deepspeed") is None, reason="deepspeed is not installed"),
]
STEPS = 12


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SFTSettings:
    given: dict[str, Any] = {
        "model": "lab/base", "data": str(write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 200)),
        "recipe": "paper", "lora_dropout": 0.0, "lr": 2e-4, "accumulate": 4, "micro_rows": 2, "holdout": 8,
        "sample_every": 0, "log_every": 1, "save_every": 10, "epochs": STEPS * 8 / 192 + 1e-3, "backend": "swift",
        "processes": 2, "deepspeed": "zero2", "device": "cpu",
    }  # fmt: skip
    return convert(given, SFTSettings)


@pytest.fixture(scope="module")
def zero2(settings: SFTSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero2")
    run(settings, folder)
    return folder


def run(s: SFTSettings, folder: Path) -> None:
    ctx = LocalContext(folder)
    start = launch.prepare("sft", s, folder, ctx)
    made = command.make_command("sft", s, folder, start)._replace(port=machine.free_port("127.0.0.1"))
    with pytest.MonkeyPatch.context() as env:
        env.setenv("DS_ACCELERATOR", "cpu")
        launch.follow(made, folder, ctx)


def test_zero2_walks_the_embedded_curve(settings: SFTSettings, zero2: Path, tmp_path: Path) -> None:
    alone = embedded(settings, tmp_path)
    assert len(curve(alone)) == STEPS
    assert furthest(alone, zero2) < 1e-3


def test_zero2_has_the_embedded_gradient(settings: SFTSettings, zero2: Path, tmp_path: Path) -> None:
    """DeepSpeed would divide by the accumulation steps once more; AdamW hides that from the losses."""
    first = curve(embedded(settings, tmp_path))[0]["grad_norm"]
    assert curve(zero2)[0]["grad_norm"] == pytest.approx(first, rel=1e-4)


def test_zero2_resumes_exactly(settings: SFTSettings, zero2: Path) -> None:
    whole, output = curve(zero2), zero2 / command.OUTPUT
    last = latest(output)
    assert last is not None and last.name == f"checkpoint-{STEPS}"
    (last / "pipo.json").unlink()  # as if it had been cut short: step 10 is the newest whole one
    run(settings, zero2)
    again = curve(zero2)
    assert [r["backbone_loss"] for r in again] == pytest.approx([r["backbone_loss"] for r in whole], abs=2e-5)
    assert again[-1]["seconds"] != whole[-1]["seconds"], "nothing was done again"
