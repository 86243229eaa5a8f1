"""``pipo tasks``: what can be asked, and whether it is here; and the flags that choose items, for commands that ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo.cli import options as o
from pipo.cli.rollouts import Thinking, check_shard

if TYPE_CHECKING:
    from pipo.data.benchmarks import Benchmark, Definition

__all__ = ["Data", "Shard", "Slice", "Thinking", "register", "run_folders", "selection"]

Slice = Annotated[
    str | None,
    typer.Option("--slice", metavar="A:B", help="Items A to B-1 of each task, counted from 0; before LIMIT."),
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Every N-th item from the I-th on; seeds stay. See `bench merge`."),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of benchmarks. [default: PIPO_DATA, then PIPO_HOME/data]")
]


def selection(
    task: list[str] | None, slice: str | None, shard: str | None, thinking: bool | None, data: Path | None
) -> dict[str, Any]:
    """The part of a job's settings that says what is asked, checked; the worker's own PIPO_DATA does not matter.

    Raises:
        BadInput: an unknown task, a benchmark that is not here, a slice or shard of another form.
    """
    from pipo.config import paths
    from pipo.data import benchmarks

    folder = None if data is None else data.expanduser().absolute()
    tasks = o.check_tasks(task, folder)
    benchmarks.parse_slice(slice)
    at = folder or paths().data
    asked = any(name in benchmarks.NAMES or name.endswith(".toml") for name in tasks or ())
    return o.without_none(
        tasks=tasks, slice=slice, shard=check_shard(shard), thinking=thinking, data=str(at) if at and asked else None
    )


def run_folders(names: list[str]) -> list[str]:
    """Absolute run folders by job number or path. Raises BadInput for what is neither."""
    from pipo.cli.follow import open_client
    from pipo.errors import BadInput

    found = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            found.append(str(path.absolute()))
        elif name.isdecimal():
            with open_client() as client:
                found.append(client.job(int(name)).folder)
        else:
            raise BadInput(f"{name!r} is neither a run folder nor a job number; see `pipo jobs list`")
    return found


def register(app: typer.Typer) -> None:
    app.command("tasks")(run)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|FILE.toml]...", help="Only these. [default: all]")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read every item of those that are here.")] = False,
    show: Annotated[int, typer.Option("--show", metavar="N", min=0, help="Print the first N items as asked.")] = 0,
    data: Data = None,
    json: o.Json = False,
) -> None:
    """List tasks: items, how they are scored, whether they are here, where they come from."""
    from pipo.cli.output import note, print_json, print_table

    folder = None if data is None else data.expanduser().absolute()
    rows = [_row(name, folder, check or show > 0, show) for name in names or _known()]
    if json:
        print_json(rows)
    else:
        columns = ["task", "items", "scorer", "here", "source"]
        print_table(columns, [[r["task"], r["items"], r["scorer"], r["here"], r["source"]] for r in rows],
                    left=["scorer", "here", "source"])  # fmt: skip
        for row in rows:
            for asked in row.get("first", ()):
                print(f"\n{row['task']}/{asked['id']}, right answer {asked['gold'] or '(tests)'}\n{asked['prompt']}")
    for row in rows:
        for text in row.get("notes", ()):
            note(text)
        if row.get("error"):
            note(f"pipo: {row['error']}")
    if any(r.get("error") for r in rows):
        raise typer.Exit(1)


def _known() -> list[str]:
    from pipo.data import benchmarks
    from pipo.lab import TASKS

    return [*TASKS, *benchmarks.NAMES]


def _row(name: str, data: Path | None, read: bool, show: int) -> dict[str, Any]:
    """One task as a plain dict; ``items`` as read, else as published."""
    from pipo.data import benchmarks
    from pipo.errors import BadInput
    from pipo.lab import TASKS

    if name in TASKS:
        return {"task": name, "items": None, "scorer": "exact", "here": True, "source": "the lab, made by rule"}
    file = Path(name).expanduser()
    if name not in benchmarks.NAMES and file.suffix != ".toml":
        raise BadInput(f"unknown task {name!r}; tasks are {', '.join(_known())}, or the path of a .toml file")
    of = benchmarks.shipped(name) if name in benchmarks.NAMES else benchmarks.read_definition(file)
    files = benchmarks.look(of, data).files if of.file is None else [file.parent / of.file]
    files = [f for f in files if f.is_file()]
    row = {
        "task": of.name, "items": of.items, "paper_items": of.paper_items, "scorer": of.scorer, "here": bool(files),
        "source": of.source, "licence": of.licence, "hub": of.hub, "files": [str(f) for f in files], "about": of.about,
        "schema": of.schema, "prompt": of.prompt, "shuffle": of.shuffle, "budgets": of.budgets,
    }  # fmt: skip
    return {**row, **_read(of, files, show)} if read and files else row


def _read(of: Definition, files: list[Path], show: int) -> dict[str, Any]:
    """What reading a benchmark says; an error becomes a part of the row, so that the others are listed too."""
    from pipo.data import benchmarks
    from pipo.errors import PipoError

    try:
        found = benchmarks.load(of, files=files)
    except PipoError as e:
        return {"error": str(e)}
    read = {"items": len(found.items), "fingerprint": found.fingerprint, "notes": found.notes}
    return {**read, "first": _first(found, show)} if show else read


def _first(found: Benchmark, count: int) -> list[dict[str, str]]:
    return [
        {"id": a.entry.id, "gold": a.entry.gold, "prompt": a.messages[0]["content"] if a.messages else a.plain}
        for a in found.items[:count]
    ]
