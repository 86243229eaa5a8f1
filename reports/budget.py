"""Budgets and costs in a report: quality over slots, tokens and device seconds, what a right answer costs, equal time.

Everything is read from a summary (bench/summary.py); summaries of older runs have none of it and get no section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.figures import spread
from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.paper import paper
from reports.style import DARK, LIGHT, Look
from reports.text import interval, markdown, number, percent

Row = Mapping[str, Any]
LISTS = ("costs", "cost_ratios", "equal_time", "equal_time_differences")
AXES = {"slots": "slots", "tokens": "tokens", "device_s": "device seconds"}
SHARES = {0.0625: "1/16", 0.125: "1/8", 0.25: "1/4", 0.5: "1/2", 1.0: "1"}
TITLE = "Quality over the budget, all tasks"
GUIDE = """\
- The curves come from the same run, exactly: a sample that finished within a budget counts, else it was cut there and
  is wrong. Over all tasks, each task stands at the same share of its own largest budget.
- **device seconds**: a sample's share of the batch's wall clock, by the steps it took part in; another batch or another
  machine gives other ones. Their curves end where the first sample of any variant was cut by the loose budget.
- **cost**: what all samples took over the number of right ones, cut and wrong ones included. **equal time**: pass@k
  with as many samples a question as the quickest variant's time for all of its samples allows."""


def curves_of(run: LoadedRun, axis: str, task: str = ALL_TASKS) -> list[Row]:
    """A run's curves over one axis; empty for summaries without them."""
    found = run.summary.get("curves") or ()
    return [c for c in found if c["axis"] == axis and c["task"] == task]


def points(run: LoadedRun) -> list[Row]:
    """The curves as rows for a table, one a point."""
    return [
        {
            "variant": c["variant"], "task": c["task"], "axis": c["axis"], "fraction": fraction, "k": c["k"],
            "budget": c["budgets"][i] if c["budgets"] else None, "used": c["used"][i], "cut": c["cut"][i],
            **{part: _at(c, part, i) for part in ("avg", "pass")},
        }
        for c in run.summary.get("curves") or () for i, fraction in enumerate(c["fractions"])
    ]  # fmt: skip


def _at(curve: Row, part: str, i: int) -> dict[str, Any]:
    return {side: curve[part][side][i] for side in ("value", "low", "high")}


def figures(run: LoadedRun, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Figures by the word that their file name ends with."""
    drawn = {"budget": curve_figure(run, styles)} if curves_of(run, "slots") else {}
    return drawn | ({"cost": cost_figure(run)} if _seconds(run) and _equal(run) else {})


def curve_figure(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """avg@k and pass@k over the budget of slots, of tokens and of device seconds; one line a variant."""
    from matplotlib.figure import Figure

    axes_shown = [a for a in AXES if curves_of(run, a)]
    parts = {"avg": f"avg@{run.k}", "pass": f"pass@{curves_of(run, 'slots')[0]['k']}"}
    figure = Figure(figsize=(1.0 + 3.5 * len(axes_shown), 6.6))
    axes = figure.subplots(len(parts), len(axes_shown), squeeze=False, sharey="row", sharex="col")
    for j, axis in enumerate(axes_shown):
        found = curves_of(run, axis)
        for i, (part, label) in enumerate(parts.items()):
            ax = axes[i][j]
            for n, curve in enumerate(found):
                dodge = 2 ** (0.05 * (n - (len(found) - 1) / 2))  # side by side where values coincide
                draw_line(ax, curve, part, dodge, styles[curve["variant"]])
            ax.set_xscale("log", base=2)
            ax.set_ylim(bottom=0)
            if j == 0:
                ax.set_ylabel(f"{label}, %")
        axes[0][j].set_title(f"budget of {AXES[axis]}")
        budget_axis(axes[-1][j], axis, found[0])
        axes[-1][j].set_xlim(left=first_right(found) / 1.25)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def first_right(found: Sequence[Row]) -> float:
    """Where an axis begins: one step before anything is right."""
    right = [i for c in found for i, v in enumerate(c["pass"]["value"]) if v > 0]
    return float(found[0]["fractions"][max(0, min(right, default=0) - 1)])


def draw_line(ax: Any, curve: Row, part: str, dodge: float, look: Look) -> None:
    """One variant's ``avg`` or ``pass`` over shares of the budget, ``dodge`` times to the right."""
    items = [_at(curve, part, i) for i in range(len(curve["fractions"]))]
    x, y = [dodge * f for f in curve["fractions"]], [100 * item["value"] for item in items]
    items = [item if item["value"] else {"value": 0.0} for item in items]  # no bars where nothing is right yet
    line = look.line | {"markersize": 4.5, "linewidth": 1.2, "capsize": 1.5, "elinewidth": 0.7}
    ax.errorbar(x, y, yerr=spread(items, 100), **line, label=curve["variant"])


def paper_ends(ax: Any, found: Sequence[Row], part: str, styles: Mapping[str, Look]) -> None:
    """The paper's end points, right of ours; its tasks and model are others."""
    overall, label = paper()["overall"], "the paper's end (4B model, 32K slots)"
    for curve in found:
        if curve["variant"] in overall:
            value = overall[curve["variant"]]["quality"][part == "pass"]
            ax.plot(
                [1.45], [value], linestyle="none", marker="*", markersize=10, markerfacecolor="white",
                markeredgecolor=styles[curve["variant"]].colour, label=label,
            )  # fmt: skip
            label = "_nolegend_"


def budget_axis(ax: Any, axis: str, curve: Row) -> None:
    """Ticks at whole budgets where all tasks have the same, else at shares."""
    whole = curve["budgets"]
    names = dict(SHARES)
    if whole:
        at = dict(zip(curve["fractions"], whole, strict=True))
        names = {f: f"{at[f]:.3g}" if axis == "device_s" else f"{at[f]:.0f}" for f in SHARES if f in at}
    ax.set_xticks(list(names), list(names.values()))
    ax.minorticks_off()
    longest = "the shortest cut sample's" if axis == "device_s" else "each task's loose budget"
    ax.set_xlabel(AXES[axis] + ("" if whole else f", share of {longest}"))


def _seconds(run: LoadedRun) -> list[Row]:
    found = run.summary.get("costs") or ()
    return [c for c in found if c["task"] == ALL_TASKS and (c.get("device_s") or {}).get("value") is not None]


def _equal(run: LoadedRun) -> list[Row]:
    return [e for e in run.summary.get("equal_time") or () if e["task"] == ALL_TASKS]


def cost_figure(run: LoadedRun) -> Any:
    """Dots with intervals: device seconds a right answer under both budgets, and pass@k at equal time."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    costs, equal = _seconds(run), _equal(run)
    variants = list(dict.fromkeys(c["variant"] for c in [*costs, *equal]))
    figure = Figure(figsize=(8.6, 1.5 + 0.42 * len(variants)))
    left, right = figure.subplots(1, 2, sharey=True)
    looks = {"tight": (DARK, -0.14, DARK, "o"), "loose": (LIGHT, 0.14, "white", "s")}
    for budget, (colour, shift, fill, marker) in looks.items():
        rows = [c for c in costs if c["budget"] == budget]
        left.errorbar(
            [c["device_s"]["value"] for c in rows], [variants.index(c["variant"]) + shift for c in rows],
            xerr=spread([c["device_s"] for c in rows]), fmt=marker, color=colour, markerfacecolor=fill, markersize=5,
            capsize=2, elinewidth=1.1, label=f"{budget} budget",
        )  # fmt: skip
    left.set_xscale("log")
    left.set_xlabel("device seconds a right answer")
    left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter(NullFormatter())
    right.errorbar(
        [100 * e["value"] for e in equal], [variants.index(e["variant"]) for e in equal], xerr=spread(equal, 100),
        fmt="D", color=DARK, markersize=4.5, capsize=2, elinewidth=1.1,
    )  # fmt: skip
    right.set_xlabel("pass@k at equal device seconds a question, %")
    left.set_yticks(range(len(variants)), variants)
    left.set_ylim(len(variants) - 0.5, -0.5)
    for ax in (left, right):
        ax.grid(axis="y", visible=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def section(run: LoadedRun, names: Sequence[str]) -> list[str]:
    """The part of a comparison that speaks of budgets and costs; empty for summaries without it."""
    if not curves_of(run, "slots"):
        return []
    texts = ["Quality over the budget", "Cost of a right answer and quality at equal time"]
    parts = [f"### {TITLE}"]
    parts += [f"![{text}]({name})" for text, name in zip(texts, names, strict=False)]
    for axis in (a for a in AXES if curves_of(run, a)):
        of = "" if curves_of(run, axis)[0]["budgets"] else ", by share of the budget"
        parts += [f"pass@{curves_of(run, axis)[0]['k']} within {AXES[axis]}{of}:", curve_table(run, axis)]
    parts += ["### What a right answer costs, all tasks", cost_table(run)]
    if _equal(run):
        parts += ["### Quality at equal device time", equal_table(run)]
    return [*parts, GUIDE]


def curve_table(run: LoadedRun, axis: str) -> str:
    """pass@k at a sixteenth to the whole of the budget."""
    found = curves_of(run, axis)
    at = [(f, found[0]["fractions"].index(f)) for f in SHARES if f in found[0]["fractions"]]
    whole = found[0]["budgets"]
    heads = [f"{whole[i]:.3g}" if whole else SHARES[f] for f, i in at]
    rows = [[c["variant"], *(percent(_at(c, "pass", i)) for _, i in at)] for c in found]
    return markdown(["variant", *(f"{h}: %" for h in heads)], rows)


def cost_table(run: LoadedRun) -> str:
    """Slots, tokens and device seconds a right answer, and how many times the reference's seconds that is."""
    costs = [c for c in run.summary.get("costs") or () if c["task"] == ALL_TASKS]
    ratios = {(r["variant"], r["reference"], r["budget"]): r for r in run.summary.get("cost_ratios") or ()
              if r["task"] == ALL_TASKS}  # fmt: skip
    references = list(dict.fromkeys(reference for _, reference, _ in ratios))
    rows = [
        [
            c["variant"], budget, c["right"], interval(c.get("slots"), digits=0), interval(c.get("tokens"), digits=0),
            interval(c.get("device_s"), digits=3),
            *(interval(ratios.get((c["variant"], ref, budget)), digits=2) for ref in references),
        ]
        for budget in BUDGETS for c in costs if c["budget"] == budget
    ]  # fmt: skip
    columns = ["variant", "budget", "right", "slots each", "tokens each", "device s each"]
    return markdown([*columns, *(f"s ÷ {ref}" for ref in references)], rows, left=2)


def equal_table(run: LoadedRun) -> str:
    """pass@k in equal time, by task with seconds and samples, and differences to the references."""
    gaps = {(g["variant"], g["reference"], g["task"]): g for g in run.summary.get("equal_time_differences") or ()}
    references = list(dict.fromkeys(reference for _, reference, _ in gaps))
    found = [e for e in run.summary.get("equal_time") or () if e["task"] != ALL_TASKS or len(run.tasks) > 1]
    found.sort(key=lambda e: e["task"] != ALL_TASKS)
    rows = [
        [
            e["variant"], "all tasks" if e["task"] == ALL_TASKS else e["task"], number(e["seconds"], 3),
            number(e["samples"], 2), percent({k: e[k] for k in ("value", "low", "high")}),
            *(interval(gaps.get((e["variant"], ref, e["task"])), 100, 1, sign=True) for ref in references),
        ]
        for e in found
    ]  # fmt: skip
    columns = [
        "variant",
        "task",
        "seconds a question",
        "samples",
        "pass %",
        *(f"points against {r}" for r in references),
    ]
    return markdown(columns, rows, left=2)
