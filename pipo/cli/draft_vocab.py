"""``pipo draft-vocab``: give a model a smaller vocabulary to draft from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o


def register(app: typer.Typer) -> None:
    app.command("draft-vocab")(run)


def run(
    model: Annotated[str, typer.Argument(help="A lab name such as lab/pipo-opd, or a model folder.")],
    size: Annotated[int, typer.Option("--size", min=2, help="How many tokens drafts are chosen from.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new model; the weights are linked, not copied.")],
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus", help="A .txt or .jsonl file, or a run's folder; repeat. [default: the lab's training texts]"
        ),
    ] = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Make a model that drafts from the SIZE most frequent tokens of a corpus: less to read for each draft."""
    from pipo.cli.follow import run_job
    from pipo.errors import BadInput

    lab = o.check_family(family)
    paths = [p.expanduser().absolute() for p in corpus or ()]
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path} does not exist; --corpus takes a .txt or .jsonl file, or a run's folder")
    target = out.expanduser().absolute()
    o.check_out(target.parent)
    spec = o.without_none(
        family=lab, model=o.check_model(model, lab), size=size, out=str(target), corpus=[str(p) for p in paths]
    )
    run_job("draft-vocab", spec, as_json=json, detach=detach, show=show)


def show(result: dict[str, Any]) -> None:
    """One sentence on what was made."""
    print(
        f"{result['folder']}: drafts from {result['size']} of {result['vocabulary']} tokens, which are "
        f"{100 * result['coverage']:.2f} % of the corpus' {result['tokens']}"
    )
