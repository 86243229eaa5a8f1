"""The floor of a latency job: the machine measured once, torch calls counted once for each arm and length.

Both lie in ``floor.json`` of the run folder, so that a job that goes on divides by the floor it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import machine, record, roofline
from bench.latency_arms import Arm
from bench.latency_models import Subject
from bench.machine import Machine
from bench.roofline import Shapes
from pipo.errors import BadRecord
from pipo.jobs import JobContext

FILE = "floor.json"


class Calls(msgspec.Struct, frozen=True):
    """Torch calls of a prefill and of a step after it."""

    prefill: int
    step: int


class _Kept(msgspec.Struct):
    """What floor.json holds; ``calls``: by arm and input length, ``regular/512``."""

    machine: Machine
    calls: dict[str, Calls]


class Floors:
    """Least seconds of each arm's prefill and step at batch 1 (bench/roofline.py)."""

    def __init__(self, path: Path, kept: _Kept, shapes: dict[str, Shapes]) -> None:
        self._path, self._kept, self._shapes = path, kept, shapes

    def missing(self, arm: Arm, length: int) -> bool:
        """Whether the torch calls of this arm at this length are not counted yet."""
        return f"{arm.name}/{length}" not in self._kept.calls

    def note(self, arm: Arm, length: int, calls: Calls) -> None:
        """Keep a count, in the run folder too."""
        self._kept.calls[f"{arm.name}/{length}"] = calls
        record.write_json(self._path, self._kept)

    def machine(self) -> dict[str, Any]:
        """The measured rates as plain values."""
        return msgspec.to_builtins(self._kept.machine)  # type: ignore[no-any-return]

    def prefill_s(self, arm: Arm, length: int) -> float:
        """Least seconds until the first token is out."""
        calls = self._kept.calls[f"{arm.name}/{length}"].prefill
        return roofline.floor_prefill(
            self._kept.machine, self._shapes[arm.variant.model], arm.method, length, calls=calls
        ).seconds

    def step_s(self, arm: Arm, length: int, *, kept: float, per_step: float) -> float:
        """Least seconds of a step right after the prompt; ``kept`` and ``per_step`` (tokens) as they were measured."""
        most = arm.method.depth + 1 if arm.method.name == "eagle" else 2
        return roofline.floor_step(
            self._kept.machine, self._shapes[arm.variant.model], arm.method, length, prompt=length, kept=kept,
            accepted=min(max(per_step, 1.0), most), calls=self._kept.calls[f"{arm.name}/{length}"].step,
        ).seconds  # fmt: skip


def floors(models: dict[str, Subject], device: str, ctx: JobContext) -> Floors:
    """The floors of a run folder: as they lie there, or with the machine measured now.

    Raises:
        BadRecord: the folder's floor.json is not one.
    """
    path = ctx.folder / FILE
    shapes = {name: roofline.shapes_of(m.engine.model) for name, m in models.items()}
    if path.exists():
        try:
            return Floors(path, msgspec.json.decode(path.read_bytes(), type=_Kept), shapes)
        except msgspec.DecodeError as e:
            raise BadRecord(f"{path} holds no floor ({e}); remove it, and the machine is measured again") from e
    ctx.emit("log", text="measuring the machine: bandwidth, matrix products, attention, one torch call")
    dtype = next(iter(models.values())).engine.model.lm_head.weight.dtype
    kept = _Kept(machine.measure(device, dtype), {})
    record.write_json(path, kept)
    return Floors(path, kept, shapes)


def counted(step: Callable[[], Any]) -> tuple[Any, int]:
    """What a step returns, and how many torch calls it made."""
    found: list[Any] = []
    calls = machine.count_calls(lambda: found.append(step()))
    return found[0], calls
