"""``pipo ablate``: studies that vary one thing."""

from __future__ import annotations

from typing import Annotated

import typer

from pipo.cli import options as o

app = typer.Typer(help="Studies that vary one thing.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass  # keeps `threshold` a subcommand while it is the only study


@app.command()
def threshold(
    model: Annotated[str, typer.Argument(help="A PIPO model: a lab name or a folder.")] = "lab/pipo-opd",
    threshold: Annotated[
        list[float] | None,
        typer.Option("--threshold", help="Repeat. [default: 0, 0.5, 0.8, 0.9, 0.95, 0.98, 1]"),
    ] = None,
    task: o.Tasks = None,
    k: o.Samples = 4,
    limit: o.Limit = None,
    seed: o.Seed = 0,
    random: Annotated[
        bool, typer.Option("--random/--no-random", help="Also gate by coin flip at the same pad ratio.")
    ] = True,
    engine: o.Engine = "torch",
    cpu_rig: o.CpuRig = False,
    devices: o.Devices = None,
    tp: o.Tp = None,
    dp: o.Dp = None,
    memory_fraction: o.MemoryFraction = None,
    radix_cache: o.RadixCache = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Quality against the confidence threshold, beside a coin flip that keeps as many drafts."""
    from pipo.cli.follow import run_job
    from pipo.cli.show import threshold as show
    from pipo.errors import BadInput

    if engine == "sglang" and random:
        raise BadInput("the coin flips run in the torch engine only; give --no-random, or --engine torch")
    for value in threshold or ():
        o.check_method("pipo", threshold=value)
    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        tasks=o.check_tasks(task),
        model=o.check_model(model, lab),
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        thresholds=sorted(set(threshold)) if threshold else None,
        k=k,
        limit=limit,
        seed=seed,
        random=random,
    )
    run_job("ablate-threshold", spec, as_json=json, detach=detach, show=show)
