"""``pipo lab``: the embedded family of small models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipo.cli import options as o

app = typer.Typer(help="The embedded lab: small tasks and a family of small models.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass  # keeps `build` a subcommand while it is the only one


@app.command()
def build(
    quick: Annotated[bool, typer.Option("--quick", help="One task, under 20 minutes on two cores.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that train side by side.")] = 2,
    seed: o.Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the family goes. [default: PIPO_HOME/models/lab, or lab-quick]")
    ] = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Train the lab's models anew: teacher, base, control, PIPO-SFT, PIPO-OPD.

    Goes on where it stopped. Other commands take the result with --family.
    """
    from pipo.cli.follow import run_job
    from pipo.cli.show import plain

    spec = o.without_none(quick=quick, workers=workers, seed=seed or None, out=o.check_out(out))
    run_job("lab-build", spec, as_json=json, detach=detach, show=plain)
