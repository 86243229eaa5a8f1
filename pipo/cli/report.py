"""``pipo report``: tables, figures and pages of finished runs, drawn in this process; ``report diff`` compares two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipo.cli import options as o
from pipo.cli import report_diff

if TYPE_CHECKING:
    from pipod.messages import JobInfo


WRITE = "write"  # the command that is meant where none is named


class RunsFirst(TyperGroup):
    """A group in which a word that is no command is a run: ``pipo report 3 4`` needs no word between."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands or args[0] == WRITE:
            args = [WRITE, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == WRITE else name, command, rest  # usage lines say what people type


app = typer.Typer(cls=RunsFirst, rich_markup_mode=None)
app.command("diff")(report_diff.run)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="report", help="Write a report on finished runs; diff: what changed between two.")


@app.command(WRITE, epilog="pipo report diff A B: what changed from one run to another, with an exit status for gates.")
def run(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB|FOLDER]...", help="Jobs or run folders. [default: the latest of each kind]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("report"),
    json: o.Json = False,
) -> None:
    """Write report.md, report.html (the same in one file) and report.xlsx, with figures (PNG, SVG), tables (CSV)."""
    from pipo.cli.output import note, print_json

    o.check_out(out)
    folders = folders_of(runs) if runs else _latest()
    import reports
    from pipo.lab import resolve_model

    page = reports.build(folders, out, resolve_model)
    if json:
        files = sorted(str(path) for path in page.parent.iterdir() if path.is_file() and path != page)
        print_json({"report": str(page), "runs": [str(f) for f in folders], "files": files})
        return
    for folder in folders:
        note(f"from {folder}")
    print(page)


def folders_of(names: list[str]) -> list[Path]:
    """Run folders by their paths or their jobs' numbers. Raises BadInput for what is neither, or not finished."""
    from pipo.cli.follow import open_client
    from pipo.errors import BadInput

    folders: list[Path] = []
    for name in names:
        if Path(name).is_dir():
            folders.append(Path(name))
        elif name.isdigit():
            with open_client() as client:
                folders.append(_folder_of(client.job(int(name))))
        else:
            raise BadInput(f"{name!r} is neither a run folder nor a job number; see `pipo jobs list`")
    return folders


def _folder_of(info: JobInfo) -> Path:
    from pipo.errors import BadInput
    from reports.kinds import ALIASES, KINDS

    if info.kind.removesuffix("-swift") not in (*KINDS, *ALIASES, "merge"):
        raise BadInput(f"job {info.id} is of kind {info.kind}; a report needs {', '.join([*KINDS, *ALIASES])} or merge")
    if info.state != "done":
        raise BadInput(f"job {info.id} is {info.state}; `pipo jobs wait {info.id}` shows how far it is")
    return Path(info.folder)


def _latest() -> list[Path]:
    """Folders of the latest finished job of each kind, of each study where a kind has many."""
    from pipo.cli.follow import open_client
    from pipo.errors import BadInput
    from reports.kinds import KINDS

    with open_client() as client:
        done = [info for info in client.jobs() if info.state == "done" and Path(info.folder).is_dir()]
    found = []
    for kind in KINDS:
        latest: dict[str, JobInfo] = {}
        for info in sorted(done, key=lambda info: info.finished or 0):
            if info.kind.removesuffix("-swift") == kind:
                latest[_study(info)] = info
        found += [Path(info.folder) for info in latest.values()]
    if not found:
        raise BadInput("no finished comparison, latency run or study yet; run `pipo bench compare`, or name a job")
    return found


def _study(info: JobInfo) -> str:
    """The name of the study that a job ran; empty for kinds that are one."""
    study = info.spec.get("study") or ""
    return str(study.get("name") or study) if isinstance(study, dict) else str(study)
