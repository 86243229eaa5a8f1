"""Flags that several commands share, and the checks of their values that need no torch.

What can be found wrong here is found before a job is submitted; the job checks the rest again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Submit, print the job's number, do not wait.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="One of `pipo tasks`, or a .jsonl or .toml file; repeat. [default: the lab's]"),
]
Samples = Annotated[int, typer.Option("--k", min=1, help="Samples per item; pass@k and avg@k use all of them.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Items per task. [default: all]")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Base seed; every sample's seed follows from it.")]
Slots = Annotated[int | None, typer.Option("--slots", min=1, help="Budget per sample in backbone positions.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="0 is greedy. [default: 1]")]
TopK = Annotated[int | None, typer.Option("--top-k", help="0 switches it off. [default: 0]")]
TopP = Annotated[float | None, typer.Option("--top-p", help="1 switches it off. [default: 1]")]
MinP = Annotated[
    float | None, typer.Option("--min-p", help="Leave out tokens below this share of the likeliest. [default: 0]")
]
Presence = Annotated[float | None, typer.Option("--presence-penalty", help="0 switches it off. [default: 0]")]
Frequency = Annotated[float | None, typer.Option("--frequency-penalty", help="0 switches it off. [default: 0]")]
MethodOpt = Annotated[
    str | None, typer.Option("--method", help="regular, mtp, eagle, pipo or random. [default: by the model's kind]")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="pipo: keep a draft from this confidence on, in [0, 1].")
]
Depth = Annotated[int | None, typer.Option("--depth", help="eagle: drafts per step.")]
KeepRate = Annotated[float | None, typer.Option("--keep-rate", help="random: chance that a draft is kept.")]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME=MODEL:METHOD[:KEY=VALUE,...]",
        help="One row, e.g. mine=lab/pipo-opd:pipo:threshold=0.8, or a TOML file of such; repeat. [default: the lab's]",
    ),
]

Family = Annotated[
    Path | None,
    typer.Option("--family", help="Folder that lab/... means, from `pipo lab build`. [default: the shipped]"),
]

Engine = Annotated[str, typer.Option("--engine", help="torch, which is built in, or sglang; see `pipo engines`.")]
CpuRig = Annotated[bool, typer.Option("--cpu-rig", help="sglang: run it on the CPU, slowly, for small models.")]
Devices = Annotated[
    str | None, typer.Option("--devices", metavar="0,1,...", help="sglang: GPUs to use. [default: the first]")
]
Tp = Annotated[int | None, typer.Option("--tp", min=1, help="sglang: GPUs that share one copy. [default: 1]")]
Dp = Annotated[int | None, typer.Option("--dp", min=1, help="sglang: copies of the model. [default: 1]")]
MemoryFraction = Annotated[
    float | None, typer.Option("--memory-fraction", help="sglang: share of a GPU's memory for weights and caches.")
]
RadixCache = Annotated[
    bool | None, typer.Option("--radix-cache/--no-radix-cache", help="sglang: reuse common prefixes. [default: yes]")
]

_METHOD_KEYS = {"threshold": float, "depth": int, "keep_rate": float}


def without_none(**values: Any) -> dict[str, Any]:
    """The values that were given; a job's defaults stay the job's."""
    return {key: value for key, value in values.items() if value is not None and value != []}


def check_tasks(names: list[str] | None, data: Path | None = None) -> list[str] | None:
    """The tasks, each a known name or an absolute path of a JSONL or TOML file. ``data``: where benchmarks lie.

    Raises:
        BadInput: an unknown name (the message lists the known ones), or a benchmark that is not here.
    """
    from pipo.data import benchmarks
    from pipo.errors import BadInput
    from pipo.lab import TASKS

    found = []
    for name in names or ():
        if name in benchmarks.NAMES:
            benchmarks.find(benchmarks.shipped(name), data)
        if name in (*TASKS, *benchmarks.NAMES):
            found.append(name)
        elif name.endswith((".jsonl", ".toml")):
            found.append(_existing(name, "--task"))
        else:
            raise BadInput(
                f"unknown task {name!r}; tasks are {', '.join((*TASKS, *benchmarks.NAMES))}, or the path of a .jsonl "
                "or .toml file"
            )
    if len(set(found)) < len(found):
        raise BadInput(f"a task is named twice in {', '.join(found)}; name each once")
    return found or None


def _existing(name: str, flag: str) -> str:
    from pipo.errors import BadInput

    path = Path(name).expanduser()
    if not path.is_file():
        raise BadInput(f"{name} is not a file; {flag} takes the path of one")
    return str(path.absolute())


def check_family(folder: Path | None) -> str | None:
    """The absolute path of a lab family; None is the shipped one. Raises BadModel where it holds none."""
    from pipo.lab import lab_manifest

    if folder is None:
        return None
    absolute = folder.expanduser().absolute()
    lab_manifest(absolute)
    return str(absolute)


def one_of(flag: str, value: str, known: tuple[str, ...]) -> str:
    """``value`` where it is one of those known. Raises BadInput naming them."""
    from pipo.errors import BadInput

    if value not in known:
        raise BadInput(f"{flag} {value!r} is none of {', '.join(known)}")
    return value


def check_shape(shape: str | None, dtype: str | None, variant: list[str] | None, family: Path | None) -> None:
    """Raise BadInput where settings of shapes and of named models come together, or a dtype is unknown."""
    from pipo.errors import BadInput

    if dtype is not None:
        one_of("--dtype", dtype, ("float32", "bfloat16"))
    if shape is None and dtype is not None:
        raise BadInput(f"--dtype {dtype} has no effect without --shape; named models have a dtype of their own")
    for flag, value in (("--variant", variant), ("--family", family)):
        if shape is not None and value:
            raise BadInput(f"--shape {shape} and {flag} exclude each other: a shape is one random model; give one only")


def shape_path(shape: str | None) -> str | None:
    """A shape's name as it is, the path of a config.json as an absolute one (the worker runs elsewhere)."""
    if shape is None or not (Path(shape).expanduser().exists() or "/" in shape):
        return shape
    if Path(shape).expanduser().is_dir():
        return str(Path(shape).expanduser().absolute())
    return _existing(shape, "--shape")


def check_model(name: str, family: str | None = None) -> str:
    """A lab name as it is, a folder as an absolute path (the worker runs elsewhere). Raises BadModel."""
    from pipo.errors import BadModel
    from pipo.lab import resolve_model

    folder = Path(resolve_model(name, family))
    if name.startswith("lab/"):
        return name
    if not (folder / "config.json").is_file():
        raise BadModel(f"{folder} has no config.json; name a model folder, or see `pipo models`")
    return str(folder.absolute())


def check_sampling(
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    presence: float | None,
    frequency: float | None,
) -> dict[str, Any]:
    """The sampling settings that were given, checked. Raises BadInput."""
    from pipo.engine.types import Sampling

    given = without_none(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, presence_penalty=presence,
        frequency_penalty=frequency,
    )  # fmt: skip
    Sampling(**given)
    return given


def check_engine(
    engine: str,
    cpu_rig: bool = False,
    devices: str | None = None,
    tp: int | None = None,
    dp: int | None = None,
    memory_fraction: float | None = None,
    radix_cache: bool | None = None,
) -> dict[str, Any]:
    """The engine's part of a job's settings; empty for torch. Raises BadInput where it cannot run here."""
    from pipo.errors import BadInput

    one_of("--engine", engine, ("torch", "sglang"))
    given = without_none(
        cpu_rig=cpu_rig or None, devices=devices, tp=tp, dp=dp, memory_fraction=memory_fraction, radix_cache=radix_cache
    )
    if engine == "torch":
        if given:
            flag = next(iter(given)).replace("_", "-")
            raise BadInput(f"--{flag} has no effect on the torch engine; give --engine sglang, or leave it out")
        return {}
    from pipo.sglang.launch import ServerSettings, unusable

    if (why := unusable(ServerSettings(**given))) is not None:
        raise BadInput(why)
    return {"engine": engine, "server": given}


def check_method(
    name: str | None, threshold: float | None = None, depth: int | None = None, keep_rate: float | None = None
) -> dict[str, Any] | None:
    """A method as a plain dict, checked. None where nothing was asked for.

    Raises:
        BadInput: an unknown name, a value out of range, or a setting that the named method would not use.
    """
    from pipo.engine.types import METHODS, Method
    from pipo.errors import BadInput

    given = without_none(threshold=threshold, depth=depth, keep_rate=keep_rate)
    if name is None:
        if not given:
            return None
        owners = {"threshold": "pipo", "depth": "eagle", "keep_rate": "random"}
        name = owners[next(iter(given))]
    if name not in METHODS:
        raise BadInput(f"unknown method {name!r}; methods are {', '.join(METHODS)}")
    for key, owner in (("threshold", "pipo"), ("depth", "eagle"), ("keep_rate", "random")):
        if key in given and name != owner:
            flag = key.replace("_", "-")
            raise BadInput(f"--{flag} has no effect on method {name}; it belongs to {owner}")
    Method(name=name, **given)  # type: ignore[arg-type]  # the name was checked above
    return {"name": name, **given}


def parse_variant(text: str, family: str | None = None) -> dict[str, Any]:
    """``NAME=MODEL:METHOD[:KEY=VALUE,...]`` as ``{name, model, method}``, checked as far as torch is not needed.

    Raises:
        BadInput: another form, an unknown method or key, a value that is no number or out of range.
        BadModel: no such model.
    """
    from pipo.errors import BadInput

    name, equals, rest = text.partition("=")
    parts = rest.split(":")
    pairs = parts.pop().split(",") if len(parts) > 2 and "=" in parts[-1] else []
    if not (name and equals and len(parts) >= 2 and all(parts)):
        raise BadInput(f"variant {text!r} must read NAME=MODEL:METHOD[:KEY=VALUE,...], e.g. mine=lab/pipo-opd:pipo")
    method = parts.pop()
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in _METHOD_KEYS:
            raise BadInput(f"unknown setting {key!r} in variant {text!r}; settings are {', '.join(_METHOD_KEYS)}")
        try:
            settings[key] = _METHOD_KEYS[key](value)
        except ValueError as e:
            raise BadInput(f"{key} in variant {text!r} must be a number, not {value!r}") from e
    checked = check_method(method, **settings)
    return {"name": name, "model": check_model(":".join(parts), family), "method": checked}


def parse_variants(texts: list[str] | None, family: str | None = None) -> list[dict[str, Any] | str] | None:
    """All variants of a comparison, TOML files as absolute paths; names must differ. None where none was given."""
    from pipo.errors import BadInput

    variants: list[dict[str, Any] | str] = []
    for text in texts or ():
        is_file = text.endswith(".toml") and "=" not in text
        variants.append(_existing(text, "--variant") if is_file else parse_variant(text, family))
    names = [v["name"] for v in variants if isinstance(v, dict)]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two variants are named {name!r}; give each its own name")
    return variants or None


def check_out(folder: Path | None) -> str | None:
    """An absolute output folder that can be made and written. Raises BadInput."""
    import os
    import tempfile

    from pipo.errors import BadInput

    if folder is None:
        return None
    folder = Path(os.path.abspath(folder.expanduser()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise BadInput(f"cannot write to {folder} ({e.strerror}); choose another folder with --out") from e
    return str(folder)
