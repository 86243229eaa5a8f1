"""``pipo report diff A B``: what changed from one run to another; its exit status is a gate. Works in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o

SHOWN = 24  # most rows of single tasks in a terminal


def run(
    old: Annotated[str, typer.Argument(metavar="A", help="The run to compare with: a job or a run folder.")],
    new: Annotated[str, typer.Argument(metavar="B", help="The run in question, of the same kind.")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="avg, pass@K, slots, tokens; times: ttft, first_pair, tpot, tpot16; load: e2e "
                     "and ok, too; repeat. [default: avg and pass@k; ttft and tpot]"),
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Compare this task only; repeat.")] = None,
    fail_if_worse: Annotated[
        float, typer.Option("--fail-if-worse", metavar="POINTS", min=0.0,
                            help="Margin that is forgiven: points of quality, percent of slots, tokens and times.")
    ] = 0.0,
    alpha: Annotated[float, typer.Option("--alpha", help="Level of intervals and tests.")] = 0.05,
    non_inferiority: Annotated[
        bool, typer.Option("--non-inferiority", help="Fail unless B is shown to be within the margin everywhere.")
    ] = False,
    map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OLD=NEW", help="Compare A's variant OLD with B's variant NEW; repeat."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the diff as markdown, too.")] = None,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Compare two runs of the same kind: compare, eval, latency, load or ablate threshold.

    Exit status: 0 no settled worsening (or within the margin), 1 a settled worsening, 2 bad input.
    """
    from pipo.cli.output import note, print_json
    from pipo.cli.report import folders_of
    from reports import diff

    names = _names(map)
    a, b = folders_of([old, new])
    found = diff.diff(
        a, b, metrics=metric or [], tasks=task or [], margin=fail_if_worse, alpha=alpha,
        non_inferiority=non_inferiority, names=names,
    )  # fmt: skip
    if out is not None:
        _write(out, diff.page(found))
    if json:
        print_json(found)
    else:
        _show(found)
        if out is not None:
            note(f"written to {out}")
    if found["failed"]:
        raise typer.Exit(1)


def _names(pairs: list[str] | None) -> dict[str, str]:
    from pipo.errors import BadInput

    names: dict[str, str] = {}
    for pair in pairs or ():
        was, equals, name = pair.partition("=")
        if not (was and equals and name):
            raise BadInput(f"--map {pair!r} must read OLD=NEW, the names of a variant in A and in B")
        if was in names:
            raise BadInput(f"--map names {was!r} of the first run twice; name each once")
        names[was] = name
    return names


def _write(path: Path, text: str) -> None:
    import os

    from pipo.errors import BadInput

    draft = path.with_name(path.name + ".tmp")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as e:
        raise BadInput(f"cannot write {path} ({e.strerror or e}); choose another file with --out") from e


def _show(found: dict[str, Any]) -> None:
    """Differences, verdict and notes for a terminal."""
    from pipo.cli.output import note, print_table
    from reports import diff

    rows = found["rows"]
    deciding = [r for r in rows if r["decides"]]
    single = [r for r in rows if not r["decides"]]
    _table(found, deciding)
    if 0 < len(single) <= SHOWN:
        print("\ntask by task\n")
        _table(found, single)
    if found["counts"]:
        print("\ncut, failed and kept, A → B where they differ\n")
        print_table(diff.COUNTS, diff.lost(found), left=diff.COUNTS[:2])
    if found["changed"]:
        print("\nwhat else differs\n")
        print_table(["", "A", "B"], [[c["what"], c["a"], c["b"]] for c in found["changed"]], left=["A", "B"])
    if len(single) > SHOWN:
        note(f"{len(single)} rows task by task: --task NAME, --out FILE or --json shows them")
    print()
    for text in (*found["notes"], diff.verdict(found).replace("**", "")):
        print(text)


def _table(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from pipo.cli.output import print_table
    from reports import diff

    columns, lines = diff.table(found, rows)
    print_table(columns, lines, left=[*columns[: diff.left(found)], "how", "so B is"])
