"""``pipo bench map``: which method is fastest, over batch, context and kept share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipo.cli import options as o
from pipo.cli.output import cell, print_table

NAMES = {"regular": "regular", "eagle": "EAGLE", "pipo": "PIPO"}

Batches = Annotated[
    list[int] | None, typer.Option("--batch", min=1, help="Rows at a time; repeat. [default: 1, 8, 64]")
]
Contexts = Annotated[
    list[int] | None,
    typer.Option("--context", min=2, help="Tokens before the step; repeat. [default: 512, 2048, 8192]"),
]
Kept = Annotated[
    list[float] | None,
    typer.Option("--keep", min=0, max=1, help="Share of drafts that pairs keep; repeat. [default: 0.335, 0.8, 1]"),
]
Accepted = Annotated[
    list[float] | None,
    typer.Option("--accepted", min=1, help="Tokens a step that eagle is taken to have; repeat. [default: 2.4]"),
]


def map_(
    shape: Annotated[
        str, typer.Option("--shape", metavar="NAME|config.json", help="lab, 158m, qwen3.5-4b, qwen3.5-9b, or a config.")
    ] = "lab",
    batch: Batches = None,
    context: Contexts = None,
    keep: Kept = None,
    accepted: Accepted = None,
    depth: Annotated[int, typer.Option("--depth", min=1, max=16, help="eagle: drafts per step.")] = 3,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Contexts are prompts, dense for pairs, not generated text.")
    ] = False,
    machine: Annotated[
        str, typer.Option("--machine", help="Whose floor: measure (this machine's), or h100-ideal.")
    ] = "measure",
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time steps of a random model here as well.")
    ] = True,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to time per method and cell.")] = 24,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="What has to fit, 10^9 bytes. [default: the machine's]")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="[default: bfloat16 on a GPU or an ideal machine, else float32]")
    ] = None,
    seed: o.Seed = 0,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """The fastest method by batch, context and kept share: the hardware's floor, steps as measured, and what fits."""
    from pipo.cli.follow import run_job
    from pipo.errors import BadInput

    most = depth + 1
    if bad := [a for a in accepted or () if a > most]:
        raise BadInput(f"--accepted {bad[0]:g} must lie in [1, {most}]: a step of depth {depth} gives no more tokens")
    spec = o.without_none(
        shape=o.shape_path(shape),
        batches=batch or None,
        contexts=context or None,
        kept=keep or None,
        accepted=accepted or None,
        depth=depth,
        prompt=prompt,
        machine=machine,
        measured=measure,
        steps=steps,
        memory_gb=memory_gb,
        dtype=None if dtype is None else o.one_of("--dtype", dtype, ("float32", "bfloat16", "float16")),
        seed=seed,
    )
    run_job("map", spec, as_json=json, detach=detach, show=show)


def show(result: dict[str, Any]) -> None:
    """Every method of every cell, then the winners."""
    machine, measured = result["machine"], result["measured"]
    text = "prompts" if result["prompt"] else "generated contexts"
    print(
        f"{result['shape']} in {result['dtype']}, {text}; floor of {machine['name']}: "
        f"{machine['bandwidth'] / 1e9:.0f} GB/s, {machine['matmul_rate'] / 1e12:.3g} TFLOP/s "
        f"(attention {machine['attention_rate'] / 1e12:.3g}); {result['memory_bytes'] / 1e9:.3g} GB to fit in\n"
    )
    columns = ["method", "batch", "context", "tok/step", "GB", "fits", "floor ms", "floor tok/s", "floor x regular"]
    if measured:
        columns += ["step ms", "over floor", "tok/s", "x regular"]
    print_table(columns, [_cells(r, measured) for r in result["rows"]])
    print(
        "\nwinner, its tokens a second over regular's (no regular: it does not fit); unverified mtp does not compete\n"
    )
    columns = ["batch", "context", "kept %", "eagle's tok/step", "by floor"]
    rows = []
    for c in result["cells"]:
        line = [c["batch"], c["context"], f"{100 * c['keep']:g}", f"{c['accepted']:g}", verdict(c["floor"])]
        rows.append(line + ([verdict(c["measured"])] if measured else []))
    print_table(columns + (["as measured"] if measured else []), rows)
    if any(c["measured"] and not c["measured"]["settled"] for c in result["cells"]):
        print("\n?: the lead over the second lies within the spread of the steps")


def _cells(r: dict[str, Any], measured: bool) -> list[str]:
    name = r["method"]
    if r["keep"] is not None:
        name += f", {100 * r['keep']:g} % kept"
    if r["accepted"] is not None:
        name += f", {r['accepted']:g} accepted"
    line = [
        name, r["batch"], r["context"], f"{r['tokens_per_step']:.3g}", cell(r["memory_bytes"] / 1e9), cell(r["fits"]),
        cell(1e3 * r["floor_s"]), f"{r['floor_tokens_s']:.0f}", _times(r["floor_ratio"]),
    ]  # fmt: skip
    if measured:
        step, ratio = r["step_s"], r["ratio"]
        line += [
            cell(1e3 * step["p50"]) if step else "-", cell(r["over_floor"]),
            f"{r['tokens_s']:.0f}" if r["tokens_s"] else "-", _times(ratio["value"] if ratio else None),
        ]  # fmt: skip
    return line


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def verdict(side: dict[str, Any] | None) -> str:
    """``PIPO 1.45``, a question mark behind it where the lead is not settled; what does not fit is said."""
    if side is None or side["winner"] is None:
        return "nothing fits"
    name = NAMES[side["winner"]] + ("" if side["settled"] else "?")
    return f"{name} {side['ratio']:.2f}" if side["ratio"] is not None else f"{name}, no regular"
