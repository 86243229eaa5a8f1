"""Engines and tokenizers for jobs: models by name, one resident engine a model folder. Torch only when called."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.engines import EngineSpec, sglang_engine
from bench.runner import Engine, Tokenizer
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab import resolve_model
from pipo.sglang.facts import read_facts
from pipo.sglang.launch import check_method as check_ways
from pipo.sglang.launch import default_method as folder_method

ENGINE = "torch"
S = TypeVar("S", bound=msgspec.Struct)


class Loaded(msgspec.Struct, frozen=True):
    """A model that is ready to generate."""

    folder: Path
    engine: Engine
    tokenizer: Tokenizer


def read_spec(spec: dict[str, Any], kind: type[S], job: str) -> S:
    """A job's settings from plain values. Raises BadInput naming what is unknown, missing or of the wrong type."""
    try:
        return msgspec.convert(spec, kind)
    except msgspec.ValidationError as e:
        raise BadInput(f"{job}: {e}; its settings are {', '.join(kind.__struct_fields__)}") from e


def load(model: str, ctx: JobContext, family: str | None = None) -> Loaded:
    """The resident engine of a model and its tokenizer. Raises BadModel where the folder cannot be used."""
    from pipo.model import load_tokenizer
    from pipo.model.threads import fit_threads

    folder = Path(resolve_model(model, family)).absolute()
    tokenizer = load_tokenizer(folder)
    engine = ctx.resident(str(folder), lambda: make_engine(folder))
    fit_threads(engine.model)  # each time: residents of other sizes share the process
    return Loaded(folder, engine, tokenizer)


def load_for(
    spec: EngineSpec, model: str, method: Method, whose: str, ctx: JobContext, family: str | None = None
) -> Loaded:
    """As ``load``, by the engine that a job asks for; ``whose`` begins messages about a method that it cannot do."""
    if not spec.on_sglang:
        return load(model, ctx, family)
    from pipo.model import load_tokenizer

    folder = Path(resolve_model(model, family)).absolute()
    tokenizer = load_tokenizer(folder)
    check_ways(read_facts(folder), method, f"{whose}: ")
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    return Loaded(folder, sglang_engine(folder, model, method, spec, decode, ctx), tokenizer)


def default_method(spec: EngineSpec, model: str, ctx: JobContext, family: str | None = None) -> Method:
    """The method that a model was made for: pipo at its default threshold, or regular."""
    if spec.on_sglang:
        return folder_method(Path(resolve_model(model, family)))
    return Method("pipo" if load(model, ctx, family).engine.model.is_pipo else "regular")


def make_engine(folder: Path) -> Engine:
    """A torch engine over a model folder: bfloat16 on the GPU where there is one, else float32 on the CPU.

    It knows the tokenizer, for stop strings.
    """
    import torch

    from pipo.engine import TorchEngine
    from pipo.model import load_model, load_tokenizer

    tokenizer = load_tokenizer(folder)
    model = load_model(folder, device=device(), dtype=getattr(torch, default_dtype()))
    engine: Engine = TorchEngine(model, decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    return engine


def device() -> str:
    """``cuda`` where torch sees a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype() -> str:
    """What weights are computed in: ``bfloat16`` on a GPU, ``float32`` on the CPU."""
    return "bfloat16" if device() == "cuda" else "float32"


def device_name() -> str:
    """The GPU's name, or ``cpu``."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def threads() -> int:
    """Threads that torch computes with."""
    import torch

    return torch.get_num_threads()


def check_method(name: str, method: Method, loaded: Loaded) -> None:
    """Raise BadInput where a model cannot decode by a method: pairs need a compressor, and one needs pairs."""
    if method.pairs and not loaded.engine.model.is_pipo:
        raise BadInput(f"{name}: method {method.name} needs a PIPO model, {loaded.folder} has no compressor")
    if loaded.engine.model.is_pipo and not method.pairs:
        raise BadInput(f"{name}: {loaded.folder} is a PIPO model, decode it with pipo or random, not {method.name}")


def fingerprint(folder: Path) -> str:
    """16 hex digits that change when a model folder's config or weights do (sizes, and both ends of each file)."""
    found = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as f:
            size = path.stat().st_size
            found.update(f"{path.name} {size}".encode() + f.read(1 << 16))
            f.seek(max(0, size - (1 << 16)))
            found.update(f.read())
    return found.hexdigest()[:16]
