"""``pipo up``, ``pipo down``, ``pipo status``, ``pipo unload``: the daemon itself and what it keeps in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipo.cli import options as o

if TYPE_CHECKING:
    from pipod.messages import Status


def register(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("unload")(unload)


def up() -> None:
    """Start the daemon (jobs do so by themselves)."""
    from pipo.cli.output import note
    from pipod.client import connect

    with connect(start=True) as client:
        note("the daemon is up" if client.started else "the daemon was running already")


def down() -> None:
    """Stop the daemon; unfinished jobs go on later."""
    from pipo.cli.output import note
    from pipo.errors import DaemonError
    from pipod.client import connect

    try:
        client = connect(start=False)
    except DaemonError as e:
        if not str(e).startswith("no daemon runs"):
            raise
        note("no daemon runs")
        return
    with client:
        unfinished = client.shutdown()
    note("the daemon is down")
    if unfinished:
        plural = "s" if len(unfinished) > 1 else ""
        numbers = ", ".join(map(str, unfinished))
        note(f"unfinished job{plural} {numbers}: the rest goes on at the next start (`pipo up`)")


def status(json: o.Json = False) -> None:
    """What the daemon does and holds; exit code 3: none."""
    from pipo.cli.output import print_json
    from pipo.errors import DaemonError
    from pipod.client import connect

    try:
        with connect(start=False) as client:
            state = client.status()
    except DaemonError as e:
        if not json:
            raise
        print_json({"running": False, "message": str(e)})
        raise typer.Exit(e.exit_code) from None
    if json:
        print_json({"running": True, "status": state})
    else:
        _print(state)


def unload(
    model: Annotated[
        str | None, typer.Argument(help="A lab name, a folder, or its last part. [default: all that is loaded]")
    ] = None,
    family: o.Family = None,
) -> None:
    """Free the memory of models and SGLang servers that are kept between jobs."""
    from pipo.cli.output import note
    from pipo.lab import resolve_model
    from pipod.client import connect

    lab = o.check_family(family)
    key = str(resolve_model(model, lab)) if model is not None and model.startswith("lab/") else model
    with connect(start=False) as client:
        keys = client.unload(key)
    note("\n".join(f"unloaded {k}" for k in keys) or "nothing was loaded")


def _print(state: Status) -> None:
    from pipo.cli.output import cell, duration, table_lines

    print(f"running: pid {state.pid}, version {state.version}, up {duration(state.uptime_s)}, home {state.home}")
    print("jobs: " + (", ".join(f"{count} {name}" for name, count in sorted(state.counts.items())) or "none yet"))
    worker = f"{state.worker_state}, pid {state.worker_pid}" if state.worker_pid else state.worker_state
    print(f"worker: {worker}")
    if state.current:
        at = state.progress or {}
        where = f" {cell(at.get('done'))}/{cell(at.get('total'))} {at.get('note') or ''}" if at else ""
        print(f"now: job {state.current.id}, {state.current.kind}{where.rstrip()}")
    if state.residents:
        rows = [[r.key, f"{r.bytes / 1e6:.1f}" if r.bytes is not None else "-"] for r in state.residents]
        print("\n".join(["", *table_lines(["in memory", "MB"], rows)]))
