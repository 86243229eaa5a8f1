"""``pipo jobs``: what the daemon works on and has worked on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo.cli import options as o

if TYPE_CHECKING:
    from pipod.messages import JobEvent, JobInfo

app = typer.Typer(help="Jobs of the daemon: list, follow, cancel, resume.", invoke_without_command=True)
JobId = Annotated[int, typer.Argument(help="The job's number, see `pipo jobs list`.")]


@app.callback()
def _group(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Only the latest so many.")] = 20,
    json: o.Json = False,
) -> None:
    """The latest jobs, newest first."""
    from pipo.cli.follow import job_row, open_client
    from pipo.cli.output import clock, print_json, print_table

    with open_client() as client:
        infos = sorted(client.jobs(limit), key=lambda info: info.id, reverse=True)
    if json:
        print_json([job_row(info) for info in infos])
    elif not infos:
        print("no jobs yet; `pipo bench compare` makes one")
    else:
        rows = [[i.id, i.kind, i.state, clock(i.created), _took(i), _about(i)] for i in infos]
        print_table(["job", "kind", "state", "created", "took", "about"], rows, left=["kind", "state", "about"])


def _took(info: JobInfo) -> str:
    from pipo.cli.output import duration

    return duration((info.finished or time.time()) - info.started) if info.started else "-"


def _about(info: JobInfo) -> str:
    if info.error:
        first = info.error.message.splitlines()[0] if info.error.message else info.error.type
        return first if len(first) <= 60 else first[:59] + "…"
    given = {k: v for k, v in info.spec.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return " ".join(f"{k}={str(v)[:24]}" for k, v in given.items())[:60]


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    json: o.Json = False,
) -> None:
    """What a job said, with times; with --json one event a line."""
    from pipo.cli.follow import open_client
    from pipo.cli.output import note

    try:
        with open_client() as client:
            client.job(job)
            for event in client.events(job, after=0, follow=follow):
                print(_as_json(event) if json else _line(event), flush=follow)
    except KeyboardInterrupt:
        note(f"stopped reading; job {job} is untouched")
        raise typer.Exit(130) from None


def _as_json(event: JobEvent) -> str:
    import msgspec

    return msgspec.json.encode({"seq": event.seq, "time": event.time, "kind": event.kind, "data": event.data}).decode()


def _line(event: JobEvent) -> str:
    from pipo.cli.output import cell, clock

    data: dict[str, Any] = event.data
    if event.kind == "progress":
        rest = {k: v for k, v in data.items() if k not in ("done", "total", "note")}
        words = [str(data.get("note") or ""), *(f"{k} {cell(v)}" for k, v in rest.items())]
        text = f"{data.get('done')}/{data.get('total')} " + " · ".join(w for w in words if w)
    elif event.kind in ("log", "token"):
        text = str(data.get("text", ""))
    else:
        text = ", ".join(f"{k} {cell(v)}" for k, v in data.items())
    return f"{clock(event.time)}  {event.kind:<8}  {text}".rstrip()


@app.command()
def wait(job: JobId, json: o.Json = False) -> None:
    """Follow a job to its end and print its result (also long after it ended)."""
    from pipo.cli.follow import follow, open_client, print_end
    from pipo.cli.show import for_kind

    with open_client() as client:
        ended = follow(client, client.job(job), since=time.time())
    print_end(ended, as_json=json, show=for_kind(ended.kind))


@app.command()
def cancel(job: JobId) -> None:
    """Stop a job; what it has finished is kept."""
    from pipo.cli.follow import open_client
    from pipo.cli.output import note

    with open_client() as client:
        info = client.cancel(job)
    if info.state in ("done", "failed"):
        note(f"job {job} had ended already ({info.state})")
        return
    note(f"job {job} is cancelled; `pipo jobs resume {job}` goes on from its finished items")


@app.command()
def resume(job: JobId, json: o.Json = False, detach: o.Detach = False) -> None:
    """Let a failed or cancelled job go on from its finished items."""
    from pipo.cli.follow import follow, job_row, open_client, print_end
    from pipo.cli.output import note, print_json
    from pipo.cli.show import for_kind

    with open_client() as client:
        info = client.resume(job)
        note(f"job {job} goes on from what it has")
        if detach:
            print_json(job_row(info)) if json else print(job)
            return
        ended = follow(client, info, since=time.time())
    print_end(ended, as_json=json, show=for_kind(ended.kind))
