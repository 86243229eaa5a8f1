"""``pipo train``: SFT and OPD of a PIPO model."""

from __future__ import annotations

import typer

app = typer.Typer(help="Train a PIPO model: SFT on roll-outs, OPD against a teacher.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass
