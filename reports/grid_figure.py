"""The figure of a grid study: metrics over its axis, one line a base, points off the axis as level lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reports.figures import metric_of, spread
from reports.load import ALL_TASKS, LoadedRun
from reports.paper import paper
from reports.style import Look

Row = Mapping[str, Any]
LABELS = {
    "budget": "budget, % of each task's loose one", "slots": "budget, slots", "depth": "drafts a step",
    "draft_vocab": "tokens that drafts come from", "temperature": "temperature", "threshold": "threshold of the gate",
    "keep_rate": "share of drafts that a coin keeps", "k": "samples a question", "model": "model", "method": "method",
    "top_p": "top-p", "top_k": "top-k", "min_p": "min-p",
}  # fmt: skip


class Panel(NamedTuple):
    """One part of the figure: how it is called, what it shows of a row, in which scale."""

    label: str
    metric: str
    scale: float


def best_of(run: LoadedRun) -> int:
    """The largest k of pass@k that the study reports; all samples unless others were asked for."""
    return int(max(run.summary["pass_at"]))


def axis_of(run: LoadedRun) -> str | None:
    """The axis that figures run over: the first with the most values; None for a study without axes."""
    axes = run.summary.get("axes") or []
    return max(axes, key=lambda a: len(a["values"]))["key"] if axes else None


def line_of(row: Row, axis: str | None) -> str:
    """The name of the line that a point is part of: its base, and its values on the other axes."""
    return " ".join([row["base"], *(f"{key}={value}" for key, value in row["at"].items() if key != axis)])


def lines_of(run: LoadedRun) -> dict[str, list[Row]]:
    """Line -> its rows over all tasks, in the study's order."""
    axis = axis_of(run)
    found: dict[str, list[Row]] = {}
    for row in run.rows:
        if row["task"] == ALL_TASKS:
            found.setdefault(line_of(row, axis), []).append(row)
    return found


def estimate_of(row: Row, metric: str) -> Row | None:
    """An estimate of a row by the name of its metric; None where the row has none."""
    if metric == "avg" or metric.startswith("pass@"):
        return metric_of(row, metric)
    if metric == "tokens_s":
        speed = row.get("throughput")
        return {**speed, "value": speed["tokens_s"]} if speed else None
    return row.get(metric)


def panels(run: LoadedRun) -> list[Panel]:
    """Quality, then what varies: tokens a step or the kept share, and the pace where points have one of their own."""
    rows = [r for rows in lines_of(run).values() for r in rows]
    best = f"pass@{best_of(run)}"
    parts = [Panel(f"avg@{run.k}, %", "avg", 100), Panel(f"{best}, %", best, 100)]
    steps = {round(r["acceptance"]["value"], 2) for r in rows if r.get("acceptance")}
    parts += [Panel("tokens a step", "acceptance", 1)] if len(steps) > 1 else []
    timed = [len({r["variant"] for r in of if r.get("throughput")}) for of in lines_of(run).values()]
    parts += [Panel("tokens/s, whole batch", "tokens_s", 1)] if max(timed, default=0) > 1 else []
    return parts


def figure(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """All panels, two a row."""
    from matplotlib.figure import Figure

    found, axis, parts = lines_of(run), axis_of(run), panels(run)
    drawn = Figure(figsize=(8.6, 1.1 + 2.75 * ((len(parts) + 1) // 2)))
    axes = drawn.subplots((len(parts) + 1) // 2, 2, squeeze=False).flatten()
    places = _places(found, axis)
    for ax, panel in zip(axes, parts, strict=False):
        for n, (name, rows) in enumerate(found.items()):
            _line(ax, rows, panel, axis, places, styles[name], name, n - (len(found) - 1) / 2)
        if axis in ("budget", "slots") and panel.scale == 100:
            _paper_ends(ax, found, panel, styles, places)
        ax.set_ylabel(panel.label)
        ax.set_ylim(bottom=0)
        ax.set_xlabel(LABELS.get(axis or "", str(axis)) if axis else "point")
        ax.set_xticks(list(places.values()), [_tick(v, axis) for v in places])
        if not axis:
            ax.tick_params(axis="x", rotation=30)
            ax.margins(x=0.1)
        ax.minorticks_off()
    drawn_lines = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    names = [*(n for n in found if n in drawn_lines), *(n for n in drawn_lines if n not in found)]
    handles = [drawn_lines[n] for n in names]
    if len(parts) < len(axes):
        axes[-1].axis("off")
        axes[-1].legend(handles, names, loc="center")
    else:
        drawn.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
    return drawn


def _places(found: Mapping[str, Sequence[Row]], axis: str | None) -> dict[Any, float]:
    """Value of the axis (or name of a point, without one) -> where it stands: numbers where they are, else in turn."""
    rows = [r for rows in found.values() for r in rows]
    values = list(dict.fromkeys(r["at"][axis] if axis else r["variant"] for r in rows if not axis or axis in r["at"]))
    if values and all(isinstance(v, int | float) for v in values):
        return {v: float(v) for v in sorted(values)}
    numbers = sorted(v for v in values if isinstance(v, int | float))
    return {v: float(i) for i, v in enumerate([*numbers, *(v for v in values if isinstance(v, str))])}


def _line(
    ax: Any, rows: Sequence[Row], panel: Panel, axis: str | None, places: Mapping[Any, float], look: Look, name: str,
    turn: float,
) -> None:  # fmt: skip
    known = [(r, e) for r in rows if (e := estimate_of(r, panel.metric)) is not None]
    on = [(r["at"][axis] if axis else r["variant"], e) for r, e in known if not axis or axis in r["at"]]
    width = (max(places.values()) - min(places.values()) or 1.0) if places else 1.0
    for r, e in known:
        if axis and axis not in r["at"]:
            ax.axhline(panel.scale * e["value"], color=look.colour, linestyle=look.dash, linewidth=1.2, label=name)
            if e.get("low") is not None and e.get("high") is not None:
                ax.axhspan(panel.scale * e["low"], panel.scale * e["high"], color=look.colour, alpha=0.08, linewidth=0)
    if on:
        on.sort(key=lambda pair: places[pair[0]])
        x = [places[value] + 0.006 * width * turn for value, _ in on]  # side by side where values coincide
        items = [e if e["value"] else {"value": 0.0} for _, e in on]  # no bars where nothing is right
        line = look.line | {"markersize": 4.5, "linewidth": 1.2, "capsize": 1.8, "elinewidth": 0.8}
        ax.errorbar(x, [panel.scale * e["value"] for e in items], yerr=spread(items, panel.scale), **line, label=name)


def _paper_ends(
    ax: Any, found: Mapping[str, Sequence[Row]], panel: Panel, styles: Mapping[str, Look], places: Mapping[Any, float]
) -> None:
    """The paper's end points of figure 2, right of ours; its tasks and model are others."""
    overall, label = paper()["overall"], "the paper's end (4B model, 32K slots)"
    low, high = min(places.values()), max(places.values())
    for name, rows in found.items():
        if rows[0]["base"] in overall:
            value = overall[rows[0]["base"]]["quality"][panel.metric != "avg"]
            ax.plot(
                [high + 0.1 * (high - low)], [value], linestyle="none", marker="*", markersize=10,
                markerfacecolor="white", markeredgecolor=styles[name].colour, label=label,
            )  # fmt: skip
            label = "_nolegend_"


def _tick(value: Any, axis: str | None) -> str:
    if axis == "budget":
        return f"{100 * value:g}"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
