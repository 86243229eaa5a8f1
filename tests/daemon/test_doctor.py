"""``pipo doctor`` beside a real daemon: healthy, stopped, without its socket, killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from pipod import place
from pipod.checkup import Finding, check_home
from pipod.client import Client


def of(home: Path, check: str) -> Finding:
    return next(f for f in check_home(home) if f.check == check)


def test_a_healthy_daemon_and_its_worker(home: Path, client: Client) -> None:
    client.wait(client.submit("noop", {"items": 1, "delay_s": 0.0}).id)
    assert of(home, "daemon").state == "ok" and f"pid {client.status().pid}" in of(home, "daemon").found
    assert of(home, "processes").state == of(home, "journal").state == "ok"


def test_a_stopped_daemon(home: Path, client: Client, eventually: Callable[..., None]) -> None:
    pid = client.status().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: of(home, "daemon").fix == f"kill -CONT {pid}", "the stop is seen")
        assert of(home, "daemon").state == "problem"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert of(home, "daemon").state == "ok"


def test_a_lost_socket_file(home: Path, client: Client) -> None:
    path = place.find_socket(home)
    assert path is not None
    aside = path.rename(path.with_name("aside"))
    assert "its socket is gone" in of(home, "daemon").found
    aside.rename(path)
    assert of(home, "daemon").state == "ok"


def test_a_killed_daemon(home: Path, client: Client, kill_daemon: Callable[[Client], None]) -> None:
    kill_daemon(client)
    assert of(home, "daemon").state == "note"
    assert of(home, "processes").state == of(home, "journal").state == "ok"


def test_a_daemon_that_lost_its_lock_file_is_a_process_that_nobody_owns(home: Path, client: Client) -> None:
    """A real daemon and its worker; the lock file that names them is replaced, as a restored backup would do."""
    client.wait(client.submit("noop", {"items": 1, "delay_s": 0.0}).id)
    pid = client.status().pid
    lock = home / "run" / place.LOCK
    aside = lock.rename(lock.with_name("aside"))
    try:
        lock.touch(mode=0o600)
        found = of(home, "processes")
        assert found.state == "problem" and str(pid) in found.fix.split()
    finally:
        aside.rename(lock)
    assert of(home, "processes").state == "ok"
