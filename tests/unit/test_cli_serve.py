"""``pipo serve``, ``pipo engines`` and ``--engine``: what they refuse, what they start and submit. No SGLang here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipo.cli import main
from pipo.errors import BadInput
from pipo.sglang import launch, machine, server
from tests.unit.cli_fakes import FakeClient
from tests.unit.sglang_fakes import SERVER, model_folder, pipo_folder, script_launch


class Said(NamedTuple):
    code: int
    out: str
    err: str


Pipo = Callable[..., Said]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    return fake


@pytest.fixture
def pipo(
    client: FakeClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Pipo:
    monkeypatch.setenv("PIPO_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> Said:
        with pytest.raises(SystemExit) as end:
            main(argv)
        code = end.value.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(code if isinstance(code, int) else 1, said.out, said.err)

    return run


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed", lambda package: launch.VERSION)
    monkeypatch.setattr(launch, "entry_points", lambda group: [type("E", (), {"value": "pipo.sglang.plugin:activate"})])
    monkeypatch.setattr(machine, "has_gpu", lambda: False)


# --engine


def test_a_job_on_sglang_says_so_in_its_settings(pipo: Pipo, client: FakeClient, usable: None) -> None:
    assert pipo("eval", "lab/pipo-opd", "--engine", "sglang", "--cpu-rig", "--tp", "2", "--no-radix-cache").code == 0
    spec = client.submitted[0][1]
    assert (spec["engine"], spec["server"]) == ("sglang", {"cpu_rig": True, "tp": 2, "radix_cache": False})


@pytest.mark.parametrize(
    "command", [("bench", "compare"), ("generate", "lab/base", "a"), ("ablate", "threshold", "--no-random")]
)
def test_each_sampling_command_takes_an_engine(
    command: tuple[str, ...], pipo: Pipo, client: FakeClient, usable: None
) -> None:
    assert pipo(*command, "--engine", "sglang", "--cpu-rig").code == 0
    assert client.submitted[0][1]["engine"] == "sglang"


def test_torch_is_the_default_and_adds_nothing(pipo: Pipo, client: FakeClient) -> None:
    assert pipo("eval", "lab/base").code == 0
    assert not {"engine", "server"} & set(client.submitted[0][1])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--engine", "vllm"), "--engine 'vllm' is none of torch, sglang"),
        (("--cpu-rig",), "--cpu-rig has no effect on the torch engine"),
        (("--tp", "2"), "--tp has no effect on the torch engine"),
        (("--engine", "sglang"), "no GPU is seen here; --cpu-rig"),
        (("--engine", "sglang", "--cpu-rig", "--devices", "0"), "exclude each other"),
        (("--engine", "sglang", "--cpu-rig", "--memory-fraction", "2"), "memory fraction 2.0"),
    ],
)
def test_a_bad_engine_is_one_message_and_no_job(
    argv: tuple[str, ...], words: str, pipo: Pipo, client: FakeClient, usable: None
) -> None:
    said = pipo("eval", "lab/base", *argv)
    assert said.code == 2 and words in said.err and client.submitted == []


def test_another_version_is_refused_before_a_job_is(
    pipo: Pipo, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "installed", lambda package: "0.6.1")
    said = pipo("bench", "compare", "--engine", "sglang", "--cpu-rig")
    assert said.code == 2 and "sglang 0.6.1 is installed" in said.err and client.submitted == []


def test_coin_flips_stay_with_torch(pipo: Pipo, usable: None) -> None:
    said = pipo("ablate", "threshold", "--engine", "sglang", "--cpu-rig")
    assert said.code == 2 and "--no-random" in said.err


# pipo engines


def test_engines_say_what_runs_here(pipo: Pipo, usable: None) -> None:
    torch, sglang = json.loads(pipo("engines", "--json").out)
    assert torch["methods"] == ["regular", "mtp", "eagle", "pipo", "random"]
    assert (sglang["version"], sglang["runs"]) == (launch.VERSION, "with --cpu-rig")
    assert "random" in sglang["refused"] and "pipo" in sglang["methods"]
    assert "random" in pipo("engines").err


def test_engines_list_the_hooks(pipo: Pipo) -> None:
    from pipo.sglang.table import HOOKS, RIG_HOOKS

    listed = json.loads(pipo("engines", "--hooks", "--json").out)
    assert [h["target"] for h in listed] == [h.target for h in (*HOOKS, *RIG_HOOKS)]
    assert "without it:" in pipo("engines", "--hooks").out


# pipo serve


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("lab/base",), "no GPU is seen here"),
        (("lab/nothing", "--cpu-rig"), "nothing"),
        (("/no/such/folder", "--cpu-rig"), "neither a folder nor a lab model"),
        (("lab/base", "lab/control", "--cpu-rig"), "unexpected 'lab/control'"),
        (("lab/base", "--cpu-rig", "--", "--trust-remote-code"), "runs code out of the model folder"),
        (("lab/base", "--cpu-rig", "--method", "pipo"), "has no compressor"),
        (("lab/pipo-opd", "--cpu-rig", "--method", "regular"), "is a PIPO model"),
        (("lab/base", "--cpu-rig", "--method", "vllm"), "unknown method"),
        (("lab/base", "--cpu-rig", "--port", "99999"), "port 99999"),
        (("lab/base", "--cpu-rig", "--host", "192.0.2.1"), "192.0.2.1"),
        (("lab/base", "--cpu-rig", "--api-key-file", "/no/such/file"), "cannot be read"),
    ],
)
def test_serve_refuses_with_one_message(argv: tuple[str, ...], words: str, pipo: Pipo, usable: None) -> None:
    said = pipo("serve", *argv)
    assert said.code == 2 and words in said.err, said.err


def test_serve_refuses_a_checkpoint_without_heads(pipo: Pipo, usable: None, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", compressor_type="mlp")
    said = pipo("serve", str(folder), "--cpu-rig")
    assert said.code == 2 and "a PIPO model has all three heads" in said.err


@pytest.mark.parametrize("text", ["", "two words", "line\nline"])
def test_a_key_file_holds_one_key(text: str, tmp_path: Path) -> None:
    from pipo.cli.serve import read_key

    (tmp_path / "key").write_text(text)
    with pytest.raises(BadInput, match="holds no key"):
        read_key(tmp_path / "key")


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, usable: None) -> Iterator[list[dict[str, Any]]]:
    """A script serves in place of SGLang, and Ctrl-C comes as soon as it is up; the plans that were made."""
    plans: list[dict[str, Any]] = []

    def plan(folder: Path, method: Any, settings: Any, **more: Any) -> launch.Launch:
        plans.append({"folder": folder, "method": method.name, "settings": settings, **more})
        return script_launch(tmp_path, SERVER, secret=more["secret"])._replace(name=more["name"])

    def interrupt(self: server.Server, timeout_s: float | None = None) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "plan", plan)
    monkeypatch.setattr(server.Server, "wait", interrupt)
    yield plans


def test_serve_says_how_to_ask_and_ends_with_ctrl_c(pipo: Pipo, stood_in: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = pipo_folder(tmp_path / "m")
    said = pipo(
        "serve", str(folder), "--cpu-rig", "--name", "tiny", "--max-running", "8", "--", "--schedule-policy", "lpm"
    )
    assert said.code == 130 and "stopping" in said.err
    assert (
        'extra_body={"custom_params": {"threshold": 0.95}}' in said.out
        and "tiny answers at http://127.0.0.1:" in said.out
    )
    (made,) = stood_in
    assert (made["method"], made["streaming"], made["secret"]) == ("pipo", False, None)
    assert made["settings"].flags == ("--schedule-policy", "lpm") and made["settings"].max_running == 8


def test_a_public_address_without_a_key_is_warned_of(
    pipo: Pipo, stood_in: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("k3y\n")
    assert "without any password" in pipo("serve", "lab/base", "--cpu-rig", "--host", "0.0.0.0").err
    locked = pipo("serve", "lab/base", "--cpu-rig", "--host", "0.0.0.0", "--api-key-file", str(tmp_path / "key"))
    assert "without any password" not in locked.err and stood_in[-1]["secret"] == "k3y"
    assert "Authorization: Bearer" in locked.out and "k3y" not in locked.out + locked.err
    assert "custom_params" not in locked.out, "a regular model has no threshold"


# pipo unload


def test_unload_names_a_model_by_its_folder(pipo: Pipo, client: FakeClient) -> None:
    from pipo.lab import resolve_model

    assert "unloaded" in pipo("unload", "lab/pipo-opd").err
    assert client.unloaded == str(resolve_model("lab/pipo-opd"))
    assert "unloaded /models/pipo-opd#sglang:pipo" in pipo("unload").err and client.unloaded is None
