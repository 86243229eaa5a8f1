"""Bad input ends with a clear message, exit code 2 and no traceback; what was there before is still there.

The first half is refused before a job is submitted, the second half by the job in the daemon's worker: both must look
alike to whoever types. What concerns the daemon itself (killed, started twice, garbage on its socket) is tested in
tests/daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PIPO = [sys.executable, "-c", "from pipo.cli import main; main()"]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command line in this process; asserts exit code 2 and returns what it said on stderr."""
    from pipo.cli import main

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(argv))
        said = capfd.readouterr()
        assert end.value.code == 2, f"pipo {' '.join(argv)} ended with {end.value.code}\n{said.out}\n{said.err}"
        assert "Traceback" not in said.err
        assert said.out == "", "an error must leave stdout to data"
        return " ".join(said.err.replace("│", " ").split())

    return run


NAMES = [
    (["eval", "lab/pipo-opd", "--task", "lab-chess"], ["lab-chess", "lab-chain", "lab-recall"]),
    (["bench", "compare", "--task", "gsm9k"], ["gsm9k", "lab-chain"]),
    (["ablate", "threshold", "--task", "nope"], ["nope", "lab-chain"]),
    (["eval", "lab/base", "--method", "beam"], ["beam", "regular", "eagle"]),
    (["generate", "lab/base", "one", "--method", "beam"], ["beam", "regular"]),
    (["bench", "compare", "--variant", "a=lab/base:beam"], ["beam", "regular"]),
    (["eval", "lab/huge"], ["lab/huge", "lab/base"]),
    (["generate", "lab/huge", "one"], ["lab/huge", "lab/base"]),
    (["bench", "compare", "--variant", "a=lab/huge:regular"], ["lab/huge", "lab/base"]),
    (["ablate", "threshold", "no/such/folder"], ["no/such/folder"]),
]
VALUES = [
    (["eval", "lab/pipo-opd", "--threshold", "1.5"], ["1.5", "[0, 1]"]),
    (["eval", "lab/pipo-opd", "--threshold", "-0.1"], ["-0.1", "[0, 1]"]),
    (["eval", "lab/pipo-opd", "--threshold", "nan"], ["nan", "[0, 1]"]),
    (["generate", "lab/pipo-opd", "one", "--threshold", "inf"], ["inf", "[0, 1]"]),
    (["ablate", "threshold", "--threshold", "nan"], ["nan", "[0, 1]"]),
    (["bench", "compare", "--variant", "a=lab/pipo-opd:pipo:threshold=nan"], ["nan", "[0, 1]"]),
    (["bench", "compare", "--variant", "a=lab/pipo-opd:pipo:threshold=high"], ["high", "number"]),
    (["eval", "lab/base", "--temperature", "-1"], ["-1", "temperature"]),
    (["eval", "lab/base", "--temperature", "nan"], ["nan", "temperature"]),
    (["eval", "lab/base", "--top-p", "0"], ["0", "(0, 1]"]),
    (["eval", "lab/base", "--k", "0"], ["--k"]),
    (["bench", "compare", "--limit", "0"], ["--limit"]),
    (["bench", "latency", "--keep", "nan"], ["--keep"]),
    (["bench", "latency", "--input-length", "0"], ["--input-length"]),
    (["generate", "lab/base", ""], ["empty"]),
]


@pytest.mark.parametrize(("argv", "words"), NAMES + VALUES, ids=lambda v: " ".join(v) if v and v[0].isalpha() else None)
def test_unknown_names_and_values_out_of_range(argv: list[str], words: list[str], refused: Callable[..., str]) -> None:
    said = refused(*argv)
    assert [w for w in words if w not in said] == [], said


def test_folder_without_config(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "config.json" in refused("eval", str(tmp_path))


@pytest.mark.parametrize("argv", [["report", "RUN", "--out", "OUT"], ["lab", "build", "--quick", "--out", "OUT"]])
def test_output_folder_that_cannot_be_made(argv: list[str], tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("kept")
    out = str(tmp_path / "file" / "below")
    said = refused(*[{"OUT": out, "RUN": str(tmp_path)}.get(a, a) for a in argv])
    assert out in said
    assert (tmp_path / "file").read_text() == "kept"


def test_home_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("kept")
    monkeypatch.setenv("PIPO_HOME", str(tmp_path / "file" / "home"))
    assert str(tmp_path / "file") in refused("up")
    assert (tmp_path / "file").read_text() == "kept"


def run_folder(folder: Path, records: bytes) -> Path:
    from bench.record import Provenance, Run, write_json

    folder.mkdir()
    where = Provenance(
        settings_hash="0", git_commit="0", git_dirty=False, versions={}, device="cpu", cpu_count=1, threads=1, seed=0,
        engine="torch", started="2026-11-23T00:00:00Z",
    )  # fmt: skip
    write_json(folder / "run.json", Run(kind="compare", spec={}, provenance=where))
    (folder / "records.jsonl").write_bytes(records)
    return folder


TORN = {
    "empty": b"",
    "torn in the only line": b'{"type":"sample","variant":"reg',
    "torn in the middle": b'{"type":"sam\n{"type":"sample","variant":"a","task":"t","item":"1","sample":0,"seed":0}\n',
    "of another kind": b'{"type":"photograph"}\n',
    "binary": b"\x00\xff\x00\n",
}


@pytest.mark.parametrize("case", TORN)
def test_report_of_empty_or_torn_records(case: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    folder = run_folder(tmp_path / "run", TORN[case])
    said = refused("report", str(folder), "--out", str(tmp_path / "out"))
    assert "records.jsonl" in said, said
    assert (folder / "records.jsonl").read_bytes() == TORN[case], "a reader must not change what it read"


def test_report_of_a_folder_that_is_no_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "run.json" in refused("report", str(tmp_path), "--out", str(tmp_path / "out"))


def test_a_refusal_in_a_process_of_its_own_has_no_traceback() -> None:
    done = subprocess.run([*PIPO, "eval", "lab/none"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "lab/none" in done.stderr and "Traceback" not in done.stderr


# Refused by the job


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PIPO model folder with a word tokenizer: nothing is wrong with it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    folder = tmp_path_factory.mktemp("good")
    vocab = {w: i for i, w in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(4, 64))])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    save_model(tiny_model(vocab=64), folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A PIPO_HOME with a short path (sockets dislike long ones); its daemon goes down at the end."""
    with tempfile.TemporaryDirectory(prefix="pipo-b", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        subprocess.run([*PIPO, "down"], env=os.environ | {"PIPO_HOME": folder}, capture_output=True, timeout=60)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def without_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def with_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def with_other_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda t: t["model"]["vocab"].update(w4=99_999))


def without_pad(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(pad_token_id=None))


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


DAMAGES = {
    "a tensor is missing": (without_tensor, ["missing", "layers.1.mlp.up_proj.weight"]),
    "weights are pickled": (with_pickle, ["pytorch_model.bin", "safetensors"]),
    "the tokenizer is another model's": (with_other_tokenizer, ["tokenizer", "99999"]),
    "there is no PAD": (without_pad, ["PAD"]),
    "weights are cut short": (cut_short, ["model.safetensors"]),
}


@pytest.mark.slow
@pytest.mark.xdist_group("bad-input-daemon")
@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_model_folder(case: str, good_model: Path, home: Path, tmp_path: Path) -> None:
    damage, words = DAMAGES[case]
    folder = tmp_path / "model"
    shutil.copytree(good_model, folder)
    damage(folder)
    done = subprocess.run(
        [*PIPO, "generate", str(folder), "w5 w6 w7", "--tokens", "4", "--json"],
        env=os.environ | {"PIPO_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, f"{case}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert [w for w in words if w not in done.stderr] == [], done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("bad-input-daemon")
def test_good_model_folder_still_works_after_the_bad_ones(good_model: Path, home: Path) -> None:
    """The guard of the cases above: what they damage is all that is wrong, and the daemon lives on."""
    done = subprocess.run(
        [*PIPO, "generate", str(good_model), "w5 w6 w7", "--tokens", "4", "--json"],
        env=os.environ | {"PIPO_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_k_larger_than_n() -> None:
    from bench.stats import pass_at_k
    from pipo.errors import BadInput

    with pytest.raises(BadInput) as refusal:
        pass_at_k(4, 2, 5)
    assert "5" in str(refusal.value) and "4" in str(refusal.value)
