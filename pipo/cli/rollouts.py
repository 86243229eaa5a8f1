"""``pipo data rollouts``: a teacher's scored samples on training questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o

Levels = Annotated[
    str | None, typer.Option("--levels", metavar="A-B", help="Levels of a lab task, e.g. 4-12. [default: as trained]")
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Only every N-th question from the I-th on; seeds stay.")
]
Thinking = Annotated[
    bool | None, typer.Option("--thinking/--no-thinking", help="The chat template's switch. [default: the template's]")
]


def rollouts(
    model: Annotated[str, typer.Argument(help="The teacher: a lab name such as lab/teacher, or a model folder.")],
    questions: Annotated[str, typer.Argument(help="A question file, or a lab task (its training problems).")],
    k: o.Samples = 4,
    method: o.MethodOpt = None,
    threshold: o.Threshold = None,
    depth: o.Depth = None,
    keep_rate: o.KeepRate = None,
    slots: o.Slots = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Questions. [default: all; lab: 1024]")] = None,
    levels: Levels = None,
    shard: Shard = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    presence_penalty: o.Presence = None,
    frequency_penalty: o.Frequency = None,
    thinking: Thinking = None,
    engine: o.Engine = "torch",
    cpu_rig: o.CpuRig = False,
    devices: o.Devices = None,
    tp: o.Tp = None,
    dp: o.Dp = None,
    memory_fraction: o.MemoryFraction = None,
    radix_cache: o.RadixCache = None,
    family: o.Family = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to copy the finished records to.")] = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Sample a teacher on training questions and score it; a job that goes on where it was stopped."""
    from pipo.cli.follow import run_job

    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        model=o.check_model(model, lab),
        questions=check_questions(questions),
        method=o.check_method(method, threshold, depth, keep_rate),
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence_penalty, frequency_penalty) or None,
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        k=k, slots=slots, limit=limit, levels=parse_levels(levels), shard=check_shard(shard), seed=seed,
        thinking=thinking, out=o.check_out(out),
    )  # fmt: skip
    run_job("rollouts", spec, as_json=json, detach=detach, show=show)


def check_questions(name: str) -> str:
    """A lab task as it is, a file as an absolute path. Raises BadInput."""
    from pipo.errors import BadInput
    from pipo.lab import TASKS

    if name in TASKS:
        return name
    path = Path(name).expanduser()
    if not path.is_file():
        raise BadInput(
            f"{name} is neither a question file nor one of {', '.join(TASKS)}; `pipo data import` makes files"
        )
    return str(path.absolute())


def check_shard(text: str | None) -> str | None:
    """The shard, if it can be one. Raises BadInput."""
    from pipo.data.questions import parse_shard

    parse_shard(text)
    return text


def parse_levels(text: str | None) -> list[int] | None:
    """``4-12`` as all levels from 4 to 12, ``7`` as one. Raises BadInput for another form."""
    from pipo.errors import BadInput

    if text is None:
        return None
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first)):
        raise BadInput(f"--levels {text!r} must read A-B with A <= B, e.g. 4-12, or one number")
    return list(range(int(first), int(last or first) + 1))


def show(result: dict[str, Any]) -> None:
    """How often the teacher was right, question by question, and what it cost."""
    from pipo.cli.output import cell
    from pipo.cli.show import percent

    k, asked = result["k"], result["questions"]
    shard = f", shard {result['shard']}" if result.get("shard") else ""
    print(f"{asked:,} questions of {', '.join(result['tasks'])}{shard}, {k} samples each")
    print(f"right: {percent(result['accuracy'])} % of samples, ± half of the 95% interval clustered by question")
    print("right samples a question: " + ", ".join(f"{n} of {k}: {c}" for n, c in result["solved"].items()))
    print(f"cut by the budget: {result['cut']}; failed: {result['failed']}")
    for name, words in (("tokens", "tokens a sample"), ("tokens_of_right", "tokens a right sample")):
        if result.get(name):
            print(f"{words}: " + ", ".join(f"{key} {cell(value)}" for key, value in result[name].items()))
    if result.get("throughput"):
        print(f"tokens a second: {cell(result['throughput']['tokens_s'])}")
