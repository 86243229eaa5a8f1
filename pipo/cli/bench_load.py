"""``pipo bench load``: requests that arrive as they do, on engines here or on any OpenAI endpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o
from pipo.cli import tasks as t

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[VARIANT]...",
        help="regular, mtp, eagle, pipo ... of the lab, NAME=MODEL:METHOD[:KEY=VALUE,...], or with --url a MODEL of "
        "its or NAME=MODEL. [default: regular, eagle and pipo-opd; the endpoint's first model]",
    ),
]
Rates = Annotated[list[float] | None, typer.Option("--rate", help="Open loop: requests a second; repeat. [default: 2]")]
Concurrency = Annotated[
    list[int] | None, typer.Option("--concurrency", min=1, help="Closed loop: requests at once; repeat.")
]
Trace = Annotated[
    str | None, typer.Option("--trace", metavar="NAME|FILE", help="Replay azure-conv, azure-code, mooncake, or a file.")
]
Speedup = Annotated[float, typer.Option("--speedup", help="trace: how many times as fast.")]
Scale = Annotated[
    float | None, typer.Option("--scale", help="trace: lengths times this. [default: 1, or what fits the model]")
]
Arrivals = Annotated[str, typer.Option("--arrivals", help="rate: poisson, gamma or constant.")]
Burstiness = Annotated[
    float | None, typer.Option("--burstiness", help="gamma: its shape; 1 is Poisson, below it come bursts.")
]
FindRate = Annotated[bool, typer.Option("--find-rate", help="Search the highest rate at which --target meet --slo.")]
Target = Annotated[float | None, typer.Option("--target", help="find-rate: share that must meet. [default: 0.95]")]
Precision = Annotated[float | None, typer.Option("--precision", help="find-rate: to this factor. [default: 1.1]")]
Slo = Annotated[
    str | None,
    typer.Option("--slo", metavar="ttft=S,tpot=S,...", help="Limits in seconds: ttft, first_pair, tpot, gap, e2e."),
]
Requests = Annotated[
    int | None,
    typer.Option("--requests", "-n", min=1, help="Of each point. [default: 100; trace: 200; find-rate: 20 s of them]"),
]
Duration = Annotated[float | None, typer.Option("--duration", help="Seconds of each point in which requests come.")]
Input = Annotated[int | None, typer.Option("--input-tokens", min=1, help="Of random prompts. [default: 64]")]
Output = Annotated[int | None, typer.Option("--output-tokens", min=1, help="After random prompts. [default: 64]")]
Task = Annotated[str | None, typer.Option("--task", help="Ask its items, and score the very responses; `pipo tasks`.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds after a request is due. [default: 120]")]
Warmup = Annotated[int | None, typer.Option("--warmup", min=0, help="Requests before a point. [default: 2]")]
MaxBatch = Annotated[int | None, typer.Option("--max-batch", min=1, help="Rows of an engine here. [default: 64]")]
Url = Annotated[str | None, typer.Option("--url", help="An OpenAI endpoint, http://HOST:PORT, instead of an engine.")]
Api = Annotated[str | None, typer.Option("--api", help="url: completions or chat. [default: completions]")]
Key = Annotated[Path | None, typer.Option("--api-key-file", help="url: file with the key, one line.")]
Extra = Annotated[str | None, typer.Option("--extra-body", metavar="JSON", help="url: added to each request.")]
Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", metavar="MODEL", help="url: a model here whose ids prompts are made of.")
]


def load(
    variant: Names = None,
    rate: Rates = None,
    concurrency: Concurrency = None,
    trace: Trace = None,
    speedup: Speedup = 1.0,
    scale: Scale = None,
    arrivals: Arrivals = "poisson",
    burstiness: Burstiness = None,
    find_rate: FindRate = False,
    target: Target = None,
    precision: Precision = None,
    slo: Slo = None,
    requests: Requests = None,
    duration: Duration = None,
    input_tokens: Input = None,
    output_tokens: Output = None,
    task: Task = None,
    slots: o.Slots = None,
    temperature: o.Temperature = None,
    timeout: Timeout = None,
    warmup: Warmup = None,
    max_batch: MaxBatch = None,
    url: Url = None,
    api: Api = None,
    api_key_file: Key = None,
    extra_body: Extra = None,
    tokenizer: Tokenizer = None,
    seed: o.Seed = 0,
    data: t.Data = None,
    engine: o.Engine = "torch",
    cpu_rig: o.CpuRig = False,
    devices: o.Devices = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Latency, throughput and goodput under load: rates, concurrency, recorded traces; the same requests for all."""
    from pipo.cli.follow import run_job
    from pipo.cli.show_load import show

    check_numbers(rate, {"--duration": duration, "--speedup": speedup, "--scale": scale, "--timeout": timeout})
    lab = o.check_family(family)
    spec = o.without_none(
        variants=_variants(variant, url, lab), rates=rate, concurrency=concurrency, trace=_path(trace), speedup=speedup,
        scale=scale, arrivals=o.one_of("--arrivals", arrivals, ("poisson", "gamma", "constant")), burstiness=burstiness,
        find_rate=find_rate or None, target=target, precision=precision, slo=parse_slo(slo), requests=requests,
        duration_s=duration, input_tokens=input_tokens, output_tokens=output_tokens, timeout_s=timeout, warmup=warmup,
        max_batch=max_batch, url=url, seed=seed, family=lab, slots=slots, **_asked(task, data),
        sampling=o.check_sampling(temperature, None, None, None, None, None) or None,
        **_endpoint(api, api_key_file, extra_body, tokenizer), **o.check_engine(engine, cpu_rig, devices),
    )  # fmt: skip
    run_job("load", spec, as_json=json, detach=detach, show=show)


def check_numbers(rates: list[float] | None, others: dict[str, float | None]) -> None:
    """Raise BadInput for what must be a finite number above 0 and is not."""
    from pipo.errors import BadInput

    for flag, value in [*(("--rate", r) for r in rates or ()), *others.items()]:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise BadInput(f"{flag} {value:g} must be a finite number above 0")


def parse_slo(text: str | None) -> dict[str, float] | None:
    """``ttft=0.5,tpot=0.02`` as limits in seconds; the job checks their names. Raises BadInput for another form."""
    from pipo.errors import BadInput

    found: dict[str, float] = {}
    for part in (text or "").split(",") if text is not None else ():
        name, equals, value = part.strip().partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not (name and equals) or name in found or not (math.isfinite(number) and number > 0):
            raise BadInput(f"limit {part!r} of --slo must read NAME=SECONDS, each once, e.g. ttft=0.5,tpot=0.02")
        found[name] = number
    return found or None


def _variants(names: list[str] | None, url: str | None, family: str | None) -> list[Any] | None:
    """Names of the lab's variants as they are, others checked; an endpoint's are for the job, which asks it."""
    if url is not None:
        return list(names or []) or None
    return [
        v for n in names or () for v in ((o.parse_variants([n], family) or []) if "=" in n or ".toml" in n else [n])
    ] or None


def _path(trace: str | None) -> str | None:
    """A trace's name as it is, a file as an absolute path (the worker runs elsewhere)."""
    path = Path(trace).expanduser() if trace else None
    return str(path.absolute()) if path is not None and path.is_file() else trace


def _asked(task: str | None, data: Path | None) -> dict[str, Any]:
    """Task and folder of data, which traces lie in too."""
    from pipo.config import paths

    folder = None if data is None else data.expanduser().absolute()
    names = o.check_tasks([task], folder) if task else None
    at = folder or paths().data
    return {"task": names[0] if names else None, "data": str(at) if at else None}


def _endpoint(
    api: str | None, key: Path | None, extra: str | None, tokenizer: str | None
) -> dict[str, Any]:  # fmt: skip
    """Settings of an endpoint. Raises BadInput for a body that is no JSON object."""
    import json

    from pipo.errors import BadInput

    body = None
    if extra is not None:
        try:
            body = json.loads(extra)
        except ValueError as e:
            raise BadInput(f"--extra-body {extra[:80]!r} is no JSON ({e})") from e
        if not isinstance(body, dict):
            raise BadInput(f"--extra-body {extra[:80]!r} must be a JSON object, e.g. '{{\"min_tokens\": 8}}'")
    return {
        "api": None if api is None else o.one_of("--api", api, ("completions", "chat")),
        "api_key_file": None if key is None else str(key.expanduser().absolute()),
        "extra_body": body, "tokenizer": None if tokenizer is None else o.check_model(tokenizer),
    }  # fmt: skip
