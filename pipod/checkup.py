"""What is wrong with a home: its folders, journal, lock, sockets and processes. Reads only, makes and ends nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from pipod import codec, place
from pipod import messages as m
from pipod.journal import SCHEMA

State = Literal["ok", "note", "problem"]
LITTLE, TOO_LITTLE = 2 << 30, 100 << 20  # bytes free on a disk
LARGE_LOG = 8 * place.MAX_LOG_BYTES
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "fuse.sshfs", "fuse.glusterfs")
ANSWER_S = 1.0
CHECK_S = 1.0
CLOCK_SLACK_S = 60.0


class Finding(msgspec.Struct, frozen=True):
    """One check: its name, its state, what was found, and the way out (empty where there is nothing to do)."""

    check: str
    state: State
    found: str
    fix: str = ""


def check_home(home: Path) -> list[Finding]:
    """All checks of a home, in the order in which they should be read. Never raises for what it finds there."""
    findings = [
        *_folders(home),
        *_disk("disk of the home", home),
        *_disk("temporary disk", Path(tempfile.gettempdir())),
    ]
    if home.is_dir():
        findings += [*_journal(home / "journal.db"), *_daemon(home), *_logs(home / "run")]
    return findings


def _folders(home: Path) -> Iterator[Finding]:
    if not os.path.lexists(home):
        yield Finding("home", "note", f"{home} does not exist yet", "the first command that needs it makes it")
        return
    if not home.is_dir():
        yield Finding("home", "problem", f"{home} is not a folder", "move it aside, or set PIPO_HOME to a folder")
        return
    for name, folder in (("home", home), ("run folder", home / "run"), ("jobs folder", home / "jobs")):
        if not os.path.lexists(folder):
            continue
        try:
            info = folder.lstat() if folder != home else folder.stat()
        except OSError as e:
            yield Finding(name, "problem", f"{folder} cannot be looked at: {e.strerror}", "set PIPO_HOME to another")
            continue
        mode = stat.S_IMODE(info.st_mode)
        open_to = 0o022 if folder == home else 0o077
        if not stat.S_ISDIR(info.st_mode):
            yield Finding(
                name, "problem", f"{folder} is a link or no folder", "move it aside; the daemon makes it anew"
            )
        elif info.st_uid != os.getuid():
            yield Finding(
                name, "problem", f"{folder} belongs to user {info.st_uid}", "set PIPO_HOME to your own folder"
            )
        elif mode & open_to:
            yield Finding(name, "problem", f"{folder} has mode {mode:04o}: open to others", f"chmod 700 '{folder}'")
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(name, "problem", f"{folder} cannot be written", f"chmod u+rwx '{folder}', or set PIPO_HOME")
        else:
            yield Finding(name, "ok", f"{folder}, mode {mode:04o}")


def _disk(name: str, folder: Path) -> Iterator[Finding]:
    """Space, inodes, read-only and network file systems, of the nearest folder that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        free, info = shutil.disk_usage(folder).free, os.statvfs(folder)
    except OSError as e:
        yield Finding(name, "problem", f"{folder} cannot be asked: {e.strerror}", "see that its disk is mounted")
        return
    kind = _file_system(folder)
    said = f"{free / 2**30:.1f} GiB free at {folder} ({kind})"
    if info.f_flag & os.ST_RDONLY:
        yield Finding(name, "problem", f"{folder} is on a read-only file system", "name a folder that can be written")
    elif free < TOO_LITTLE or (info.f_files and not info.f_favail):
        what = f"{free / 2**20:.1f} MiB" if free < TOO_LITTLE else "no inodes"
        yield Finding(name, "problem", f"{what} free at {folder}", "free some, or name a folder on another disk")
    elif name == "disk of the home" and kind in NETWORK:
        yield Finding(name, "problem", f"{folder} is on {kind}: locks and SQLite's WAL need a local disk",
                      "set PIPO_HOME to a folder on a local disk")  # fmt: skip
    elif free < LITTLE:
        yield Finding(name, "note", said, "models and records need more soon")
    else:
        yield Finding(name, "ok", said)


def _file_system(folder: Path) -> str:
    """The type of the file system by the kernel's table of mounts; ``unknown`` where it does not say."""
    best = (0, "unknown")
    with contextlib.suppress(OSError, ValueError, IndexError):
        real = folder.resolve()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            point = Path(left.split()[4].replace("\\040", " "))
            if real.is_relative_to(point) and len(str(point)) >= best[0]:
                best = (len(str(point)), right.split()[0])
    return best[1]


def _journal(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield Finding("journal", "note", "there is none yet", "the daemon makes it at its first start")
        return
    aside = f"pipo down, then move {path}* aside: a new one is made, job folders stay"
    # Without a log beside it nothing else writes; immutable then leaves no files of SQLite's own behind.
    wal = path.with_name(path.name + "-wal")
    how = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=0.5)) as db:
            schema = db.execute("PRAGMA user_version").fetchone()[0]
            if schema != SCHEMA:
                yield Finding("journal", "problem", f"{path} is of schema {schema}, this pipo knows {SCHEMA}",
                              f"use the pipo that wrote it, or {aside}")  # fmt: skip
                return
            jobs, newest = db.execute("SELECT count(*), max(created) FROM jobs").fetchone()
            yield from _integrity(db, path, jobs, aside)
    except sqlite3.Error as e:
        yield Finding("journal", "problem", f"{path} cannot be read: {e}", aside)
        return
    if isinstance(newest, float) and newest > time.time() + CLOCK_SLACK_S:
        late = newest - time.time()
        yield Finding("clock", "problem", f"it stands {late:.0f} s before the newest job", "set this machine's clock")
    else:
        yield Finding("clock", "ok", "not before the newest job")


def _integrity(db: sqlite3.Connection, path: Path, jobs: int, aside: str) -> Iterator[Finding]:
    deadline = time.monotonic() + CHECK_S
    db.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
    try:
        said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as e:
        if "interrupted" not in str(e):
            raise
        yield Finding("journal", "note", f"schema {SCHEMA}, {jobs} jobs; too large to check whole in {CHECK_S:.0f} s")
        return
    finally:
        db.set_progress_handler(None, 0)
    if said == "ok":
        yield Finding("journal", "ok", f"schema {SCHEMA}, {jobs} jobs, whole")
    else:
        yield Finding("journal", "problem", f"{path} is damaged: {said}", aside)


def _daemon(home: Path) -> Iterator[Finding]:
    run = home / "run"
    held, owner = _held(run / place.LOCK), _owner(run / place.LOCK)
    folder = _endpoint(run)
    path = folder / place.FRONT if folder else None
    if held:
        yield _answering(home, owner, path)
    elif path and place.listening(path):
        yield Finding("daemon", "problem", f"another program listens on {path}", f"end it, then remove {path}")
    elif path and os.path.lexists(path):
        yield Finding("daemon", "note", f"none runs; a dead one left {path}", "nothing: the next start replaces it")
    else:
        yield Finding("daemon", "ok", "none runs; jobs start it by themselves")
    if held and folder and folder.is_dir() and not place.private(folder):
        yield Finding("sockets", "problem", f"{folder} can be entered by others", f"chmod 700 '{folder}'")
    strays = [pid for pid in _processes(home) if not held or owner is None or not _descends(pid, owner)]
    listed = " ".join(map(str, strays))
    if strays:
        yield Finding("processes", "problem", f"of this home without its daemon: {listed}", f"kill {listed}")
    elif not held and _held(run / place.WORKER_LOCK):
        yield Finding("processes", "problem", f"a process holds {run / place.WORKER_LOCK} and no daemon runs",
                      f"`fuser {run / place.WORKER_LOCK}` names it; end it")  # fmt: skip
    else:
        yield Finding("processes", "ok", "none that the daemon does not own")


def _answering(home: Path, owner: int | None, path: Path | None) -> Finding:
    """Healthy means that it answered a real request just now."""
    end = f"kill -9 {owner}, then pipo up: jobs go on" if owner else "end the process that holds run/pipod.lock"
    if path is None or not os.path.lexists(path):
        return Finding("daemon", "problem", f"pid {owner} holds {home}, its socket is gone", end)
    if _status(owner, "T"):
        return Finding("daemon", "problem", f"pid {owner} holds {home} and is stopped", f"kill -CONT {owner}")
    import zmq

    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(f"ipc://{path}")
        socket.send(codec.encode(m.GetStatus(id=1)))
        if not socket.poll(int(ANSWER_S * 1000)):
            return Finding("daemon", "problem", f"pid {owner} did not answer in {ANSWER_S:.0f} s", end)
        try:
            reply = codec.decode(socket.recv_multipart(), codec.reply_decoder)
        except codec.ProtocolError as e:
            return Finding("daemon", "problem", f"its answer cannot be read: {e}", "pipo down, then pipo up")
    if not isinstance(reply, m.StatusReply):
        return Finding("daemon", "problem", f"it answered {type(reply).__name__}", "pipo down, then pipo up")
    return Finding("daemon", "ok", f"pid {reply.status.pid}, version {reply.status.version}, answered just now")


def _logs(run: Path) -> Iterator[Finding]:
    with contextlib.suppress(OSError):
        for log in sorted(run.glob("*.log*")):
            if (size := log.stat().st_size) > LARGE_LOG:
                yield Finding("logs", "note", f"{log} takes {size / 2**20:.0f} MiB", "pipo down, pipo up sets it aside")


def _held(lock: Path) -> bool:
    """Whether another process holds the lock; the file is not made."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def _owner(lock: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(lock.read_text())
    return None


def _endpoint(run: Path) -> Path | None:
    with contextlib.suppress(OSError, ValueError):
        text = (run / "endpoint").read_text().strip()
        return Path(text) if text and "\0" not in text else None
    return None


def _processes(home: Path) -> list[int]:
    """Living processes of pipod whose command line names this home as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            ours = any(w == b"pipod" or w.startswith(b"pipod.") for w in words)
            if ours and os.fsencode(home) in words and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return sorted(pid for pid in found if not _status(pid, "ZX"))


def _stat(pid: int | None) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["X", "0"]


def _status(pid: int | None, letters: str) -> bool:
    return _stat(pid)[0] in letters


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(_stat(pid)[1])
    return False
