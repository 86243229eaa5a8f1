"""Where a run came from, and run folders that cannot be used."""

import subprocess
from pathlib import Path

import pytest

from bench import provenance, record
from bench.record import Run, SampleRecord
from pipo.errors import BadInput, BadRecord


def a_run(seed: int = 0) -> Run:
    source = provenance.collect({"seed": seed}, seed=seed, engine="torch", device="cpu", threads=1, models={})
    return Run(kind="compare", spec={"seed": seed}, provenance=source)


def test_the_hash_is_of_the_settings_whatever_their_order() -> None:
    assert provenance.settings_hash({"a": 1, "b": [2]}) == provenance.settings_hash({"b": [2], "a": 1})
    assert provenance.settings_hash({"a": 1}) != provenance.settings_hash({"a": 2})


def test_git_state_knows_commit_and_changes(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) == ("unknown", False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    commit, dirty = provenance.git_state(tmp_path)
    assert len(commit) == 40 and not dirty
    (tmp_path / "new").touch()
    assert provenance.git_state(tmp_path) == (commit, True)


def test_a_folder_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    first = provenance.open_run(tmp_path, a_run())
    assert provenance.open_run(tmp_path, a_run()).provenance.started == first.provenance.started
    with pytest.raises(BadInput, match="holds a run with other settings"):
        provenance.open_run(tmp_path, a_run(seed=1))


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for act in (lambda p: provenance.check_folder(p), lambda p: provenance.open_run(p, a_run())):
        with pytest.raises(BadInput, match=r"cannot write to .*file/run .*choose a folder"):
            act(tmp_path / "file" / "run")


def test_a_torn_record_is_left_out_and_a_bad_one_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    row = SampleRecord(variant="v", task="t", item="a", sample=0, seed=1)
    record.append(path, [row])
    with open(path, "ab") as f:
        f.write(b'{"type": "sample", "vari')
    assert record.read(path) == [row]
    record.append(path, [row])
    assert record.read(path) == [row, row], "the torn tail was cut before the next record"
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(BadRecord, match=r"records\.jsonl:1: not a record"):
        record.read(path)
    path.write_bytes(b"")
    with pytest.raises(BadRecord, match="holds no whole record"):
        record.read(path)
    record.rewrite(path, [row])
    assert record.read(path) == [row] and not list(tmp_path.glob("*.tmp"))
