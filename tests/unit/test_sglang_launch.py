"""What a server is started with, and what is refused before it is. No SGLang here."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pipo.engine.types import Method
from pipo.errors import BadInput, BadModel
from pipo.sglang import launch, machine
from pipo.sglang.facts import read_facts
from pipo.sglang.launch import ServerSettings
from tests.unit.sglang_fakes import model_folder, pipo_folder


def flags(folder: Path, method: str, **settings: object) -> list[str]:
    s = ServerSettings(**settings)  # type: ignore[arg-type]
    return launch.command_line(read_facts(folder), Method(method), s, "127.0.0.1", 1234, "tiny", True)[4:]  # type: ignore[arg-type]


def value(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed", lambda package: launch.VERSION)
    monkeypatch.setattr(launch, "entry_points", lambda group: [type("E", (), {"value": "pipo.sglang.plugin:activate"})])


# Command and environment


def test_a_gpu_server_leaves_choices_to_sglang_and_takes_hidden_states_out(tmp_path: Path) -> None:
    words = flags(pipo_folder(tmp_path), "pipo", devices="0,1", tp=2)
    assert {"--enable-return-hidden-states", "--disable-overlap-schedule"} <= set(words)
    assert (value(words, "--tp-size"), value(words, "--load-format")) == ("2", "safetensors")
    assert not {"--device", "--attention-backend", "--trust-remote-code", "--max-total-tokens"} & set(words)


def test_a_regular_model_on_a_gpu_is_plain_sglang(tmp_path: Path) -> None:
    words = flags(model_folder(tmp_path), "regular")
    assert "--enable-return-hidden-states" not in words
    assert "--disable-overlap-schedule" in words, "under it penalties come late; all methods run without"


def test_the_rig_computes_on_the_cpu_in_float32_with_sizes_of_its_own(tmp_path: Path) -> None:
    words = flags(pipo_folder(tmp_path), "pipo", cpu_rig=True, max_running=8, radix_cache=False)
    assert (value(words, "--device"), value(words, "--dtype")) == ("cpu", "float32")
    assert (value(words, "--max-total-tokens"), value(words, "--max-mamba-cache-size")) == ("65536", "32")
    assert "--disable-radix-cache" in words and words.count("--disable-overlap-schedule") == 1


def test_flags_of_sglang_are_passed_on_last(tmp_path: Path) -> None:
    assert flags(model_folder(tmp_path), "regular", flags=("--schedule-policy", "lpm"))[-2:] == [
        "--schedule-policy", "lpm",
    ]  # fmt: skip


def test_the_environment_names_devices_and_puts_stubs_on_the_path_of_the_rig_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_PLUGINS", "others")
    facts = read_facts(model_folder(tmp_path))
    gpu = launch.server_environment(facts, ServerSettings(devices="3"))
    rig = launch.server_environment(facts, ServerSettings(cpu_rig=True))
    assert gpu["CUDA_VISIBLE_DEVICES"] == "3" and "stubs" not in gpu.get("PYTHONPATH", "")
    assert rig["PYTHONPATH"].split(os.pathsep)[0].endswith("stubs") and rig["OMP_NUM_THREADS"] == "1"
    assert gpu["SGLANG_RETURN_ORIGINAL_LOGPROB"] == "1" and "SGLANG_PLUGINS" not in gpu


# Refused before anything loads


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tp": 0}, "tp 0 must be at least 1"),
        ({"memory_fraction": 1.5}, "memory fraction 1.5 must lie between 0 and 1"),
        ({"port": 70000}, "port 70000"),
        ({"devices": "0;1"}, "numbers of GPUs with commas"),
        ({"devices": "0,0"}, "each once"),
        ({"devices": "0,1", "tp": 2, "dp": 2}, "needs 4 GPUs"),
        ({"devices": "0", "cpu_rig": True}, "exclude each other"),
        ({"flags": ("--trust-remote-code",)}, "runs code out of the model folder"),
        ({"flags": ("--enable-dp-attention",)}, "not made for pairs"),
        ({"flags": ("--api_key=abc",)}, "--api-key-file"),
        ({"flags": ("--port", "1")}, "--port is set by pipo"),
    ],
)
def test_bad_settings_are_one_message(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ServerSettings(**settings)  # type: ignore[arg-type]


def test_another_version_of_sglang_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed", lambda package: "0.6.0")
    assert "sglang 0.6.0 is installed, pipo's hooks are for 0.5.23" in (launch.unusable(ServerSettings()) or "")
    monkeypatch.setattr(machine, "installed", lambda package: None)
    assert "not installed" in (launch.unusable(ServerSettings()) or "")


def test_without_a_gpu_the_way_out_is_the_rig(usable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    assert "--cpu-rig" in (launch.unusable(ServerSettings()) or "")
    assert launch.unusable(ServerSettings(cpu_rig=True)) is None


def test_without_our_entry_point_sglang_would_not_find_the_plugin(
    usable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "entry_points", lambda group: [])
    assert "would not find pipo's plugin" in (launch.unusable(ServerSettings(cpu_rig=True)) or "")


def test_a_pipo_config_over_a_backbone_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "mtp.fc.weight", compressor_type="mlp")
    with pytest.raises(BadModel, match=r"no compressor\. and no confidence_head\."):
        read_facts(folder)


def test_a_compressor_without_its_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no compressor_type"):
        read_facts(model_folder(tmp_path, "compressor.linear.weight"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"vocab_size": (1 << 20) + 1}, "does not fit a pair"),
        ({"pad_token_id": None}, "no pad_token_id"),
        ({"pad_token_id": 200}, "outside the vocabulary"),
        ({"pad_token_id": 2}, "PAD and EOS share id 2"),
        ({"model_type": "llama"}, "'llama' is not supported"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings"),
    ],
)
def test_a_config_that_pairs_cannot_use_is_refused(config: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=words):
        read_facts(pipo_folder(tmp_path, **config))


def test_a_vocabulary_of_two_to_the_twenty_is_served(tmp_path: Path) -> None:
    assert read_facts(pipo_folder(tmp_path, vocab_size=1 << 20)).is_pipo


@pytest.mark.parametrize("damage", ["config", "json", "weights", "header"])
def test_a_damaged_folder_is_named(damage: str, tmp_path: Path) -> None:
    folder = pipo_folder(tmp_path)
    if damage == "config":
        (folder / "config.json").unlink()
    elif damage == "json":
        (folder / "config.json").write_text("[]")
    elif damage == "weights":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadModel, match=str(folder)):
        read_facts(folder)


@pytest.mark.parametrize(
    ("pipo", "method", "words"),
    [
        (False, "pipo", "has no compressor"),
        (True, "regular", "is a PIPO model"),
        (True, "eagle", "is a PIPO model"),
        (False, "mtp", "has no mtp"),
        (False, "random", "needs a PIPO model"),
        (True, "random", "control for studies"),
    ],
)
def test_methods_that_do_not_run_are_refused(pipo: bool, method: str, words: str, tmp_path: Path) -> None:
    facts = read_facts((pipo_folder if pipo else model_folder)(tmp_path))
    with pytest.raises(BadInput, match=words):
        launch.check_method(facts, Method(method))  # type: ignore[arg-type]


def test_too_little_memory_is_said_before_anything_loads(
    usable: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 5 << 30)
    model_folder(tmp_path, shape=(1 << 30, 1))
    with pytest.raises(BadInput, match=r"needs about 6\.0 GiB of memory at least, 5\.0 GiB are free"):
        launch.plan(tmp_path, Method("regular"), ServerSettings(cpu_rig=True))


def test_a_port_in_use_is_refused(usable: None, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} of 127.0.0.1 cannot be used"):
            launch.plan(model_folder(tmp_path), Method("regular"), ServerSettings(cpu_rig=True, port=port))


def test_a_host_of_another_machine_is_refused() -> None:
    with pytest.raises(BadInput, match=r"192\.0\.2\.1"):
        machine.free_port("192.0.2.1")
