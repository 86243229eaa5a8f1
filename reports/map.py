"""A map: who is fastest over batch, context and kept share, as a heat map and as tables. Schema: bench/map.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import LoadedRun
from reports.style import DARK, Look
from reports.text import DASH, listed, markdown, number

Row = Mapping[str, Any]
NAMES = {"regular": "regular", "eagle": "EAGLE", "pipo": "PIPO", "mtp": "mtp, unverified"}
# Face and ink of a cell by its winner: white, light and dark, so that a grey print tells them apart.
FACES = {"regular": ("#ffffff", DARK), "eagle": ("#cdd9ea", DARK), "pipo": ("#2f5078", "#ffffff")}
WORDS = {"floor": "by the floor", "measured": "as measured"}
SIDES = {"floor": "floor", "measured": "as measured"}


def _percent(share: float) -> str:
    """``33.5``, ``80``: a share in percent, without digits that say nothing."""
    return f"{100 * share:.3g}"


def sides_of(run: LoadedRun) -> list[str]:
    """``floor``, and ``measured`` where steps were timed."""
    return ["floor", "measured"] if run.summary["measured"] else ["floor"]


def heat_map(run: LoadedRun, accepted: float) -> Any:
    """A panel for each kept share, batch by context: the floor's above, the measured ones below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    s = run.summary
    sides, kept, batches, contexts = sides_of(run), s["kept"], s["batches"], s["contexts"]
    width, height = 1.1 + len(kept) * (0.35 + 0.72 * len(batches)), 1.1 + len(sides) * (0.75 + 0.5 * len(contexts))
    figure = Figure(figsize=(max(width, 4.6), height))
    axes = figure.subplots(len(sides), len(kept), squeeze=False, sharex=True, sharey=True)
    for i, side in enumerate(sides):
        for j, keep in enumerate(kept):
            ax = axes[i][j]
            cells = [c for c in s["cells"] if c["keep"] == keep and c["accepted"] == accepted]
            for cell in cells:
                _draw_cell(ax, batches.index(cell["batch"]), contexts.index(cell["context"]), cell[side])
            ax.set_title(f"{_percent(keep)} % kept, {SIDES[side]}")
            _frame(ax, batches, contexts)
            if i == len(sides) - 1:
                ax.set_xlabel("batch, rows")
            if j == 0:
                ax.set_ylabel("context, tokens")
    figure.suptitle(
        f"{s['shape']}: fastest method, × regular's tokens a second; EAGLE at {accepted:g} tokens a step", fontsize=9
    )
    marks = [Patch(facecolor=face, edgecolor=DARK, label=NAMES[name]) for name, (face, _) in FACES.items()]
    marks.append(Patch(facecolor="#ffffff", edgecolor="#9a9a9a", hatch="////", label="nothing fits, or not timed"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), fontsize=8)
    return figure


def _draw_cell(ax: Any, x: int, y: int, side: Row | None) -> None:
    from matplotlib.patches import Rectangle

    corner = (x - 0.5, y - 0.5)
    if side is None or side["winner"] is None:
        ax.add_patch(Rectangle(corner, 1, 1, facecolor="#ffffff", edgecolor="#9a9a9a", hatch="////", linewidth=0.6))
        return
    face, ink = FACES[side["winner"]]
    ax.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor=DARK, linewidth=0.6))
    ax.text(x, y, _label(side, "\n"), color=ink, ha="center", va="center", fontsize=7.5, linespacing=1.25)


def _label(side: Row | None, gap: str = " ") -> str:
    """The winner and its ratio to regular; a question mark where its lead is within the spread of the steps."""
    if side is None or side["winner"] is None:
        return DASH
    name = NAMES[side["winner"]] + ("" if side["settled"] else " ?")
    return f"{name}{gap}" + (f"{side['ratio']:.2f}×" if side["ratio"] is not None else "no regular")


def _frame(ax: Any, batches: Sequence[int], contexts: Sequence[int]) -> None:
    ax.set_xlim(-0.5, len(batches) - 0.5)
    ax.set_ylim(-0.5, len(contexts) - 0.5)
    ax.set_xticks(range(len(batches)), [str(b) for b in batches])
    ax.set_yticks(range(len(contexts)), [f"{n // 1024}K" if n % 1024 == 0 else str(n) for n in contexts])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def file_names(run: LoadedRun, stem: str) -> list[tuple[float, str]]:
    """Each assumed acceptance length of eagle with the file name of its heat map."""
    lengths = run.summary["accepted"]
    return [(a, stem if len(lengths) == 1 else f"{stem}-eagle-{a:g}") for a in lengths]


def series(run: LoadedRun) -> list[str]:
    """None: cells have faces by method."""
    return []


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """A heat map for each acceptance length of eagle."""
    return {name: heat_map(run, accepted) for accepted, name in file_names(run, stem)}


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    return {"cells": run.summary.get("cells")}


def what(run: LoadedRun) -> str:
    """One line on what a map covers."""
    s = run.summary
    return (
        f"Speed by shape: {s['shape']} at batch {listed([str(b) for b in s['batches']])} and context "
        f"{listed([str(n) for n in s['contexts']])}, {listed([_percent(k) for k in s['kept']])} % of drafts kept."
    )


def answer(run: LoadedRun) -> str:
    """Bullets: how many cells each method wins, for each kept share and acceptance length."""
    lines = []
    for keep in run.summary["kept"]:
        for accepted in run.summary["accepted"]:
            cells = [c for c in run.summary["cells"] if c["keep"] == keep and c["accepted"] == accepted]
            said = [f"{word} {_count(cells, side)}" for side, word in WORDS.items() if side in sides_of(run)]
            where = (
                f"{run.summary['shape']}, {_percent(keep)} % of PIPO's drafts kept, EAGLE at {accepted:g} tokens a step"
            )
            lines.append(f"- **{where}:** fastest {', and '.join(said)}.")
    return "\n".join(lines)


def _count(cells: Sequence[Row], side: str) -> str:
    """``PIPO in 3 of 9 cells, EAGLE in 6``; leads that the steps do not settle are counted apart."""
    sides = [c[side] or {"winner": None, "settled": True} for c in cells]
    parts = []
    for name in FACES:
        won = [s for s in sides if s["winner"] == name]
        open_ones = sum(not s["settled"] for s in won)
        if won:
            parts.append(f"{NAMES[name]} in {len(won)}" + (f" ({open_ones} not settled)" if open_ones else ""))
    missing = sum(s["winner"] is None for s in sides)
    text = f"{listed(parts)} of {len(cells)} cells" if parts else f"nobody in {len(cells)} cells"
    return text + (f" (in {missing} nothing fits or was timed)" if missing else "")


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The map's part of a page: heat maps, winners, every method in every cell."""
    s = run.summary
    m = s["machine"]
    lengths = zip(s["accepted"], names, strict=False)
    return [
        "## Map",
        *(f"![Fastest method by batch, context and kept share; eagle at {a:g} tokens a step]({f})" for a, f in lengths),
        f"Random weights of shape {s['shape']} in {s['dtype']}; contexts are "
        + ("prompts. " if s["prompt"] else "generated text, so PIPO's are shorter the more it keeps. ")
        + f"Floor: {m['name']} at {m['bandwidth'] / 1e9:.0f} GB/s, {m['matmul_rate'] / 1e12:.3g} TFLOP/s "
        f"({m['attention_rate'] / 1e12:.3g} in attention), {s['memory_bytes'] / 1e9:.3g} GB. "
        f"Eagle drafts {s['depth']} tokens a step. Kept shares and tokens a step are assumed, not found: which of them "
        "cost no quality is for the comparison to say. Unverified mtp keeps every draft unseen and does not compete. "
        "*No regular* marks cells that regular decoding does not fit into.",
        "### Winners",
        winners(run),
        f"<details><summary>Every method in every cell</summary>\n\n{methods(run)}\n\n</details>",
    ]


def winners(run: LoadedRun) -> str:
    """One line a cell: the winner by floor and as measured, its ratio to regular and its lead over the second."""
    columns = ["context", "batch", "kept %", "eagle tokens/step"]
    for side in sides_of(run):
        columns += [f"{SIDES[side]}: winner, × regular", "lead × second"]
    rows = []
    for c in run.summary["cells"]:
        line = [c["context"], c["batch"], _percent(c["keep"]), number(c["accepted"])]
        for side in sides_of(run):
            found = c[side] or {}
            line += [_label(c[side]), number(found.get("lead"), 2)]
        rows.append(line)
    return markdown(columns, rows, left=0)


def methods(run: LoadedRun) -> str:
    """One line a method and cell: memory, floor, and what was measured over it."""
    columns = [
        "method",
        "context",
        "batch",
        "tokens/step",
        "GB",
        "rows that fit",
        "floor ms",
        "floor × regular",
        "first token, floor ms",
    ]
    measured = run.summary["measured"]
    if measured:
        columns += ["step ms [p10, p90]", "× floor", "calls", "tokens/s", "× regular [95%]"]
    rows = []
    for r in run.rows:
        line = [
            _method(r), r["context"], r["batch"], number(r["tokens_per_step"], 2), number(r["memory_bytes"] / 1e9, 2),
            r["rows_that_fit"], number(1e3 * r["floor_s"], 3), number(r["floor_ratio"], 2),
            number(1e3 * r["prefill_floor_s"], 2),
        ]  # fmt: skip
        rows.append(line + (_measured(r) if measured else []))
    return markdown(columns, rows)


def _measured(r: Row) -> list[str]:
    step, ratio = r["step_s"], r["ratio"]
    if step is None:
        return [r["note"] or DASH, DASH, DASH, DASH, DASH]
    times = ", ".join(number(1e3 * step[q], 2) for q in ("p10", "p90"))
    return [
        f"{number(1e3 * step['p50'], 2)} [{times}]", number(r["over_floor"]), str(r["calls"]), number(r["tokens_s"], 0),
        f"{number(ratio['value'], 2)} [{number(ratio['low'], 2)}, {number(ratio['high'], 2)}]" if ratio else DASH,
    ]  # fmt: skip


def _method(r: Row) -> str:
    if r["keep"] is not None:
        return f"PIPO, {_percent(r['keep'])} % kept"
    return f"EAGLE, {r['accepted']:g} tokens/step" if r["accepted"] is not None else NAMES[r["method"]]
