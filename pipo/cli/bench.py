"""``pipo bench``: variants compared on tasks, and latency over input lengths."""

from __future__ import annotations

from typing import Annotated

import typer

from pipo.cli import bench_load as _load
from pipo.cli import bench_map as _map
from pipo.cli import evaluate as e
from pipo.cli import options as o
from pipo.cli import tasks as t

app = typer.Typer(help="Compare methods: quality and speed, or latency.", no_args_is_help=True)


@app.command()
def compare(
    variant: o.Variants = None,
    task: o.Tasks = None,
    k: o.Samples = 4,
    limit: o.Limit = None,
    slice: t.Slice = None,
    shard: t.Shard = None,
    thinking: t.Thinking = None,
    data: t.Data = None,
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
    no_score: e.NoScore = False,
    unsafe: e.Unsafe = False,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """All variants on the same items with the same seeds, under a tight and a loose budget of slots."""
    from pipo.cli.follow import run_job
    from pipo.cli.show import compare as show

    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        **t.selection(task, slice, shard, thinking, data),
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence_penalty, frequency_penalty) or None,
        variants=o.parse_variants(variant, lab),
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        k=k,
        limit=limit,
        slots=slots,
        seed=seed,
        **e.judging(no_score, unsafe),
    )
    run_job("compare", spec, as_json=json, detach=detach, show=show)


@app.command()
def merge(
    runs: Annotated[
        list[str], typer.Argument(metavar="JOB|FOLDER...", help="All shards of one comparison or evaluation.")
    ],
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Put shards together into the run that they are parts of."""
    from pipo.cli.follow import run_job
    from pipo.cli.show import compare as show

    run_job("merge", {"folders": t.run_folders(runs)}, as_json=json, detach=detach, show=show)


@app.command()
def latency(
    variant: o.Variants = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape",
            metavar="NAME|config.json",
            help="Time all methods on one random model of this shape: lab, 158m, qwen3.5-4b, qwen3.5-9b, or a config.",
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Of a shape's weights. [default: bfloat16 on a GPU, float32 on CPU]")
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="ours: medians; paper: 2K to 128K, 16 trials, means over 16 tokens.")
    ] = "ours",
    input_length: Annotated[
        list[int] | None,
        typer.Option("--input-length", min=1, help="Prompt tokens; repeat. [default: 512, 2048, 8192; paper: 2K-128K]"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=16, help="Tokens to generate per trial. [default: 32; paper: 16]")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials per variant and length. [default: 5; paper: 16]")
    ] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option("--keep", min=0, max=1, help="Kept shares to force; repeat. [default: 1, 0.8; shapes: 0.335 too]"),
    ] = None,
    seed: o.Seed = 0,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """First token and time per token at batch 1, over the hardware's floor and as ratios to regular decoding."""
    from pipo.cli.follow import run_job
    from pipo.cli.show import latency as show

    o.check_shape(shape, dtype, variant, family)
    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        variants=o.parse_variants(variant, lab),
        shape=o.shape_path(shape),
        dtype=dtype,
        protocol=o.one_of("--protocol", protocol, ("ours", "paper")),
        input_lengths=input_length or None,
        tokens=tokens,
        trials=trials,
        keep=keep or None,
        seed=seed,
    )
    run_job("latency", spec, as_json=json, detach=detach, show=show)


app.command("map")(_map.map_)
app.command("load")(_load.load)
