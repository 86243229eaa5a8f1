"""SGLang's engine for load: one that does not wait for news while a request is due."""

from __future__ import annotations

import contextlib
import queue
import time

from pipo.engine.types import Event
from pipo.sglang.engine import STEP_WAIT_S, SglangEngine


class PacedEngine(SglangEngine):
    """As SglangEngine; ``step`` waits at most ``wait_s`` seconds for the first news."""

    wait_s = STEP_WAIT_S

    def step(self) -> list[Event]:
        """What came out since the last step, at most an event a request."""
        deadline = time.monotonic() + self.wait_s
        while not self._ready and self._live and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._take(self._news.get(timeout=left))
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._news.get_nowait())
        return self._first_of_each()
