"""Servers of SGLang on the CPU rig, each shared by the tests of one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipo.engine.types import Method
from pipo.sglang import launch
from pipo.sglang.server import Server

Start = Callable[..., Server]
ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "pipo" / "lab" / "models"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """``start(folder, method, environment={}, **settings)``: a running server; all are stopped after the module.

    ``overlap``: with SGLang's overlap schedule, which is switched off for pairs otherwise.

    Fails, not skips, where the rig is not installed: ``make setup`` brings it.
    """
    servers: list[Server] = []
    home = pytest.MonkeyPatch()
    home.setenv("PIPO_HOME", str(tmp_path_factory.mktemp("sglang")))

    def run(
        folder: Path, method: str, environment: dict[str, str] | None = None, overlap: bool = False, **settings: object
    ) -> Server:
        made = launch.plan(folder, Method(method), launch.ServerSettings(cpu_rig=True, **settings), streaming=False)  # type: ignore[arg-type]
        command = [word for word in made.command if not (overlap and word == "--disable-overlap-schedule")]
        server = Server(made._replace(command=command, environment={**made.environment, **(environment or {})}))
        server.start()
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.stop()
    home.undo()
