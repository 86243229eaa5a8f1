"""``pipo train``: SFT and OPD of a PIPO model. The settings are those of pipo.train; the job checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o

app = typer.Typer(help="Train a PIPO model: SFT on texts, OPD towards a teacher; merge adapters.", no_args_is_help=True)

Model = Annotated[
    str | None, typer.Argument(help="Where training starts: a lab name, smollm2, or a model folder. Also as --model.")
]
ModelFlag = Annotated[str | None, typer.Option("--model", hidden=True)]
Data = Annotated[
    str, typer.Option("--data", help="JSONL with prompt and response, or with messages; or a lab task, e.g. lab-chain.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the trained model. [default: the job's own folder]")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML with settings; --set goes before it.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. lr=1e-4; repeat.")]
Recipe = Annotated[
    str | None, typer.Option("--recipe", help="paper or lab. [default: lab for the lab's models, else paper]")
]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="JOB", help="Go on from a job's checkpoint: its number, its folder, or last."),
]
Backend = Annotated[str | None, typer.Option("--backend", help="torch, in one process, or swift. [default: torch]")]
Processes = Annotated[int | None, typer.Option("--processes", min=1, help="swift: processes, one a GPU. [default: 1]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the settings (swift: the command too), train nothing.")]


@app.command()
def sft(
    data: Data,
    model: Model = None,
    model_flag: ModelFlag = None,
    out: Out = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    resume: Resume = None,
    backend: Backend = None,
    processes: Processes = None,
    dry_run: DryRun = False,
    seed: o.Seed = 0,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Next-pair training of a regular model on prompts and responses."""
    from pipo.train.settings import SFTSettings, convert

    start = o.check_model(_one_of("MODEL", model, model_flag))
    given = settings(config, set_) | {"model": start, "seed": seed} | _files(data, out)
    given |= _more("train-sft", recipe, resume, backend, processes)
    _submit("train-sft", convert(given, SFTSettings), json, detach, dry_run)


@app.command()
def opd(
    data: Data,
    model: Model = None,
    teacher: Annotated[
        str | None, typer.Argument(help="A regular model: a lab name or a model folder. Also as --teacher.")
    ] = None,
    model_flag: ModelFlag = None,
    teacher_flag: Annotated[str | None, typer.Option("--teacher", hidden=True)] = None,
    out: Out = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    resume: Resume = None,
    backend: Backend = None,
    processes: Processes = None,
    dry_run: DryRun = False,
    seed: o.Seed = 0,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """On-policy distillation of a PIPO model towards a teacher."""
    from pipo.train.settings import OPDSettings, convert

    if model_flag is not None and teacher is None:
        model, teacher = None, model or teacher_flag  # with --model the only argument left is the teacher
        teacher_flag = None
    start, judge = _one_of("MODEL", model, model_flag), _one_of("TEACHER", teacher, teacher_flag)
    given = settings(config, set_) | {"model": o.check_model(start), "teacher": o.check_model(judge), "seed": seed}
    given |= _files(data, out) | _more("train-opd", recipe, resume, backend, processes)
    _submit("train-opd", convert(given, OPDSettings), json, detach, dry_run)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder with adapter_model.safetensors and adapter_config.json.")],
    model: Annotated[str, typer.Option("--model", help="The model that the adapter was trained on.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the merged model.")],
    layout: Annotated[str, typer.Option("--layout", help="pipo, or published: the names of the paper's.")] = "pipo",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16, or auto: as the model is stored.")] = "auto",
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Add adapters into the model that they were trained on, and write it."""
    from pipo.cli.follow import run_job
    from pipo.cli.show import plain

    spec = {
        "adapter": str(adapter.expanduser().absolute()),
        "model": o.check_model(model),
        "out": o.check_out(out),
        "layout": o.one_of("--layout", layout, ("pipo", "published")),
        "dtype": o.one_of("--dtype", dtype, ("auto", "float32", "bfloat16")),
    }
    run_job("train-merge", spec, as_json=json, detach=detach, show=plain)


def _one_of(name: str, argument: str | None, flag: str | None) -> str:
    """A value that may stand as an argument or behind a flag. Raises BadInput where it is missing or there twice."""
    from pipo.errors import BadInput

    if (argument is None) == (flag is None):
        raise BadInput(
            f"{name} is {'missing' if flag is None else f'given twice, as {argument} and {flag}'}; name it once"
        )
    return argument or flag or ""


def _files(data: str, out: Path | None) -> dict[str, Any]:
    from pipo.errors import BadInput
    from pipo.lab import TASKS

    path = _lab_data(data) if data in TASKS else Path(data).expanduser().absolute()
    if not path.is_file():
        raise BadInput(f"{data} is not a file; name a JSONL file with --data, or one of {', '.join(TASKS)}")
    return o.without_none(data=str(path), out=o.check_out(out))


def _lab_data(task: str, rows: int = 4000) -> Path:
    """Gold solutions of a lab task's training problems as a file, written once; prompts for OPD are in it too."""
    import json

    from pipo.config import paths
    from pipo.lab.tasks import draw_many, task_named

    path = paths().home / "data" / f"{task}-gold.jsonl"
    if not path.exists():
        low, high = task_named(task).train_levels
        items = draw_many(task, "train", rows, list(range(low + 2, high + 1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = path.with_suffix(".tmp")
        tmp.write_text("".join(json.dumps({"prompt": i.prompt, "response": i.solution}) + "\n" for i in items))
        tmp.replace(path)
    return path


def _more(
    kind: str, recipe: str | None, resume: str | None, backend: str | None, processes: int | None
) -> dict[str, Any]:
    return o.without_none(
        recipe=recipe, resume=resume and str(_earlier(kind, resume)), backend=backend, processes=processes
    )


def _earlier(kind: str, resume: str) -> Path:
    """The folder of an earlier training. Raises BadInput where there is none, or it has no checkpoint."""
    from pipo.config import paths
    from pipo.errors import BadInput

    jobs = sorted(paths().jobs.glob(f"*-{kind}*"))
    if resume == "last":
        found = [j for j in jobs if (j / "state.pt").is_file() or any(j.glob("swift/checkpoint-*/pipo.json"))]
        if not found:
            raise BadInput(f"no {kind} job in {paths().jobs} has a checkpoint; leave --resume out to start anew")
        return found[-1]
    if resume.isdigit():
        found = [j for j in jobs if int(j.name.split("-")[0]) == int(resume)]
        if not found:
            raise BadInput(f"job {resume} is no {kind} job here; `pipo jobs list` shows them")
        return found[0]
    return Path(resume).expanduser().absolute()


def _submit(kind: str, settings: Any, json: bool, detach: bool, dry_run: bool) -> None:
    import msgspec

    from pipo.cli.follow import run_job
    from pipo.cli.output import print_json
    from pipo.cli.show import plain

    spec = msgspec.to_builtins(settings)
    if settings.backend == "swift":
        kind += "-swift"
    if dry_run:
        print_json(spec)
        if settings.backend == "swift":
            _print_command(settings)
        return
    run_job(kind, spec, as_json=json, detach=detach, show=plain)


def _print_command(settings: Any) -> None:
    """The command that the swift backend would run."""
    import shlex

    from pipo.cli.output import note
    from pipo.swift.command import command

    note(shlex.join(command(settings)))


def settings(config: Path | None, pairs: list[str] | None) -> dict[str, Any]:
    """Settings of a TOML file with ``KEY=VALUE`` pairs over it; values are TOML, or plain words.

    Raises:
        BadInput: the file cannot be read or is not TOML, or a pair is of another form.
    """
    import tomllib

    from pipo.errors import BadInput

    found: dict[str, Any] = {}
    if config is not None:
        try:
            found = tomllib.loads(config.read_text())
        except OSError as e:
            raise BadInput(f"{config} cannot be read ({e.strerror}); name a TOML file with --config") from e
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise BadInput(f"{config} is not TOML ({e})") from e
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set {pair} must read KEY=VALUE, e.g. --set lr=1e-4")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found
