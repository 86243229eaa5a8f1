"""Which engine a job runs on, by its settings, and what its records say of it. Torch-free by itself.

``torch``: the embedded one, one resident a model folder, all methods of a model in one. ``sglang``: a server a model
and method (pipo/sglang); one runs at a time, since each takes a device's memory for itself, so jobs go through their
variants one after another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.record import Variant
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.sglang import launch, machine
from pipo.sglang.engine import SEEDS, SglangEngine
from pipo.sglang.launch import ServerSettings

EngineName = Literal["torch", "sglang"]
RESIDENT_MARK = "#sglang:"  # behind the folder in a resident's key


class EngineSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The engine of a job. ``server``: how SGLang runs; default its own choices on a GPU."""

    engine: EngineName = "torch"
    server: ServerSettings | None = None

    def __post_init__(self) -> None:
        if self.engine != "sglang" and self.server is not None:
            raise BadInput("settings of a server have no effect on the torch engine; name engine sglang, or none")

    @property
    def on_sglang(self) -> bool:
        return self.engine == "sglang"

    @property
    def server_settings(self) -> ServerSettings:
        return self.server or ServerSettings()


def engine_settings(spec: EngineSpec) -> dict[str, Any]:
    """The part of a run's settings that names its engine; empty for torch, so that runs of old stay the same runs."""
    return {"engine": spec.engine, "server": msgspec.to_builtins(spec.server_settings)} if spec.on_sglang else {}


def check_usable(spec: EngineSpec) -> None:
    """Raise BadInput where SGLang was asked for and cannot run here."""
    if spec.on_sglang and (why := launch.unusable(spec.server_settings)) is not None:
        raise BadInput(why)


def split_by_engine(variants: tuple[Variant, ...], spec: EngineSpec) -> tuple[tuple[Variant, ...], list[str]]:
    """The variants that the job's engine can do, and a sentence for each that it cannot."""
    if not spec.on_sglang:
        return variants, []
    whys = {v.name: launch.WAYS[v.method.name].refused for v in variants}
    left_out = [f"{name} is left out: {why}" for name, why in whys.items() if why is not None]
    return tuple(v for v in variants if whys[v.name] is None), left_out


def sglang_engine(
    folder: Path, name: str, method: Method, spec: EngineSpec, decode: Any, ctx: JobContext
) -> SglangEngine:
    """The resident engine of a model folder and a method, bound to this job: it reports starts, and can be broken off.

    Its server starts with the first request.
    """
    key = f"{folder}{RESIDENT_MARK}{server_of(method)}"
    settings = spec.server_settings
    engine = ctx.resident(key, lambda: SglangEngine(folder, method, settings, decode, name))
    rows = max(engine.max_batch, settings.max_running or 0)  # a job before may have had it widened
    engine.configure(msgspec.structs.replace(settings, max_running=rows))
    engine.attach(lambda text: ctx.emit("log", text=text), ctx.check)
    return engine


def server_of(method: Method) -> str:
    """What of a method has a server of its own: its name, and EAGLE's depth."""
    return f"eagle-{method.depth}" if method.name == "eagle" else method.name


def warnings(spec: EngineSpec) -> list[str]:
    """Settings of a job that its engine does not honour."""
    return [SEEDS] if spec.on_sglang else []


def device_name(spec: EngineSpec) -> str:
    """What the engine computes on: names of GPUs, or ``cpu``."""
    if spec.on_sglang:
        s = spec.server_settings
        return "cpu" if s.cpu_rig else machine.gpu_names(s.devices, s.tp * s.dp)
    from bench import loading

    return loading.device_name()


def threads(spec: EngineSpec, engine: Any) -> int:
    """Threads that the engine computes with."""
    if spec.on_sglang:
        return launch.threads(engine.model, spec.server_settings)
    from bench import loading

    return loading.threads()
