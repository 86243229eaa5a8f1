"""Puts the command groups together, and is the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from pipo.cli import (
    ablate,
    bench,
    daemon,
    data,
    doctor,
    draft_vocab,
    engines,
    evaluate,
    generate,
    jobs,
    lab,
    models,
    report,
    serve,
    tasks,
    train,
)
from pipo.errors import PipoError

app = typer.Typer(
    name="pipo",
    help="Pair-in, pair-out decoding: train, compare and measure. Jobs run in a daemon that starts by itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich costs more CPU than all the rest of `pipo --help`
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"pipo {version('pipo')}")
        except PackageNotFoundError:
            typer.echo("pipo (not installed, run from the source tree)")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


for group in (daemon, doctor, engines, generate, serve, evaluate, tasks, draft_vocab):
    group.register(app)
groups = {"models": models, "data": data, "bench": bench, "ablate": ablate, "train": train, "lab": lab, "jobs": jobs}
for name, group in groups.items():
    app.add_typer(group.app, name=name)
report.register(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``pipo``: runs the app and exits.

    A ``PipoError`` becomes its message on stderr and its exit code (see ``pipo.errors``); usage errors are Typer's
    (exit code 2); Ctrl-C is 130.
    """
    try:
        app(args=list(argv) if argv is not None else None, prog_name="pipo")
    except PipoError as e:
        print(f"pipo: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
