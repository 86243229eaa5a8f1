"""A running SGLang server: started under its watchdog, followed by its log while it starts, stopped with all it has."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from pipo.config import paths
from pipo.errors import JobFailed
from pipo.sglang.launch import Launch

GRACE_S = 10.0
SILENCE_S = 900.0  # a start that says nothing for so long has hung
POLL_S = 0.1
STAGES = (
    ("Init parallel begin", "its processes are up"),
    ("Load weight begin", "loading weights"),
    ("Load weight end", "weights loaded, allocating caches"),
    ("Capture cuda graph begin", "recording CUDA graphs"),
    ("Capture prefill cuda graph begin", "recording CUDA graphs"),
    ("Uvicorn running", "warming up"),
)
MEMORY_SIGNS = ("OutOfMemoryError", "out of memory", "Not enough memory", "MemoryError")
ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|SystemExit)\b.*")
KEPT_LOGS = 8
STAMP = re.compile(r"^\[[^\]]*\] ?|\x1b\[[0-9;]*m")


class Server:
    """One server. ``start`` it once; ``url`` is where it answers, ``log`` the file that has all it said.

    Whoever holds this object owns the server: when this process ends, in whatever way, so does the server.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        host = f"[{launch.host}]" if ":" in launch.host else launch.host
        self.url = f"http://{host}:{launch.port}"
        self.log = paths().run / f"sglang-{launch.port}.log"
        self.tail: deque[str] = deque(maxlen=300)
        self._process: subprocess.Popen[bytes] | None = None
        self._life = -1
        self._reader: threading.Thread | None = None
        self._config: str | None = None
        self._heard = 0.0
        self._stages: deque[str] = deque()

    @property
    def alive(self) -> bool:
        """Whether its processes run."""
        return self._process is not None and self._process.poll() is None

    def start(
        self, report: Callable[[str], None] = lambda text: None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Start and wait until it answers. ``report`` hears each stage; ``check`` may raise, to give up.

        Raises:
            JobFailed: it ended, or hung; the message names the reason and the log.
        """
        report("starting")
        self._spawn()
        try:
            while not self._healthy():
                check()
                while self._stages:
                    report(self._stages.popleft())
                if not self.alive:
                    self._join()
                    raise JobFailed(f"SGLang did not start: {self.reason()}; its log is {self.log}")
                if time.monotonic() - self._heard > SILENCE_S:
                    raise JobFailed(f"SGLang said nothing for {SILENCE_S:.0f} s while it started; see {self.log}")
                time.sleep(POLL_S)
        except BaseException:
            self.stop(grace_s=0.0)
            raise
        finally:
            self._forget_config()
        report("ready")

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Ask it to end, kill what is left after ``grace_s`` seconds, and return when all its processes are gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None and grace_s > 0:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s + 0.5)
        self._let_go()
        process.wait()
        self._join()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False where it still runs after ``timeout_s`` seconds."""
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._join()
        return True

    def reason(self) -> str:
        """Why it ended, in words, from the last it said and its exit code."""
        lines = [STAMP.sub("", line).strip() for line in self.tail]
        for line in reversed(lines):
            if line.startswith("pipo: ") or "SystemExit: pipo: " in line:
                return line[line.index("pipo: ") + len("pipo: ") :]
        if any(sign in line for line in lines for sign in MEMORY_SIGNS):
            return "out of memory; lower the memory fraction, the context or the number of requests at a time"
        errors = [line for line in lines if ERROR_LINE.match(line)]
        if errors:
            return errors[-1][:500]
        code = None if self._process is None else self._process.poll()
        if code == 128 + signal.SIGKILL:
            return "it was killed (signal 9); if nobody did that, the machine ran out of memory"
        said = next((line for line in reversed(lines) if line), "it said nothing")
        return f"it ended with exit code {code}; its last words: {said[:300]}"

    def ask(self, path: str, body: Any = None, timeout_s: float = 600.0) -> Any:
        """One request and its JSON answer; a POST where there is a body. Raises OSError or ValueError."""
        connection = http.client.HTTPConnection(self.launch.host, self.launch.port, timeout=timeout_s)
        try:
            text = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, text, self.headers())
            answer = connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as e:
            raise OSError(f"{path}: {e!r}") from e
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"{path} was answered with status {answer.status}: {data[:500].decode(errors='replace')}")
        try:
            return json.loads(data)
        except ValueError:
            return data.decode(errors="replace")

    def headers(self) -> dict[str, str]:
        """Headers of a request."""
        key = {} if self.launch.secret is None else {"Authorization": f"Bearer {self.launch.secret}"}
        return {"Content-Type": "application/json", **key}

    # Inside ------------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        reading, self._life = os.pipe()
        command = [sys.executable, "-P", "-m", "pipo.sglang.watchdog", str(reading), str(GRACE_S), *self._command()]
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _prune(self.log.parent)
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(reading,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self.launch.environment,
            )
        except OSError as e:
            self._let_go()
            raise JobFailed(f"SGLang cannot be started: {e}") from e
        finally:
            os.close(reading)
        self._heard = time.monotonic()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True, name="sglang-log")
        self._reader.start()

    def _command(self) -> list[str]:
        """The server's command. The key goes in by a file that is gone once it runs: a command line is public."""
        if self.launch.secret is None:
            return self.launch.command
        handle, self._config = tempfile.mkstemp(prefix="pipo-", suffix=".yaml")  # readable by the owner only
        with open(handle, "w") as f:
            f.write(f"api-key: {json.dumps(self.launch.secret)}\n")
        return [*self.launch.command, "--config", self._config]

    def _forget_config(self) -> None:
        if self._config is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._config)
            self._config = None

    def _read(self, pipe: Any) -> None:
        """Keep what the server says, the key left out (it prints its settings); notice the stages of a start."""
        with contextlib.ExitStack() as stack:
            file: TextIO | None = None
            with contextlib.suppress(OSError):
                descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                file = stack.enter_context(open(descriptor, "w", buffering=1))
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                if self.launch.secret is not None:
                    line = line.replace(self.launch.secret, "***")
                self._heard = time.monotonic()
                self.tail.append(line)
                self._stages.extend(text for needle, text in STAGES if needle in line)
                if file is not None:
                    with contextlib.suppress(OSError):
                        print(line, file=file)

    def _healthy(self) -> bool:
        try:
            self.ask("/health", timeout_s=5.0)
        except (OSError, ValueError):
            return False
        return self.alive  # a stranger may have taken the port meanwhile

    def _let_go(self) -> None:
        if self._life >= 0:
            os.close(self._life)
            self._life = -1

    def _join(self) -> None:
        if self._reader is not None:
            self._reader.join(5.0)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._let_go()


def _prune(folder: Path) -> None:
    """Leave the newest logs only."""
    with contextlib.suppress(OSError):
        logs = sorted(folder.glob("sglang-*.log"), key=lambda p: p.stat().st_mtime)
        for log in logs[: -KEPT_LOGS + 1]:
            log.unlink(missing_ok=True)
