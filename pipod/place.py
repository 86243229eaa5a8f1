"""Where a daemon lives: its run folder (0700), its sockets, its lock. Torch-free; used by daemon and client alike.

``run/pipod.lock`` is held by the running daemon, ``run/worker.lock`` by its worker's process group, and
``run/endpoint`` names the folder of the sockets: ``run`` itself, or a short private one where the path of ``run``
is too long for a Unix socket.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

from pipo.errors import BadInput, DaemonError

FRONT, BACK = "pipod.sock", "worker.sock"
LOCK, WORKER_LOCK = "pipod.lock", "worker.lock"
EXIT_BUSY = 4  # of `python -m pipod --detach` only: another daemon has the home
MAX_SOCKET_PATH = 100  # the kernel takes 107 bytes
MAX_LOG_BYTES = 4 << 20


def prepare(home: Path) -> Path:
    """Make ``home/run`` and ``home/jobs``, private to the owner, and return the run folder.

    Raises:
        BadInput: the folder cannot be made or belongs to somebody else.
    """
    run = home / "run"
    try:
        for folder in (home, run, home / "jobs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (run, home / "jobs"):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                raise BadInput(f"{folder} is a link or belongs to another user; set PIPO_HOME to a folder of your own")
            folder.chmod(0o700)
    except OSError as e:
        raise BadInput(f"cannot make {run}: {e.strerror}; set PIPO_HOME to a folder that you can write") from e
    return run


def private(folder: Path) -> bool:
    """Whether this is a real folder of ours that nobody else can enter."""
    try:
        info = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077


def socket_folder(run: Path) -> Path:
    """The daemon's choice of a folder for its sockets, written to ``run/endpoint`` for the clients."""
    record = run / "endpoint"
    folder = run
    if len(os.fsencode(run / BACK)) > MAX_SOCKET_PATH:
        old = Path(record.read_text().strip()) if record.exists() else run
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        folder = old if old != run and private(old) else Path(tempfile.mkdtemp(prefix="pipod-", dir=base))
    temporary = record.with_name("endpoint.tmp")
    temporary.write_text(f"{folder}\n")
    os.replace(temporary, record)
    return folder


def find_socket(home: Path) -> Path | None:
    """The socket on which a daemon of this home listens right now, or None.

    Raises:
        DaemonError: ``run/endpoint`` points into a folder that others can enter.
    """
    try:
        folder = Path((home / "run" / "endpoint").read_text().strip())
    except OSError:
        return None
    path = folder / FRONT
    if not listening(path):
        return None
    if not private(folder):
        raise DaemonError(f"{folder} can be entered by other users; `chmod 700 {folder}`, then try again")
    return path


def listening(path: Path) -> bool:
    """Whether some process accepts connections on this Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def take_lock(path: Path, wait_s: float) -> int | None:
    """An exclusive lock on ``path``: its file descriptor, or None where another process keeps it for ``wait_s``.

    Raises BadInput where the file cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise BadInput(f"cannot open {path}: {e.strerror}; set PIPO_HOME to a folder that you can write") from e
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(0.02)


def lock_free(path: Path) -> bool:
    """Whether nobody holds the lock now."""
    fd = take_lock(path, 0.0)
    if fd is None:
        return False
    os.close(fd)
    return True


def open_log(path: Path) -> int:
    """A log file to append to; one that has grown large is set aside as ``.1`` first."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        os.replace(path, path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, or an empty string."""
    try:
        return "\n".join(path.read_bytes()[-8192:].decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
