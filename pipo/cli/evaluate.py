"""``pipo eval``: one model and method on tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from pipo.cli import options as o


def register(app: typer.Typer) -> None:
    app.command("eval")(run)


def run(
    model: Annotated[str, typer.Argument(help="A lab name such as lab/pipo-opd, or a model folder.")],
    task: o.Tasks = None,
    method: o.MethodOpt = None,
    threshold: o.Threshold = None,
    depth: o.Depth = None,
    keep_rate: o.KeepRate = None,
    k: o.Samples = 4,
    limit: o.Limit = None,
    slots: o.Slots = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    presence_penalty: o.Presence = None,
    frequency_penalty: o.Frequency = None,
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
    """Score one model with one decoding method.

    Prints avg@k, pass@k, slots, kept share and speed, task by task and over all tasks.
    """
    from pipo.cli.follow import run_job
    from pipo.cli.show import compare

    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        tasks=o.check_tasks(task),
        method=o.check_method(method, threshold, depth, keep_rate),
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence_penalty, frequency_penalty) or None,
        model=o.check_model(model, lab),
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        k=k,
        limit=limit,
        slots=slots,
        seed=seed,
    )
    run_job("eval", spec, as_json=json, detach=detach, show=compare)
