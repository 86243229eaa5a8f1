"""``pipo ablate``: studies that vary one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import ablate_grid, ablate_looks
from pipo.cli import options as o
from pipo.cli import tasks as t

app = typer.Typer(help="Studies that vary one thing.", no_args_is_help=True)
ablate_grid.register(app)
ablate_looks.register(app)


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
    slots: o.Slots = None,
    thinking: t.Thinking = None,
    data: t.Data = None,
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
        **t.selection(task, None, None, thinking, data),
        model=o.check_model(model, lab),
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        thresholds=sorted(set(threshold)) if threshold else None,
        k=k,
        limit=limit,
        slots=slots,
        seed=seed,
        random=random,
    )
    run_job("ablate-threshold", spec, as_json=json, detach=detach, show=show)


@app.command()
def training(
    study: Annotated[
        Path | None, typer.Option("--study", help="TOML with rows of your own, as ablations/studies/training.toml.")
    ] = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="A row of the study, with those that it needs; repeat.")
    ] = None,
    training_seed: Annotated[
        list[int] | None, typer.Option("--training-seed", help="Of the rows' seeds only this one; repeat.")
    ] = None,
    k: Annotated[int | None, typer.Option("--k", min=1, help="Samples per item. [default: 4]")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Items per task. [default: 240]")] = None,
    seed: o.Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that train side by side.")] = 2,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Stop after so long; the table shows what is done.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes: a minute, and nothing is learned well.")] = False,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """What each way of training buys: control, SFT, OPD and their settings, over training seeds.

    About an hour on two cores. Goes on where it stopped.
    """
    from pipo.cli.follow import run_job
    from pipo.cli.show import training as show

    spec = o.without_none(
        **_study_file(study),
        only=row,
        seeds=training_seed,
        k=k,
        limit=limit,
        seed=seed or None,
        workers=workers,
        minutes=minutes,
        smoke=smoke or None,
        family=o.check_family(family),
    )
    run_job("ablate-training", spec, as_json=json, detach=detach, show=show)


def _study_file(path: Path | None) -> dict[str, Any]:
    """What a study's TOML says; the job checks it."""
    import tomllib

    from pipo.errors import BadInput

    if path is None:
        return {}
    try:
        return tomllib.loads(path.expanduser().read_text())
    except OSError as e:
        raise BadInput(f"--study {path} cannot be read ({e.strerror}); name a TOML file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadInput(f"--study {path} is no TOML ({e})") from e
