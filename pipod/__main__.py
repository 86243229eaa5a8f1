"""``python -m pipod``: the daemon in the foreground, or with ``--detach`` in the background. Torch-free.

With ``--detach`` this process ends once the daemon is ready (exit code 0) or has said why it is not.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from pipo.config import paths
from pipo.errors import BadInput, DaemonError, PipoError
from pipod import place
from pipod.daemon import Daemon

READY = b"ready"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipod", description="The daemon of pipo.")
    parser.add_argument("--home", type=Path, default=None, help="folder of jobs and models (default: PIPO_HOME)")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds that a cancelled job gets to stop by itself")
    parser.add_argument("--detach", action="store_true", help="run in the background, return when ready")
    args = parser.parse_args()
    home = (args.home or paths().home).expanduser().absolute()
    try:
        if args.detach:
            return detach(home, args.grace)
        serve(home, args.grace)
    except PipoError as e:
        print(e, file=sys.stderr)
        return BadInput.exit_code
    return 0


def serve(home: Path, grace_s: float, ready: int | None = None) -> None:
    """Run a daemon here; ``ready``: a file descriptor that is told when clients may come."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    daemon = Daemon(home, grace_s)
    logging.getLogger("pipod").info("pid %s serves %s on %s", os.getpid(), home, daemon.endpoint)
    if ready is not None:
        os.write(ready, READY)
        os.close(ready)
    daemon.serve()


def detach(home: Path, grace_s: float) -> int:
    """Fork a daemon with a session and a log of its own; wait for its first word."""
    run = place.prepare(home)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os.setsid()
        log, null = place.open_log(run / "daemon.log"), os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.chdir(home)
        try:
            serve(home, grace_s, writing)
        except PipoError as e:
            code = place.EXIT_BUSY if isinstance(e, DaemonError) else BadInput.exit_code
            print(e, file=sys.stderr)
            os.write(writing, f"{code}{e}".encode())
        return 0
    os.close(writing)
    word = b""
    while part := os.read(reading, 4096):
        word += part
        if word == READY:
            return 0
    text = word.decode()
    print(text[1:] or f"the daemon stopped at its start; see {run / 'daemon.log'}", file=sys.stderr)
    return int(text[:1] or 1)


if __name__ == "__main__":
    sys.exit(main())
