"""``pipo engines``: what decodes, whether it can here, and where PIPO enters SGLang. Loads neither of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipo.cli import options as o


def register(app: typer.Typer) -> None:
    app.command("engines")(run)


def run(
    hooks: Annotated[bool, typer.Option("--hooks", help="List the places where PIPO enters SGLang instead.")] = False,
    json: o.Json = False,
) -> None:
    """List engines: version, whether it runs here, which methods it can do."""
    from pipo.cli.output import note, print_json, print_table

    rows, places = _engines(), _hooks()
    if json:
        print_json(places if hooks else rows)
        return
    if hooks:
        for place in places:
            print(f"{place['target']}\n    why: {place['why']}\n    without it: {place['without']}")
        note("each is verified in each of SGLang's processes when it starts; one that did not take ends it, by name")
        return
    table = [[r["engine"], r["version"], r["runs"], ", ".join(r["methods"])] for r in rows]
    print_table(["engine", "version", "runs here", "methods"], table, left=["version", "runs here", "methods"])
    for row in rows:
        if row["why"]:
            note(f"{row['engine']}: {row['why']}")
        for method, why in row["refused"].items():
            note(f"{row['engine']} does no {method}: {why}")


def _engines() -> list[dict[str, Any]]:
    from pipo.engine.types import METHODS
    from pipo.sglang.launch import WAYS, ServerSettings, unusable
    from pipo.sglang.machine import installed

    torch = installed("torch")
    why, rig = unusable(ServerSettings()), unusable(ServerSettings(cpu_rig=True))
    refused = {name: way.refused for name, way in WAYS.items() if way.refused is not None}
    return [
        {
            "engine": "torch",
            "version": torch,
            "runs": "yes" if torch else "no",
            "why": None if torch else "torch is not installed",
            "methods": list(METHODS),
            "refused": {},
        },
        {
            "engine": "sglang",
            "version": installed("sglang"),
            "runs": "yes" if why is None else "with --cpu-rig" if rig is None else "no",
            "why": why,
            "methods": [name for name in METHODS if name not in refused],
            "refused": refused,
        },
    ]


def _hooks() -> list[dict[str, Any]]:
    from pipo.sglang.table import HOOKS, RIG_HOOKS

    return [
        {"target": h.target, "why": h.why, "without": h.without, "kind": h.kind, "ours": h.ours, "rig_only": rig_only}
        for table, rig_only in ((HOOKS, False), (RIG_HOOKS, True))
        for h in table
    ]
