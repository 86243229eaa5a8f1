"""``pipo train``: SFT and OPD of a PIPO model. The settings are those of pipo.train; the job checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o

app = typer.Typer(help="Train a PIPO model: SFT on texts, OPD towards a teacher; merge adapters.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Where training starts: a lab name, smollm2, or a model folder.")]
Data = Annotated[Path, typer.Option("--data", help="JSONL with prompt and response, or with messages.")]
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
    model: Model,
    data: Data,
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

    given = settings(config, set_) | {"model": o.check_model(model), "seed": seed} | _files(data, out)
    given |= _more("train-sft", recipe, resume, backend, processes)
    _submit("train-sft", convert(given, SFTSettings), json, detach, dry_run)


@app.command()
def opd(
    model: Model,
    teacher: Annotated[str, typer.Argument(help="A regular model: a lab name or a model folder.")],
    data: Data,
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

    given = settings(config, set_) | {"model": o.check_model(model), "teacher": o.check_model(teacher), "seed": seed}
    given |= _files(data, out) | _more("train-opd", recipe, resume, backend, processes)
    _submit("train-opd", convert(given, OPDSettings), json, detach, dry_run)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder with adapter_model.safetensors and adapter_config.json.")],
    model: Annotated[str, typer.Option("--model", help="The model that the adapter was trained on.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the merged model.")],
    layout: Annotated[str, typer.Option("--layout", help="pipo, or published: the names of the paper's.")] = "pipo",
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
    }
    run_job("train-merge", spec, as_json=json, detach=detach, show=plain)


def _files(data: Path, out: Path | None) -> dict[str, Any]:
    from pipo.errors import BadInput

    if not data.expanduser().is_file():
        raise BadInput(f"{data} is not a file; name a JSONL file with --data")
    return o.without_none(data=str(data.expanduser().absolute()), out=o.check_out(out))


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
        found = [j for j in jobs if (j / "state.pt").is_file()]
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
