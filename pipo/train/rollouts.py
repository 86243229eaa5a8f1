"""Roll-outs of OPD by an SGLang server: the student's weights go over through a folder before each step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipo.engine.types import Event, Method, Request
from pipo.jobs import JobContext
from pipo.model import save_model
from pipo.sglang.engine import SglangEngine
from pipo.sglang.launch import ServerSettings


class ServedRollouts:
    """What OnPolicy needs of an engine: ``reload`` before a step, ``generate`` in it. ``close`` ends the server.

    ``folder``: where the weights are written. Seeds have no effect, so a resumed run makes other roll-outs.
    """

    def __init__(
        self, model: Any, tokenizer: Any, folder: Path, settings: ServerSettings, ctx: JobContext
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.folder, self.settings, self.ctx = model, tokenizer, folder, settings, ctx
        self.engine: SglangEngine | None = None

    def reload(self) -> None:
        """Write the student as it is now and have the server take it; the first time nothing runs yet."""
        save_model(self.model, self.folder, self.tokenizer)
        if self.engine is None:
            self.engine = SglangEngine(self.folder, Method("pipo"), self.settings, name="the student")
            self.engine.attach(lambda text: self.ctx.emit("log", text=text), self.ctx.check)
        else:
            self.engine.reload(self.folder)

    def generate(self, requests: Iterable[Request]) -> dict[str, list[Event]]:
        """Events by request id, each in order."""
        assert self.engine is not None
        return self.engine.generate(requests)

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
