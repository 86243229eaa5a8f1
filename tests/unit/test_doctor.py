"""``pipo doctor``: each fault is planted for real in a home and must be found, with its way out and no traceback."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipod import place
from pipod.checkup import Finding, check_home
from pipod.journal import Journal

PIPO = [sys.executable, "-c", "from pipo.cli import main; main()", "doctor"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as a daemon leaves it, with one job."""
    home = tmp_path / "home"
    place.prepare(home)
    journal = Journal(home / "journal.db", home / "jobs")
    journal.submit("noop", {"items": 1}, None)
    journal.close()
    return home


def problems(home: Path) -> dict[str, Finding]:
    return {f.check: f for f in check_home(home) if f.state == "problem" and f.check != "temporary disk"}


def doctor(home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PIPO_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*PIPO, *flags], env=env, capture_output=True, text=True, timeout=60)


def test_a_good_home_has_no_problem_and_stays_as_it_is(home: Path) -> None:
    before = sorted(home.rglob("*"))
    assert problems(home) == {}
    assert sorted(home.rglob("*")) == before


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == {}
    assert not (tmp_path / "none").exists()


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    assert "not a folder" in problems(tmp_path / "home")["home"].found


@pytest.mark.parametrize(("part", "check"), [("", "home"), ("run", "run folder"), ("jobs", "jobs folder")])
def test_wrong_modes(home: Path, part: str, check: str) -> None:
    (home / part).chmod(0o777)
    found = problems(home)
    assert list(found) == [check]
    assert found[check].fix == f"chmod 700 '{home / part}'"


def test_a_run_folder_that_is_a_link(home: Path, tmp_path: Path) -> None:
    (home / "run").rename(tmp_path / "elsewhere")
    (home / "run").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in problems(home)["run folder"].found


def test_a_journal_that_is_none(home: Path) -> None:
    (home / "journal.db").write_bytes(b"torn " * 1000)
    assert "cannot be read" in problems(home)["journal"].found


def test_a_journal_torn_in_its_middle(home: Path) -> None:
    path = home / "journal.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    assert "aside" in problems(home)["journal"].fix


def test_a_journal_without_its_end(home: Path) -> None:
    os.truncate(home / "journal.db", 6000)
    assert "aside" in problems(home)["journal"].fix


def test_a_journal_of_another_schema(home: Path) -> None:
    with sqlite3.connect(home / "journal.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    assert "schema 99, this pipo knows 1" in problems(home)["journal"].found


def test_a_clock_before_the_newest_job(home: Path) -> None:
    with sqlite3.connect(home / "journal.db") as db:
        db.execute("UPDATE jobs SET created = ?", (time.time() + 5000.0,))
    db.close()
    assert list(problems(home)) == ["clock"]


def test_a_stale_socket_is_a_note(home: Path) -> None:
    place.socket_folder(home / "run")
    folder = Path((home / "run" / "endpoint").read_text().strip())
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / place.FRONT))
    daemon = next(f for f in check_home(home) if f.check == "daemon")
    assert daemon.state == "note" and "a dead one left" in daemon.found


def test_a_stranger_at_the_endpoint(home: Path) -> None:
    folder = place.socket_folder(home / "run")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(folder / place.FRONT))
        stranger.listen()
        assert "another program listens" in problems(home)["daemon"].found


def test_a_worker_lock_without_a_daemon(home: Path) -> None:
    with open(home / "run" / place.WORKER_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "no daemon runs" in problems(home)["processes"].found


def test_a_daemon_lock_without_a_socket(home: Path) -> None:
    with open(home / "run" / place.LOCK, "w") as lock:
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = problems(home)["daemon"]
    assert "its socket is gone" in found.found and f"kill -9 {os.getpid()}" in found.fix


@pytest.mark.parametrize("rubbish", [b"", b"\xff\x00\xfe rubbish", b"\x00", b"/" + b"x" * 5000])
def test_files_of_rubbish_give_no_traceback(home: Path, rubbish: bytes) -> None:
    for name in ("endpoint", place.LOCK, place.WORKER_LOCK):
        (home / "run" / name).write_bytes(rubbish)
    assert problems(home) == {}


def test_a_full_disk(tmp_path: Path) -> None:
    home = tmp_path / "small"
    home.mkdir(mode=0o700)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(home)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        with pytest.raises(OSError), open(home / "filler", "wb", buffering=0) as f:
            while True:
                f.write(bytes(4096))
        assert "0.0 MiB free" in problems(home)["disk of the home"].found
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_exit_status_and_json(home: Path) -> None:
    good = doctor(home, "--quick", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["problems"] == 0
    (home / "run").chmod(0o755)
    bad = doctor(home, "--quick")
    assert bad.returncode == 1 and "1 problem" in bad.stderr
    assert "problem  run folder:" in bad.stdout and "-> chmod 700" in bad.stdout


def test_a_folder_of_data_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPO_DATA", str(home / "none"))
    said = doctor(home, "--quick", "--json")
    assert said.returncode == 1
    assert [f["check"] for f in json.loads(said.stdout)["findings"] if f["state"] == "problem"] == ["benchmarks"]


@pytest.mark.slow
def test_the_whole_names_torch_and_the_sandbox(home: Path) -> None:
    said = doctor(home, "--json")
    states = {f["check"]: f for f in json.loads(said.stdout)["findings"]}
    assert states["torch"]["state"] == "ok" and "threads" in states["torch"]["found"]
    assert states["sandbox"]["state"] in ("ok", "note")


def test_versions_by_folder_are_those_of_the_metadata() -> None:
    from importlib.metadata import version

    from pipo.cli.doctor import _installed

    have = _installed()
    assert len(have) > 20
    assert {n: have[n] for n in ("torch", "msgspec", "pyzmq", "pipo")} == {
        n: version(n) for n in ("torch", "msgspec", "pyzmq", "pipo")
    }
