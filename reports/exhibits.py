"""The paper's tables and figures made of our runs, with the paper's values beside ours.

An exhibit has the paper's number as its name, so its files are ``table1.csv``, ``figure2.png`` and so on. Its CSV holds
the paper's values and ours as rows of one form, told apart by ``source``. Figures 8 to 12 are made where the study of
the compressor is shown; what no run here can give is listed with the command that makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from reports.kinds import COMPARE, GEOMETRY, LATENCY, THRESHOLD, TRAINING
from reports.load import LoadedRun
from reports.paper import paper
from reports.style import Look
from reports.text import image, markdown

Row = Mapping[str, Any]
Draw = Callable[[Mapping[str, Look]], Any]
TITLE = "## The paper's tables and figures"
PAPER_RUN = (
    "pipo bench compare --task aime2025 --task gpqa-diamond --task livecodebench --task longbench-v2-short "
    "--slots 32768 --variant NAME=MODEL:METHOD ..."
)


class Exhibit(msgspec.Struct, frozen=True):
    """One table or figure of the paper with ours. ``rows``: of its CSV. ``table``: markdown. ``note``: what compares.

    ``lacking``: what the run does not have of it, and the way to get it. ``draw``: its figure.
    """

    name: str
    title: str
    rows: list[dict[str, Any]]
    table: str
    note: str
    lacking: str = ""
    draw: Draw | None = None


def exhibits(runs: Sequence[LoadedRun]) -> list[Exhibit]:
    """All exhibits that these runs can give, by the first run of each kind that has what is needed."""
    from reports import exhibit_figures as figures
    from reports import exhibit_latency as latency
    from reports import exhibit_tables as tables

    makers: tuple[tuple[str, Callable[[LoadedRun], Exhibit | None]], ...] = (
        (COMPARE, tables.table1), (COMPARE, tables.table2), (TRAINING, tables.table3), (COMPARE, figures.figure2),
        (LATENCY, latency.figure4), (TRAINING, figures.figure5), (THRESHOLD, figures.figure6),
    )  # fmt: skip
    found = []
    for kind, make in makers:
        made = (make(run) for run in _best_first(runs) if run.kind == kind)
        found += [e for e in [next((e for e in made if e is not None), None)] if e is not None]
    return found


def _best_first(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """Runs with more of the paper's methods first: a comparison before an evaluation of one model."""
    known = paper()["overall"]
    return sorted(runs, key=lambda run: -sum(v.name in known for v in run.run.variants))


# What makes an exhibit: its numbers in the paper, in words, and the command.
SOURCES = (
    (("table1",), "table 1, quality by benchmark", "pipo bench compare"),
    (("table2",), "table 2, mean output slots", "pipo bench compare"),
    (("table3",), "table 3, compressor, start and data", "pipo ablate training"),
    (("figure2",), "figure 2, pass@k over the budget", "pipo bench compare"),
    (("figure4",), "figure 4, latency over input length", "pipo bench latency --protocol paper"),
    (("figure5",), "figure 5, the teacher's filter", "pipo ablate training"),
    (("figure6",), "figure 6, confidence against random", "pipo ablate threshold"),
    (tuple(f"figure{n}" for n in range(8, 13)), "figures 8 to 12, what the compressor does", "pipo ablate geometry"),
)


def missing(runs: Sequence[LoadedRun], found: Sequence[Exhibit]) -> list[tuple[str, str]]:
    """(exhibit in words, command) of what these runs do not give."""
    names = {e.name for e in found}
    if any(run.kind == GEOMETRY for run in runs):
        names |= {"figure8"}
    return [(words, command) for stems, words, command in SOURCES if not names & set(stems)]


def section(runs: Sequence[LoadedRun], found: Sequence[Exhibit], drawn: Mapping[str, str]) -> list[str]:
    """The part of a page; empty where no run gives any of it. ``drawn``: exhibit -> file of its figure."""
    if not found:
        return []
    facts = paper()
    parts = [
        TITLE,
        f"Numbers of the paper: {facts['source']}; {facts['setting']}. Beside them what was measured here, with 95% "
        "intervals. Where tasks and models are not the paper's, compare directions and ratios, never values.",
    ]
    for e in found:
        parts += [f"### {e.title}", *([image(drawn[e.name], e.title)] if e.name in drawn else []), e.table, e.note]
        parts += [f"**Not in this run:** {e.lacking}"] if e.lacking else []
    gone = missing(runs, found)
    if any(run.kind == GEOMETRY for run in runs):
        parts.append("Figures 8 to 12 stand in the part on the compressor.")
    if gone:
        rows = [[words, f"`{command}`"] for words, command in gone]
        parts += ["### Not in these runs", markdown(["of the paper", "made by"], rows, left=2)]
    parts.append(f"On the paper's own benchmarks: `{PAPER_RUN}`.")
    return parts


def draw(found: Sequence[Exhibit], styles: Mapping[str, Look]) -> dict[str, Any]:
    """Figures by the names of their exhibits."""
    return {e.name: e.draw(styles) for e in found if e.draw is not None}
