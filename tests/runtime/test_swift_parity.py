"""Trainings by ms-swift, real processes of it, against the embedded engine: the same curves, the same weights.

Dropout is off: the engines draw from different random streams. The rate is low: two processes add the same numbers up
in another order, and a high rate makes such differences grow (to 8e-3 in 20 steps at 1e-3). Every run is shared by the
tests of this module.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from pipo.config import child_environment
from pipo.errors import BadRecord, Cancelled, JobFailed
from pipo.jobs import LocalContext
from pipo.model import load_model
from pipo.swift import command, launch
from pipo.train import jobs
from pipo.train.settings import OPDSettings, SFTSettings, convert
from tests.runtime.swift_runs import Stopping, curve, embedded, furthest, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("swift-parity"), pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
STEPS, ROWS = 20, 2  # a micro-batch has two rows
CLOSE = 1e-3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solved problems of the lab: prompts and responses."""
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 2 * STEPS * ROWS * 4)


Settings = Callable[..., SFTSettings]


@pytest.fixture(scope="module")
def settings(data: Path) -> Settings:
    """``settings(accumulate, **more)`` for STEPS steps on the lab's base model."""

    def make(accumulate: int, **more: Any) -> SFTSettings:
        given = {
            "model": "lab/base", "data": str(data), "recipe": "paper", "lora_dropout": 0.0, "lr": 2e-4, "log_every": 1,
            "accumulate": accumulate, "micro_rows": ROWS, "holdout": 8, "sample_every": 0, "save_every": 100,
            "epochs": STEPS * accumulate * ROWS / (8 * STEPS * ROWS - 8) + 1e-3, **more,
        }  # fmt: skip
        return convert(given, SFTSettings)

    return make


@pytest.fixture(scope="module")
def full(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Every weight trained, one micro-batch a step: embedded, and one process of ms-swift."""
    folder = tmp_path_factory.mktemp("full")
    s = settings(1, tuner="full", backend="swift", lr=1e-4)
    launch.run("sft", s, folder / "swift", LocalContext(folder / "swift"))
    return embedded(s, folder / "torch"), folder / "swift"


@pytest.fixture(scope="module")
def lora(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA, four micro-batches a step, embedded."""
    return embedded(settings(4), tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def stopped(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on one process of ms-swift, stopped on the way and gone on with by the same call."""
    folder = tmp_path_factory.mktemp("stopped")
    s = settings(4, backend="swift")
    with pytest.raises(Cancelled):
        launch.run("sft", s, folder, Stopping(folder, 6))
    assert not (folder / "model").exists(), "it ran to its end; nothing was resumed"
    launch.run("sft", s, folder, LocalContext(folder))
    return folder


@pytest.fixture(scope="module")
def pair(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on two processes."""
    folder = tmp_path_factory.mktemp("pair")
    launch.run("sft", settings(4, backend="swift", processes=2), folder, LocalContext(folder))
    return folder


def distance(a: Path, b: Path) -> float:
    """How far two files of weights are from one another, by the length of all they hold."""
    one, two = load_file(a), load_file(b)
    assert one.keys() == two.keys()
    apart = sum(float((one[n].float() - two[n].float()).square().sum()) for n in one)
    whole = sum(float(one[n].float().square().sum()) for n in one)
    return float((apart / whole) ** 0.5)


def test_full_training_walks_the_same_curve(full: tuple[Path, Path]) -> None:
    assert len(curve(full[0])) == STEPS
    assert furthest(*full) < CLOSE


def test_full_training_ends_in_the_same_weights(full: tuple[Path, Path]) -> None:
    one, two = (f / "model" / "model.safetensors" for f in full)
    assert distance(one, two) < CLOSE


def test_a_stopped_and_resumed_training_walks_the_same_curve(lora: Path, stopped: Path) -> None:
    assert len(curve(lora)) == STEPS
    assert furthest(lora, stopped) < CLOSE


def test_two_processes_walk_the_same_curve(lora: Path, pair: Path) -> None:
    assert furthest(lora, pair) < CLOSE


@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "model/model.safetensors"])
def test_adapters_and_merged_weights_are_the_same(lora: Path, stopped: Path, pair: Path, file: str) -> None:
    assert distance(lora / file, stopped / file) < CLOSE
    assert distance(lora / file, pair / file) < CLOSE


def test_means_of_the_gate_are_those_of_all_processes(lora: Path, pair: Path) -> None:
    assert furthest(lora, pair, ("confidence", "confidence_target", "kept@0.5", "pad_ratio")) < 5e-3


def test_flags_come_back_as_the_settings_they_were(full: tuple[Path, Path], pair: Path) -> None:
    for folder in (full[1], pair):
        s = command.read_settings("sft", folder / command.SETTINGS)
        said = SimpleNamespace(**json.loads((folder / command.OUTPUT / "args.json").read_text()))
        assert command.settings_of(s, said, s.processes) == s


def test_a_flag_that_ms_swift_does_not_know_is_told_in_one_line(settings: Settings, tmp_path: Path) -> None:
    s, ctx = settings(4, backend="swift"), LocalContext(tmp_path)
    launch.prepare("sft", s, tmp_path, ctx)
    made = command.make_command("sft", s, tmp_path)
    with pytest.raises(JobFailed, match=r"remaining_argv: \['--no_such', '1'\]") as told:
        launch.follow(made._replace(arguments=[*made.arguments, "--no_such", "1"]), tmp_path, ctx)
    assert "\n" not in str(told.value)


def test_what_a_process_finds_wrong_with_the_data_keeps_its_type(settings: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "response": "b"}\n{"prompt": 1}\n')
    s = SFTSettings(**{**{k: getattr(settings(4, backend="swift"), k) for k in SFTSettings.__struct_fields__},
                       "data": str(bad)})  # fmt: skip
    with pytest.raises(BadRecord, match=r"bad.jsonl:2"):
        launch.run("sft", s, tmp_path / "job", LocalContext(tmp_path / "job"))


def test_ms_swift_called_by_hand_needs_the_plugin_and_its_own_flags_alone(data: Path, tmp_path: Path) -> None:
    words = (
        f"--external_plugins {ROOT}/pipo/swift/plugin.py --model {ROOT}/pipo/lab/models/base --model_type pipo "
        f"--template pipo --tuner_type pipo --optimizer pipo --dataset {data} --split_dataset_ratio 0 --seed 0 "
        f"--lazy_tokenize true --check_model false --output_dir {tmp_path}/out --add_version false --use_cpu true "
        "--torch_dtype float32 --fp16 false --bf16 false --report_to none --logging_steps 1 --num_train_epochs 0.03 "
        "--per_device_train_batch_size 2 --gradient_accumulation_steps 2 --lora_rank 4 --learning_rate 5e-4"
    )
    env = {**child_environment(), "MODELSCOPE_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "swift.cli.main", "sft", *words.split()]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = curve(tmp_path / "out")
    assert [r["step"] for r in rows] == [1, 2]
    assert rows[0]["lr"] > 1e-4, "the flag's rate is above the paper's"
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 32.0), "the flag's rank, and ms-swift's own default"
    assert load_model(tmp_path / "out" / "model").is_pipo


def test_opd_on_two_processes_walks_the_same_curve(data: Path, tmp_path: Path) -> None:
    given = {
        "model": "lab/pipo-sft", "teacher": "lab/teacher", "data": str(data), "recipe": "paper", "lora_dropout": 0.0,
        "rollouts": 4, "micro_rows": 2, "log_every": 1, "epochs": 0.06, "max_slots": 24, "holdout": 2,
        "sample_every": 0, "lr": 1e-3,
    }  # fmt: skip
    one, two = tmp_path / "torch", tmp_path / "swift"
    jobs.train_opd(convert(given, OPDSettings), one, LocalContext(one))
    both = convert({**given, "backend": "swift", "processes": 2}, OPDSettings)
    launch.run("opd", both, two, LocalContext(two))
    assert len(curve(one)) > 2
    assert furthest(one, two, ("backbone_kl", "mtp_kl", "confidence_loss", "finished", "slots")) < CLOSE
