"""One daemon per home, private folders, homes that cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipo.errors import BadInput, DaemonError
from pipod import place
from pipod.client import Client, connect


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_private_and_files_too(client: Client, home: Path) -> None:
    job = client.wait(client.submit("noop", {}).id)
    for folder in (home / "run", home / "jobs", Path(job.folder)):
        assert mode(folder) == 0o700, folder
    for file in (home / "journal.db", home / "run" / "daemon.log", home / "run" / "worker.log"):
        assert mode(file) == 0o600, file


def test_a_run_folder_that_was_open_is_closed(home: Path) -> None:
    (home / "run").mkdir(parents=True)
    (home / "run").chmod(0o777)
    connect(home=home).close()
    assert mode(home / "run") == 0o700


def test_a_second_daemon_on_one_home_ends_with_a_message(client: Client, home: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "pipod", "--home", str(home)], capture_output=True, text=True, timeout=10
    )
    assert second.returncode == 2
    pid = client.status().pid
    assert second.stderr == f"a daemon already runs for {home} (pid {pid}); `pipo status` shows it\n"
    assert client.wait(client.submit("noop", {}).id).state == "done"


def test_clients_that_start_together_find_one_daemon(home: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        clients = list(pool.map(lambda _: connect(home=home), range(3)))
    assert len({c.status().pid for c in clients}) == 1
    for c in clients:
        c.close()


def test_no_daemon_and_none_wanted(home: Path) -> None:
    with pytest.raises(DaemonError, match=f"no daemon runs for {home}; `pipo up` starts one"):
        connect(start=False, home=home)
    assert not home.exists()


def test_a_home_too_long_for_a_socket_uses_a_short_private_folder(home: Path) -> None:
    long = home / ("long" * 25)
    with connect(home=long) as client:
        folder = Path((long / "run" / "endpoint").read_text().strip())
        assert client.status().endpoint == f"ipc://{folder}/pipod.sock"
        assert folder != long / "run" and mode(folder) == 0o700
        assert client.wait(client.submit("noop", {}).id).state == "done"
        client.shutdown()
    with connect(home=long) as client:
        assert Path((long / "run" / "endpoint").read_text().strip()) == folder, "the folder is used again"
        folder.chmod(0o755)
        with pytest.raises(DaemonError, match=f"{folder} can be entered by other users"):
            connect(home=long)
        client.shutdown()
    folder.rmdir()


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_a_home_that_cannot_be_made(home: Path, what: str) -> None:
    home.write_text("not a folder")
    with pytest.raises(BadInput, match="set PIPO_HOME to a folder that you can write"):
        connect(home=home if what == "a file" else home / "below")


def test_a_journal_that_is_none(home: Path) -> None:
    home.mkdir()
    (home / "journal.db").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(BadInput, match=r"journal.db cannot be used: .*move it aside"):
        connect(home=home)


def test_a_journal_of_a_later_schema(home: Path) -> None:
    home.mkdir()
    db = sqlite3.connect(home / "journal.db")
    db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(BadInput, match="is of schema 9, this pipod knows 1"):
        connect(home=home)


def test_a_crash_at_the_start_shows_the_logs_tail(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.parent.joinpath("broken").mkdir()
    (home.parent / "broken" / "sqlite3.py").write_text("raise RuntimeError('no database here')\n")
    monkeypatch.setattr(
        "pipod.client.child_environment", lambda _: {**os.environ, "PYTHONPATH": str(home.parent / "broken")}
    )
    with pytest.raises(DaemonError, match="no database here"):
        connect(home=home)


def test_a_large_log_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"a" * (place.MAX_LOG_BYTES + 1))
    os.close(place.open_log(log))
    assert log.stat().st_size == 0
    assert (tmp_path / "x.log.1").stat().st_size == place.MAX_LOG_BYTES + 1
