"""A home of its own for each test; afterwards nothing of its daemon may run on. Warnings are errors, here and there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipo.errors import DaemonError
from pipod import place
from pipod.client import Client, connect

STEP_S = 0.01


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error"))
            item.add_marker(pytest.mark.timeout(60))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _of_home(home: Path) -> list[int]:
    """Living processes whose command line names this home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in command and _alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def _eventually(true: Callable[[], object], what: str, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(STEP_S)


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return _alive


@pytest.fixture
def eventually() -> Callable[..., None]:
    return _eventually


def _end_daemon(home: Path) -> None:
    """Stop the daemon of this home; then no process of it may be left."""
    lock = home / "run" / place.LOCK
    if lock.exists() and not place.lock_free(lock):
        try:
            with connect(start=False, home=home) as client:
                client.shutdown()
        except DaemonError:
            for pid in _of_home(home):
                os.kill(pid, signal.SIGKILL)
    _eventually(lambda: not _of_home(home), "the processes of this home end")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home; its daemon is stopped after the test."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    yield tmp_path / "home"
    _end_daemon(tmp_path / "home")


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    """A client of a daemon that it started."""
    with connect(home=home) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a daemon that serves all tests of a module."""
    home = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "error")
        with connect(home=home) as made:
            yield made
        _end_daemon(home)


@pytest.fixture
def quick_client(home: Path) -> Iterator[Client]:
    """A client of a daemon that kills the worker of a cancelled job after 0.3 s."""
    daemon = subprocess.Popen([sys.executable, "-m", "pipod", "--home", str(home), "--grace", "0.3"])
    _eventually(lambda: place.find_socket(home), "the daemon listens")
    with connect(start=False, home=home) as made:
        yield made
        made.shutdown()
    assert daemon.wait(5) == 0


@pytest.fixture
def kill_daemon(home: Path) -> Callable[[Client], None]:
    """kill -9 the client's daemon, and see it and its worker gone."""

    def kill(client: Client) -> None:
        status = client.status()
        os.kill(status.pid, signal.SIGKILL)
        _eventually(lambda: not _of_home(home), "the daemon and its worker are gone")
        if status.worker_pid is not None:
            assert not _alive(status.worker_pid), "the worker outlived its daemon"

    return kill
