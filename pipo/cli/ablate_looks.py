"""``pipo ablate geometry`` and ``lossiness``: a look into models, at their compressors and their distributions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipo.cli import options as o
from pipo.cli import tasks as t

Models = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="PIPO models: lab names or folders. [default: the lab's two]"),
]
Samples = Annotated[int | None, typer.Option("--k", min=1, help="Samples per item. [default: the study's]")]
Items = Annotated[int | None, typer.Option("--limit", min=1, help="Items per task. [default: the study's]")]


def register(app: typer.Typer) -> None:
    app.command()(geometry)
    app.command()(lossiness)


def geometry(
    models: Models = None,
    start: Annotated[
        list[str] | None,
        typer.Option("--start", help="An untrained compressor beside them; repeat. [default: sum, identity, random]"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Of the gate that writes the pairs. [default: 0.95]")
    ] = None,
    pairs: Annotated[int | None, typer.Option("--pairs", min=1, help="About how many pairs. [default: 1400]")] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="JOB|FOLDER", help="Show the PADs of this finished run as well; repeat."),
    ] = None,
    task: o.Tasks = None,
    k: Samples = None,
    limit: Items = None,
    slots: o.Slots = None,
    thinking: t.Thinking = None,
    data: t.Data = None,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    presence: o.Presence = None,
    frequency: o.Frequency = None,
    seed: o.Seed = 0,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """What the compressor does to real pairs (figures 8 to 12), and where PADs fall.

    The first model writes the pairs; all are measured on the same ones.
    """
    from pipo.cli.follow import run_job
    from pipo.cli.show_looks import geometry as show

    if threshold is not None:
        o.check_method("pipo", threshold=threshold)
    for how in start or ():
        o.one_of("--start", how, ("sum", "identity", "random"))
    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        **t.selection(task, None, None, thinking, data),
        models=[o.check_model(m, lab) for m in models or ()],
        starts=start,
        threshold=threshold,
        pairs=pairs,
        runs=t.run_folders(run) if run else None,
        k=k,
        limit=limit,
        slots=slots,
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence, frequency) or None,
        seed=seed,
    )
    run_job("ablate-geometry", spec, as_json=json, detach=detach, show=show)


def lossiness(
    models: Models = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The regular model that writes the texts. [default: lab/base]")
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option("--other", help="Another regular model beside it; repeat. [default: lab/control]"),
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", help="Repeat. [default: 0, 0.5, 0.95, 1]")
    ] = None,
    match: Annotated[
        float | None,
        typer.Option("--match", help="The coin keeps as many drafts as this threshold. [default: 0.95]"),
    ] = None,
    depth: o.Depth = None,
    places: Annotated[
        int | None, typer.Option("--places", min=2, help="Tokens of a text that are read. [default: all]")
    ] = None,
    task: o.Tasks = None,
    k: Samples = None,
    limit: Items = None,
    slots: o.Slots = None,
    thinking: t.Thinking = None,
    data: t.Data = None,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    presence: o.Presence = None,
    frequency: o.Frequency = None,
    seed: o.Seed = 0,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """How far each method's next-token distributions are from regular decoding's, on the same texts."""
    from pipo.cli.follow import run_job
    from pipo.cli.show_looks import lossiness as show

    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        **t.selection(task, None, None, thinking, data),
        depth=depth,
        places=places,
        k=k,
        limit=limit,
        slots=slots,
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence, frequency) or None,
        seed=seed,
    )
    spec |= _models(models, base, other, lab) | _thresholds(threshold, match)  # where none and no model mean something
    run_job("ablate-lossiness", spec, as_json=json, detach=detach, show=show)


def _models(models: list[str] | None, base: str | None, other: list[str] | None, lab: str | None) -> dict[str, Any]:
    """Models by part, checked. A base of one's own has no lab model beside it, unless one is named."""
    found = o.without_none(
        base=None if base is None else o.check_model(base, lab), models=[o.check_model(m, lab) for m in models or ()]
    )
    if other or base is not None:
        found["others"] = [o.check_model(m, lab) for m in other or ()]
    return found


def _thresholds(threshold: list[float] | None, match: float | None) -> dict[str, Any]:
    """Thresholds in order, with the one that the coin matches; without it the largest below 1 that decides."""
    if threshold is None:
        return o.without_none(match=match)
    for value in threshold:
        o.check_method("pipo", threshold=value)
    found = sorted({*threshold, *([] if match is None else [match])})
    between = [v for v in found if 0 < v < 1]
    return {"thresholds": found, "match": match if match is not None else max(between, default=None)}
