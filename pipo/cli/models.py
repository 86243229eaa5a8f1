"""``pipo models``: what can be named where a model is asked for, and fetching more. Reads headers, loads nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipo.cli import options as o
from pipo.cli import pull as hub

HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit for its header


class ListByDefault(TyperGroup):
    """``pipo models`` and ``pipo models FOLDER`` list; other commands are named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=ListByDefault, help="List models (the default), or fetch one.")


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(metavar="ID", help="OWNER/NAME on the hub, or smollm2.")],
    revision: hub.Revision = None,
    include: hub.Include = None,
    json: o.Json = False,
) -> None:
    """Fetch a model, safetensors alone; a broken-off download goes on."""
    hub.pull_model(name, revision, include, json)


@app.command("list")
def run(
    folder: Annotated[list[Path] | None, typer.Argument(help="More model folders, or folders of such.")] = None,
    json: o.Json = False,
) -> None:
    """List models: kind, parameters, in memory or not."""
    from pipo.cli.output import note, print_json, print_table

    rows = [describe(name, path) for name, path in _known(folder or [])]
    resident = _resident()
    for row in rows:
        row["resident"] = row["folder"] in resident or row["name"] in resident
    if json:
        print_json(rows)
        return
    if not rows:
        note("no models here; `pipo lab build` makes the lab's family")
        return
    table = [
        [r["name"], r["kind"], _millions(r["parameters"]), r["layers"], r["hidden"], r["resident"], r["problem"] or ""]
        for r in rows
    ]
    print_table(["model", "kind", "parameters", "layers", "hidden", "resident", ""], table, left=["kind", ""])


def _known(extra: list[Path]) -> list[tuple[str, Path]]:
    from pipo.cli.output import note
    from pipo.config import paths
    from pipo.errors import BadModel
    from pipo.lab import lab_manifest, resolve_model

    try:
        names = [f"lab/{name}" for name in lab_manifest().models]
    except BadModel as e:
        note(str(e))
        names = []
    found = [(name, resolve_model(name)) for name in names]
    built = paths().models
    found += [(str(path), path) for path in model_folders(built)] if built.is_dir() else []
    for folder in extra:
        inside = model_folders(folder.expanduser().absolute())
        if not inside:
            raise BadModel(f"{folder} holds no model; a model folder has config.json and model.safetensors")
        found += [(str(path), path) for path in inside]
    return found


def model_folders(folder: Path) -> list[Path]:
    """The folder itself or those up to two levels below that hold a config.json, sorted; no stages of a build."""
    found = {path.parent for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}config.json")}
    return sorted(path for path in found if path.parent.name != "stages")


def describe(name: str, folder: Path) -> dict[str, Any]:
    """Kind, sizes and parameter count of a model folder, from config.json and the safetensors headers.

    ``problem`` names what keeps it from being used; a broken folder is a row, not an error.
    """
    import json

    row: dict[str, Any] = {"name": name, "folder": str(folder), "kind": "?", "problem": None}
    row |= {"parameters": None, "layers": None, "hidden": None, "model_type": None}
    try:
        config = json.loads((folder / "config.json").read_text())
        text = config.get("text_config", config)
        row["kind"] = "pipo" if config.get("compressor_type", text.get("compressor_type")) else "regular"
        row["layers"], row["hidden"] = text.get("num_hidden_layers"), text.get("hidden_size")
        row["model_type"] = text.get("model_type")
        row["parameters"] = sum(count_parameters(file) for file in sorted(folder.glob("model*.safetensors"))) or None
        if row["parameters"] is None:
            row["problem"] = "no safetensors weights"
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as e:
        row["problem"] = f"cannot be read ({e})"
    return row


def count_parameters(file: Path) -> int:
    """Parameters in a safetensors file, from its header alone; a vision tower is left out. Raises ValueError."""
    import json

    with open(file, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        if size > HEADER_LIMIT:
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(f.read(size))
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and not name.startswith(("model.visual.", "visual."))
    )


def _millions(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def _resident() -> set[str]:
    """Names or folders of the models that the daemon holds; none where no daemon runs."""
    from pipo.errors import DaemonError
    from pipod.client import connect

    try:
        with connect(start=False) as client:
            return {name for r in client.status().residents for name in (r.key, r.key.rpartition("#")[0])}
    except DaemonError:
        return set()
