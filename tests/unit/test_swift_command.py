"""What ms-swift is started with, what comes back from its flags, what is refused before. No ms-swift runs here."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipo.errors import BadInput, BadRecord, Cancelled, JobFailed
from pipo.jobs import LocalContext
from pipo.lab.family import resolve_model
from pipo.sglang import machine
from pipo.swift import command, launch
from pipo.train.settings import OPDSettings, SFTSettings


def sft(tmp_path: Path, **more: Any) -> SFTSettings:
    return SFTSettings(**{"model": "lab/base", "data": str(tmp_path / "rows.jsonl"), "backend": "swift", **more})


def opd(tmp_path: Path, **more: Any) -> OPDSettings:
    given = {"model": "lab/pipo-sft", "teacher": "lab/teacher", "data": str(tmp_path / "p.jsonl"), "backend": "swift"}
    return OPDSettings(**{**given, **more})


def flags(words: list[str]) -> dict[str, str]:
    return {w[2:]: words[i + 1] for i, w in enumerate(words) if w.startswith("--")}


def parsed(words: list[str]) -> SimpleNamespace:
    """Roughly what ms-swift makes of flags: numbers and booleans where they are some."""
    found: dict[str, Any] = {"max_length": None, "warmup_steps": 0, **flags(words)}
    for key, text in found.items():
        if text in ("true", "false"):
            found[key] = text == "true"
        elif isinstance(text, str) and key not in ("model", "dataset"):
            try:
                found[key] = int(text)
            except ValueError:
                try:
                    found[key] = float(text)
                except ValueError:
                    continue
    return SimpleNamespace(**{**found, "dataset": [found["dataset"]]})


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: False)


# The command


def test_the_batch_is_spread_over_processes(tmp_path: Path) -> None:
    found = flags(command.make_command("sft", sft(tmp_path, accumulate=32, processes=8, micro_rows=2), tmp_path)[0])
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == ("2", "4")


def test_what_ms_swift_has_no_flag_for_lies_in_the_settings_file(tmp_path: Path) -> None:
    s = sft(tmp_path, rho_max=0.125, start="identity")
    words = command.make_command("sft", s, tmp_path).arguments
    command.write_files("sft", s, tmp_path)
    assert "0.125" not in words and "identity" not in words
    assert command.read_settings("sft", tmp_path / command.SETTINGS) == s
    assert f'register("sft", Path(__file__).with_name("{command.SETTINGS}"))' in (tmp_path / command.PLUGIN).read_text()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tuner": "full", "lr": 3e-5, "warmup": 0.0, "min_lr": 0.1, "seed": 7, "clip": 0.5, "max_length": None},
        {"micro_rows": None, "micro_tokens": 4096, "accumulate": 24, "processes": 8, "gradient_checkpointing": True},
        {"lora_rank": 8, "lora_alpha": 12.5, "lora_dropout": 0.0, "epochs": 0.5, "save_every": 3, "log_every": 2},
    ],
)
def test_flags_come_back_as_the_settings_they_were(more: dict[str, Any], tmp_path: Path) -> None:
    s = sft(tmp_path, **more)
    said = parsed(command.make_command("sft", s, tmp_path).arguments)
    assert command.settings_of(s, said, s.processes) == s


def test_settings_of_opd_come_back_as_well(tmp_path: Path) -> None:
    s = opd(tmp_path, rollouts=48, processes=4, micro_rows=3)
    said = parsed(command.make_command("opd", s, tmp_path).arguments)
    assert command.settings_of(s, said, 4) == s


def test_a_flag_changed_by_hand_goes_before_the_settings_file(tmp_path: Path) -> None:
    s = sft(tmp_path)
    said = parsed(command.make_command("sft", s, tmp_path).arguments)
    said.learning_rate, said.gradient_accumulation_steps, said.lora_rank = 5e-4, 3, 16
    found = command.settings_of(s, said, 2)
    assert (found.lr, found.accumulate, found.lora_rank, found.processes) == (5e-4, 6, 16, 2)


def test_warmup_is_read_where_ms_swift_puts_it_and_no_number_of_steps(tmp_path: Path) -> None:
    s = sft(tmp_path)
    said = parsed(command.make_command("sft", s, tmp_path).arguments)
    said.warmup_ratio, said.warmup_steps = 0.0, 0.2
    assert command.settings_of(s, said, 1).warmup == 0.2
    said.warmup_steps = 40
    with pytest.raises(BadInput, match="40 is a number of steps"):
        command.settings_of(s, said, 1)


def test_tuners_of_ms_swift_that_know_no_pairs_are_refused(tmp_path: Path) -> None:
    s = sft(tmp_path)
    said = parsed(command.make_command("sft", s, tmp_path).arguments)
    said.tuner_type = "lora"
    with pytest.raises(BadInput, match="--tuner_type lora is not made for PIPO"):
        command.settings_of(s, said, 1)


def test_the_shown_command_is_what_a_shell_reads_and_its_files_are_there(tmp_path: Path) -> None:
    words = command.command(sft(tmp_path, processes=2))
    assert words[:3] == ["NPROC_PER_NODE=2", "swift", "sft"]
    assert shlex.split(shlex.join(words)) == words
    plugin = Path(flags(words)["external_plugins"])
    assert plugin.is_file() and command.read_settings("sft", plugin.with_name(command.SETTINGS)).processes == 2
    assert command.command(sft(tmp_path, processes=2)) == words, "the same settings have the same folder"


def test_one_process_runs_ms_swifts_script_and_several_run_torchrun(tmp_path: Path) -> None:
    one = command.Command(["--seed", "1"])
    assert (
        one.line[0] == sys.executable
        and one.line[2].endswith("swift/cli/sft.py")
        and "NPROC_PER_NODE" not in one.variables
    )
    two = command.Command([], 2, 1234)
    assert two.line[2:][:6] == ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "1234"]


def test_another_launchers_variables_do_not_reach_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("NPROC_PER_NODE", "8")
    env = command.Command([]).environment()
    assert "RANK" not in env and "NPROC_PER_NODE" not in env


# Refused before anything starts


def test_deepspeed_on_a_cpu_is_refused_in_one_line(tmp_path: Path, no_gpu: None) -> None:
    why = command.unusable(sft(tmp_path, deepspeed="zero2"))
    assert why is not None and "needs GPUs" in why and "\n" not in why


def test_deepspeed_has_its_config_passed_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    found = flags(command.make_command("sft", sft(tmp_path, deepspeed="zero2", processes=8), tmp_path).arguments)
    config = json.loads(Path(found["deepspeed"]).read_text())
    assert config["zero_optimization"]["stage"] == 2 and "use_cpu" not in found and "ddp_backend" not in found
    assert "optimizer" not in config and "scheduler" not in config, "ours are used"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"optimizer": "muon"}, "optimizer muon runs on the torch backend only"),
        ({"warmup": 1.0}, "warmup 1.0 must be below 1"),
    ],
)
def test_settings_that_ms_swift_cannot_follow_are_refused(more: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert text in str(command.unusable(sft(tmp_path, **more)))


@pytest.mark.parametrize(
    ("version", "text"), [(None, "is not installed; `make swift`"), ("4.5.0", "4.5.0 is installed")]
)
def test_a_missing_or_another_ms_swift_is_named(
    version: str | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "installed", lambda package: version)
    with pytest.raises(BadInput, match=text):
        launch.run("sft", sft(tmp_path), tmp_path, LocalContext(tmp_path))


def test_a_model_folder_with_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')
    with pytest.raises(BadInput, match="auto_map"):
        command.make_command("sft", sft(tmp_path, model=str(tmp_path)), tmp_path)
    command.check_no_code(resolve_model("lab/base"))


def test_resuming_from_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    s = sft(tmp_path, resume=str(tmp_path))
    with pytest.raises(BadInput, match="holds no checkpoint of ms-swift"):
        launch.prepare("sft", s, tmp_path / "new", LocalContext(tmp_path / "new"))


def test_resuming_takes_the_newest_whole_checkpoint_of_the_same_settings_only(tmp_path: Path) -> None:
    s, old, ctx = sft(tmp_path), tmp_path / "old", LocalContext(tmp_path / "new")
    command.write_files("sft", s, old)
    for step, whole in ((5, True), (10, True), (15, False)):
        (old / "swift" / f"checkpoint-{step}").mkdir(parents=True)
        if whole:
            (old / "swift" / f"checkpoint-{step}" / "pipo.json").write_text("{}")
    (old / "metrics.jsonl").write_text("rows\n")
    again = sft(tmp_path, resume=str(old))
    assert launch.prepare("sft", again, tmp_path / "new", ctx) == old / "swift" / "checkpoint-10"
    assert (tmp_path / "new" / "metrics.jsonl").read_text() == "rows\n"
    with pytest.raises(BadInput, match=r"trained with lr 0.0001, not 0.001"):
        launch.prepare("sft", sft(tmp_path, resume=str(old), lr=1e-3), tmp_path / "other", ctx)


# Processes that end badly, or on request


class Script(command.Command):
    """A command whose process is a piece of Python."""

    @property
    def line(self) -> list[str]:
        return [sys.executable, "-c", self.arguments[0]]


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("from pipo.errors import BadRecord; raise BadRecord('f.jsonl:3: no row')", BadRecord, "^f.jsonl:3: no row$"),
        ("raise ValueError('remaining_argv: [1]')", JobFailed, "exit code 1: ValueError: remaining_argv"),
        ("raise MemoryError('DefaultCPUAllocator')", JobFailed, "ran out of memory; lower micro_rows"),
        ("import os; os.kill(os.getpid(), 9)", JobFailed, r"was killed \(signal 9\)"),
        ("import sys; print('last words'); sys.exit(3)", JobFailed, "exit code 3: last words"),
    ],
)
def test_a_process_that_fails_is_told_in_one_line(code: str, kind: type, text: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=text) as told:
        launch.follow(Script([code]), tmp_path, LocalContext(tmp_path))
    assert "\n" not in str(told.value)


def test_events_of_the_process_are_passed_on_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    code = (
        "import json\n"
        "with open('events.jsonl', 'a') as f:\n"
        "    for i in range(3): f.write(json.dumps({'kind': 'metric', 'data': {'step': i}}) + '\\n'); f.flush()\n"
    )
    launch.follow(Script([code]), tmp_path, LocalContext(tmp_path, lambda k, d: heard.append((k, d))))
    assert heard == [("metric", {"step": i}) for i in range(3)]


def test_a_cancel_before_training_begins_ends_the_processes_at_once(tmp_path: Path) -> None:
    ctx = LocalContext(tmp_path)
    ctx.cancelled = True
    with pytest.raises(Cancelled):
        launch.follow(Script(["import time; time.sleep(60)"]), tmp_path, ctx)


def test_a_cancel_in_training_asks_by_a_file_and_waits(tmp_path: Path) -> None:
    code = (
        "import json, pathlib, time\n"
        "pathlib.Path('events.jsonl').write_text(json.dumps({'kind': 'begins', 'data': {}}) + '\\n')\n"
        "while not pathlib.Path('stop').exists(): time.sleep(0.05)\n"
        "time.sleep(1); pathlib.Path('saved').touch()\n"
    )
    ctx = LocalContext(tmp_path)

    class Later(LocalContext):
        def check(self) -> None:
            self.cancelled = (tmp_path / "events.jsonl").exists()
            super().check()

    ctx = Later(tmp_path)
    with pytest.raises(Cancelled):
        launch.follow(Script([code]), tmp_path, ctx)
    assert (tmp_path / "saved").exists()
