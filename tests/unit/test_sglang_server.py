"""How a server starts, ends and dies, and that nothing of it is left. A script stands in for SGLang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipo.errors import Cancelled, JobFailed
from pipo.sglang.server import Server
from tests.unit.sglang_fakes import SERVER, script_launch


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPO_HOME", str(tmp_path))
    return tmp_path


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_server_tells_its_stages_and_leaves_nothing_behind(home: Path) -> None:
    server, heard = Server(script_launch(home, SERVER)), []
    server.start(heard.append)
    pid = server._process.pid  # type: ignore[union-attr]
    assert (heard[0], heard[-1]) == ("starting", "ready") and server.alive
    server.stop()
    assert gone(pid) and not server.alive


def test_a_death_at_the_start_names_the_hook(home: Path) -> None:
    script = "import sys; print('Traceback'); sys.exit('pipo: the hook on sglang.x did not take (no drafts)')"
    with pytest.raises(JobFailed, match=r"SGLang did not start: the hook on sglang\.x did not take"):
        Server(script_launch(home, script)).start()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('torch.OutOfMemoryError: CUDA out of memory.'); raise SystemExit(1)", "out of memory; lower"),
        ("raise ValueError('no such layer')", "ValueError: no such layer"),
        ("import os; os.kill(os.getpid(), 9)", "was killed"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_death_at_the_start_says_why(script: str, words: str, home: Path) -> None:
    with pytest.raises(JobFailed, match=words):
        Server(script_launch(home, script)).start()


def test_a_start_can_be_broken_off(home: Path) -> None:
    server = Server(script_launch(home, "import time; time.sleep(60)"))

    def check() -> None:
        raise Cancelled("cancelled on request")

    with pytest.raises(Cancelled):
        server.start(check=check)
    assert not server.alive


def test_the_key_is_in_no_command_line_no_log_and_no_file_afterwards(home: Path) -> None:
    script = "import sys; print('api_key=' + open(sys.argv[-1]).read(), flush=True)\n" + SERVER
    server = Server(script_launch(home, script, secret="s3cret-key"))
    server.start()
    try:
        lines = [
            p.read_text(errors="replace") for p in Path("/proc").glob("[0-9]*/cmdline") if not gone(int(p.parts[2]))
        ]
        assert not any("s3cret-key" in line for line in lines)
        assert "s3cret-key" not in server.log.read_text() and "***" in server.log.read_text()
        assert server._config is None and server.headers()["Authorization"] == "Bearer s3cret-key"
    finally:
        server.stop()


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("end", ["owner", "watchdog", "term", "itself"])
def test_nothing_outlives_the_end_of(end: str, tmp_path: Path) -> None:
    (tmp_path / "family.py").write_text(FAMILY)
    note = tmp_path / "pids"
    reading, writing = os.pipe()
    lasts = "0.1" if end == "itself" else "300"
    command = [sys.executable, "-m", "pipo.sglang.watchdog", str(reading), "1"]
    command += [sys.executable, str(tmp_path / "family.py"), str(note), lasts]
    watchdog = subprocess.Popen(command, pass_fds=(reading,), start_new_session=True)
    os.close(reading)
    try:
        assert until(lambda: note.exists() and len(note.read_text().split()) == 2)
        server, child = map(int, note.read_text().split())
        if end == "owner":
            os.close(writing)
        elif end == "watchdog":
            watchdog.kill()
        elif end == "term":
            watchdog.send_signal(signal.SIGTERM)
        watchdog.wait(10)
        assert until(lambda: gone(server)), "the server lives on"
        if end == "watchdog":  # SGLang's own processes are tied to their parent; this stand-in's child is not
            os.kill(child, signal.SIGKILL)
        assert until(lambda: gone(child)), "the server's child lives on"
    finally:
        watchdog.kill()
        if end != "owner":
            os.close(writing)


def test_old_logs_go(home: Path) -> None:
    (home / "run").mkdir()
    for n in range(12):
        (home / "run" / f"sglang-{n}.log").write_text("")
        os.utime(home / "run" / f"sglang-{n}.log", (n, n))
    server = Server(script_launch(home, SERVER))
    server.start()
    server.stop()
    kept = {p.name for p in (home / "run").glob("sglang-*.log")}
    assert len(kept) == 8 and {"sglang-11.log", server.log.name} <= kept
