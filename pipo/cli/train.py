"""``pipo train``: SFT and OPD of a PIPO model. The settings are those of pipo.train; the job checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o

app = typer.Typer(help="Train a PIPO model: SFT on texts, OPD towards a teacher.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Where training starts: a lab name or a model folder.")]
Data = Annotated[Path, typer.Option("--data", help="JSONL, a text to train on a line.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the trained model. [default: the job's own folder]")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML with settings; --set goes before it.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. lr=1e-4; repeat.")]


@app.command()
def sft(
    model: Model,
    data: Data,
    out: Out = None,
    config: Config = None,
    set_: Set = None,
    seed: o.Seed = 0,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Next-pair training of a regular model on prompts and responses."""
    spec = settings(config, set_) | {"model": o.check_model(model), "seed": seed}
    _submit("train-sft", spec | _files(data, out), json, detach)


@app.command()
def opd(
    model: Model,
    teacher: Annotated[str, typer.Argument(help="A regular model: a lab name or a model folder.")],
    data: Data,
    out: Out = None,
    config: Config = None,
    set_: Set = None,
    seed: o.Seed = 0,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """On-policy distillation of a PIPO model towards a teacher."""
    spec = settings(config, set_) | {"model": o.check_model(model), "teacher": o.check_model(teacher), "seed": seed}
    _submit("train-opd", spec | _files(data, out), json, detach)


def _files(data: Path, out: Path | None) -> dict[str, Any]:
    from pipo.errors import BadInput

    if not data.expanduser().is_file():
        raise BadInput(f"{data} is not a file; name a JSONL file with --data")
    return o.without_none(data=str(data.expanduser().absolute()), out=o.check_out(out))


def _submit(kind: str, spec: dict[str, Any], json: bool, detach: bool) -> None:
    from pipo.cli.follow import run_job
    from pipo.cli.show import plain

    run_job(kind, spec, as_json=json, detach=detach, show=plain)


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
