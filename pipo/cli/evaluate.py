"""``pipo eval MODEL``: one model and method on tasks; ``pipo eval score``: a run judged later, or once more;
``pipo eval check-scorers``: whether scoring can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipo.cli import options as o
from pipo.cli import tasks as t

MODEL = "model"  # the command that is meant where none is named
TASKS = "list-tasks"  # what --list stands for


class ModelFirst(TyperGroup):
    """A group in which a word that is no command is a model: ``pipo eval lab/base`` needs no word between."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] == ["--list"]:
            args = [TASKS, *args[1:]]
        elif not args or args[0] not in self.commands or args[0] == MODEL:
            args = [MODEL, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == MODEL else name, command, rest  # usage lines say what people type


app = typer.Typer(cls=ModelFirst, rich_markup_mode=None)
NoScore = Annotated[
    bool, typer.Option("--no-score", help="Generate only; `pipo eval score` judges what takes time to judge, later.")
]
Unsafe = Annotated[
    bool, typer.Option("--unsafe-code-execution", help="Run code with your own rights where it cannot be shut in.")
]


def register(root: typer.Typer) -> None:
    root.add_typer(
        app, name="eval", help="Score one model with one decoding method; score: judge a run; check-scorers."
    )


app.command(TASKS, hidden=True)(t.run)


EPILOG = (
    "pipo eval score: judge a run that was only generated, or once more. pipo eval check-scorers: whether the scorers "
    "can be trusted. pipo eval --list: tasks."
)


@app.command(MODEL, epilog=EPILOG)
def run(
    model: Annotated[str, typer.Argument(help="A lab name such as lab/pipo-opd, or a model folder.")],
    task: o.Tasks = None,
    slice: t.Slice = None,
    shard: t.Shard = None,
    thinking: t.Thinking = None,
    data: t.Data = None,
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
    no_score: NoScore = False,
    unsafe: Unsafe = False,
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
        **t.selection(task, slice, shard, thinking, data),
        method=o.check_method(method, threshold, depth, keep_rate),
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence_penalty, frequency_penalty) or None,
        model=o.check_model(model, lab),
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        k=k,
        limit=limit,
        slots=slots,
        seed=seed,
        **judging(no_score, unsafe),
    )
    run_job("eval", spec, as_json=json, detach=detach, show=compare)


def judging(no_score: bool, unsafe: bool) -> dict[str, Any]:
    """The part of a job's settings that says when samples are judged; empty for at once. Raises BadInput."""
    from pipo.errors import BadInput

    if no_score and unsafe:
        raise BadInput("--unsafe-code-execution has no effect with --no-score: nothing is run; give one of them")
    return {**({"score": False} if no_score else {}), **({"unsafe": True} if unsafe else {})}


@app.command()
def score(
    run: Annotated[str, typer.Argument(metavar="JOB|FOLDER", help="A finished evaluation or comparison.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", help="A task file (.toml) of the run's that has programs; repeat. Benchmarks are found."
        ),
    ] = None,
    data: t.Data = None,
    unsafe: Unsafe = False,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Judge all samples of a run by the present scorers: those of --no-score, or all of them once more.

    The run gets a new summary; prints it, and how many verdicts are other ones than before.
    """
    from pipo.cli.follow import run_job

    spec = {"folder": t.run_folders([run])[0], **_tests(task, data), **judging(False, unsafe)}
    run_job("score", spec, as_json=json, detach=detach, show=show_score)


def _tests(task: list[str] | None, data: Path | None) -> dict[str, Any]:
    """Where tests of programs are, as the worker finds them."""
    from pipo.config import paths

    folder = data.expanduser().absolute() if data else paths().data
    return o.without_none(tasks=o.check_tasks(task, folder), data=str(folder) if folder else None)


def show_score(result: dict[str, Any]) -> None:
    """The run's new summary, then what changed."""
    from pipo.cli.show import compare

    compare(result)
    found = result.get("rescored", {})
    before = found.get("judged_before", 0)
    print(f"judged: {found.get('samples', 0)} samples, {before} of them not for the first time: "
          f"{found.get('to_right', 0)} turned right, {found.get('to_wrong', 0)} turned wrong")  # fmt: skip


@app.command("check-scorers")
def check_scorers(
    data: t.Data = None,
    unsafe: Unsafe = False,
    json: o.Json = False,
) -> None:
    """Known solutions of MATH-500, GSM8K and HumanEval must score as right, changed ones as wrong; else exit status 1.

    Prints counts and every answer that was scored otherwise than it is, with the reason that was given.
    """
    from pipo.cli.follow import follow, join_key, open_client, print_end
    from pipo.cli.output import note
    from pipo.config import paths

    folder = data.expanduser().absolute() if data else paths().data
    spec = o.without_none(data=str(folder) if folder else None, unsafe=unsafe)
    with open_client() as client:
        info = client.submit("check-scorers", spec, join_key=join_key("check-scorers", spec))
        note(f"job {info.id}: check-scorers")
        ended = follow(client, info)
    print_end(ended, as_json=json, show=show_check)
    if not (ended.result or {}).get("good"):
        raise typer.Exit(1)


def show_check(result: dict[str, Any]) -> None:
    """Counts a benchmark, then every exception."""
    from pipo.cli.output import print_table

    found = result.get("benchmarks", {})
    print_table(
        ["benchmark", "items", "right answers", "scored right", "changed answers", "scored wrong"],
        [[n, b["items"], b["right"], b["scored_right"], b["wrong"], b["scored_wrong"]] for n, b in found.items()],
    )
    for name, row in found.items():
        for e in row["exceptions"]:
            scored = "wrong, it is right" if e["is_right"] else "right, it is wrong"
            print(f"{name} {e['item']}: scored {scored} ({e['reason']}); gold {e['gold']!r}, answer {e['answer']!r}")
    for name in result.get("missing", ()):
        print(f"{name}: not here, so not checked; `pipo tasks {name}` says where it comes from")
