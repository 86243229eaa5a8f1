"""Submitting a job and following it: progress on stderr, detaching with Ctrl-C, the job's end as result or error."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from pipo.cli.output import note, print_json
from pipo.cli.progress import make_view
from pipo.errors import ERRORS_BY_NAME, Cancelled, JobFailed

if TYPE_CHECKING:
    from pipod.client import Client
    from pipod.messages import JobEvent, JobInfo


def open_client() -> Client:
    """The daemon's client; a daemon is started where none runs, and that is said."""
    from pipod.client import connect

    client = connect(start=True)
    if client.started:
        note("started the daemon (`pipo down` stops it)")
    return client


def join_key(kind: str, spec: dict[str, Any]) -> str:
    """Same command, same key: a second submission joins the unfinished job instead of starting another."""
    import msgspec

    text = msgspec.json.encode([kind, spec], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:32]


def run_job(
    kind: str,
    spec: dict[str, Any],
    *,
    as_json: bool,
    detach: bool,
    show: Callable[[dict[str, Any]], None],
    on_event: Callable[[JobEvent], bool] | None = None,
) -> None:
    """Submit a job, follow it to its end and print its result.

    ``show`` prints the result on stdout for people; ``on_event`` may take an event (True: it is dealt with).

    Raises:
        PipoError: what the job failed with, by its class; DaemonError where the daemon went away.
    """
    with open_client() as client:
        info = client.submit(kind, spec, join_key=join_key(kind, spec))
        attached = time.time() if info.joined else 0.0
        if info.joined:
            note(f"job {info.id} with these very settings is {info.state} already: joined it")
        else:
            note(f"job {info.id}: {kind}")
            _mention_earlier(client, info)
        if detach:
            print_json(job_row(info)) if as_json else print(info.id)
            return
        ended = follow(client, info, since=attached, on_event=on_event)
    print_end(ended, as_json=as_json, show=show)


def print_end(info: JobInfo, *, as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """Print a finished job's result: JSON with the job around it, or the table and where the records lie."""
    if as_json:
        print_json({**job_row(info), "result": info.result})
        return
    show(info.result or {})
    note(f"job {info.id} took {_took(info)}; its records are in {info.folder}")


def follow(
    client: Client,
    info: JobInfo,
    *,
    since: float = 0.0,
    on_event: Callable[[JobEvent], bool] | None = None,
) -> JobInfo:
    """Show a job's progress until it ends; log lines older than ``since`` (epoch s) are left out.

    Ctrl-C detaches: the job goes on, and how to come back is said (exit code 130).

    Raises:
        PipoError: the job failed (the class it failed with) or was cancelled; the daemon went away.
    """
    view = make_view(since)
    try:
        for event in client.events(info.id, after=0, follow=True):
            if on_event is None or not on_event(event):
                view.show(event.kind, event.time, event.data)
        ended = client.job(info.id)
    except KeyboardInterrupt:
        view.close()
        note(
            f"detached; job {info.id} goes on. `pipo jobs wait {info.id}` comes back to it, "
            f"`pipo jobs cancel {info.id}` stops it"
        )
        raise typer.Exit(130) from None
    finally:
        view.close()
    return checked(ended)


def checked(info: JobInfo) -> JobInfo:
    """The job if it is done; otherwise its end as an exception of the class that it failed with."""
    if info.state == "done":
        return info
    way_out = f"`pipo jobs logs {info.id}` shows what it said, `pipo jobs resume {info.id}` goes on from what it has"
    if info.state == "cancelled":
        raise Cancelled(f"job {info.id} was cancelled; {way_out}")
    if info.error is None:
        raise JobFailed(f"job {info.id} ended as {info.state}; {way_out}")
    error = ERRORS_BY_NAME.get(info.error.type, JobFailed)
    if error.exit_code == 2:  # the input was wrong: the message says what to change, going on would not help
        raise error(f"{info.error.message} (job {info.id})")
    raise error(f"job {info.id} failed: {info.error.message}\n{way_out}")


def job_row(info: JobInfo) -> dict[str, Any]:
    """What ``--json`` says about a job, without its result."""
    error = {"type": info.error.type, "message": info.error.message} if info.error else None
    return {
        "job": info.id,
        "kind": info.kind,
        "state": info.state,
        "folder": info.folder,
        "spec": info.spec,
        "created": info.created,
        "started": info.started,
        "finished": info.finished,
        "error": error,
    }


def _took(info: JobInfo) -> str:
    from pipo.cli.output import duration

    return duration(info.finished - info.started if info.finished and info.started else None)


def _mention_earlier(client: Client, info: JobInfo) -> None:
    """The last job of these settings ended early and can be resumed: say so instead of guessing."""
    others = [o for o in client.jobs() if (o.kind, o.spec) == (info.kind, info.spec) and o.id != info.id]
    if others and others[-1].state in ("failed", "cancelled"):
        last = others[-1]
        note(
            f"job {last.id} with these settings {'failed' if last.state == 'failed' else 'was cancelled'} earlier; "
            f"this is a new one (`pipo jobs resume {last.id}` would go on from its finished items)"
        )
