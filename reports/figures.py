"""The three figures: quality by task and budget, quality against pad ratio, latency against input length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.paper import paper
from reports.style import DARK, LIGHT, Look
from reports.text import series_name

Row = Mapping[str, Any]
Series = tuple[str, float | None]  # a variant and its forced kept share


def spread(items: Sequence[Row], scale: float = 1.0) -> list[list[float]] | None:
    """Distances to the lower and upper end of each interval, as errorbar wants them; 0 where there is no interval."""
    sides: list[list[float]] = [[], []]
    for item in items:
        low = item["value"] if item.get("low") is None else item["low"]
        high = item["value"] if item.get("high") is None else item["high"]
        sides[0].append(max(0.0, scale * (item["value"] - low)))
        sides[1].append(max(0.0, scale * (high - item["value"])))
    return sides


def metric_of(row: Row, metric: str) -> Row | None:
    """``avg`` or ``pass@4`` of a row, as an estimate."""
    item = row.get("avg") if metric == "avg" else (row.get("pass") or {}).get(metric.partition("@")[2])
    return item if item and item.get("value") is not None else None


def quality(run: LoadedRun) -> Any:
    """Dots with intervals: one column a task, one row a metric, variants down the side, filled tight, open loose."""
    from matplotlib.figure import Figure

    tasks = [ALL_TASKS, *run.tasks] if len(run.tasks) > 1 else [ALL_TASKS]
    variants = list(dict.fromkeys(row["variant"] for row in run.rows))
    metrics = [("avg", f"avg@{run.k}"), (f"pass@{run.k}", f"pass@{run.k}")]
    figure = Figure(figsize=(2.3 + 2.0 * len(tasks), 1.3 + 0.68 * len(variants) * len(metrics) * 0.75))
    axes = figure.subplots(len(metrics), len(tasks), squeeze=False, sharey=True, sharex="row")
    for i, (metric, label) in enumerate(metrics):
        for j, task in enumerate(tasks):
            ax = axes[i][j]
            for budget, colour, shift, fill in (("tight", DARK, -0.14, DARK), ("loose", LIGHT, 0.14, "white")):
                rows = [r for r in run.rows if r["task"] == task and r["budget"] == budget and metric_of(r, metric)]
                items = [metric_of(r, metric) or {} for r in rows]
                ax.errorbar(
                    [100 * item["value"] for item in items],
                    [variants.index(r["variant"]) + shift for r in rows],
                    xerr=spread(items, 100),
                    fmt="o" if budget == "tight" else "s",
                    color=colour,
                    markerfacecolor=fill,
                    markersize=5,
                    capsize=2,
                    elinewidth=1.1,
                    label=f"{budget} budget",
                )
            ax.set_yticks(range(len(variants)), variants)
            ax.set_ylim(len(variants) - 0.5, -0.5)
            ax.grid(axis="y", visible=False)
            ax.set_xlabel(f"{label}, %")
            if i == 0:
                ax.set_title(_title(run, task))
    for row in axes:
        row[0].set_xlim(*_wide_enough(*row[0].get_xlim()))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _title(run: LoadedRun, task: str) -> str:
    if task != ALL_TASKS:
        return task
    return "all tasks" if len(run.tasks) != 1 else run.tasks[0]


def _wide_enough(low: float, high: float, least: float = 5.0) -> tuple[float, float]:
    """Limits of an axis in percent, at least 5 points apart: equal values must not look like a spread."""
    missing = max(0.0, least - (high - low)) / 2
    return low - missing, high + missing


def threshold(run: LoadedRun) -> Any:
    """Quality against pad ratio over all tasks: the confidence gate (solid) and the coin flip (dashed)."""
    from matplotlib.figure import Figure

    budgets = [b for b in BUDGETS if any(p["budget"] == b for p in run.rows)]
    metrics = [("avg", f"avg@{run.k}"), (f"pass@{run.k}", f"pass@{run.k}")]
    figure = Figure(figsize=(1.2 + 3.4 * len(budgets), 6.4))
    axes = figure.subplots(len(metrics), len(budgets), squeeze=False, sharex=True, sharey="row")
    for i, (metric, label) in enumerate(metrics):
        for j, budget in enumerate(budgets):
            ax = axes[i][j]
            for gate in ("random", "confidence"):
                threshold_line(ax, [p for p in run.rows if p["budget"] == budget and p["gate"] == gate], gate, metric)
            ax.margins(x=0.06, y=0.16)
            if i == 0:
                ax.set_title(f"{budget} budget, {_title(run, ALL_TASKS)}")
            if i == len(metrics) - 1:
                ax.set_xlabel("pad ratio: drafts not kept, %")
            if j == 0:
                ax.set_ylabel(f"{label}, %")
        axes[i][0].set_ylim(*_wide_enough(*axes[i][0].get_ylim()))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return figure


def threshold_line(ax: Any, points: Sequence[Row], gate: str, metric: str) -> None:
    """One gate's quality over pad ratio, all tasks."""
    usable = [p for p in points if p["task"] == ALL_TASKS and p.get("pad_ratio") and metric_of(p, metric)]
    usable.sort(key=lambda p: p["pad_ratio"]["value"])
    if not usable:
        return
    items = [metric_of(p, metric) or {} for p in usable]
    x, y = [100 * p["pad_ratio"]["value"] for p in usable], [100 * item["value"] for item in items]
    confident = gate == "confidence"
    ax.errorbar(
        x,
        y,
        yerr=spread(items, 100),
        color=DARK if confident else LIGHT,
        marker="o" if confident else "s",
        markerfacecolor=DARK if confident else "white",
        linestyle="-" if confident else "--",
        markersize=5.5 if confident else 6.5,
        linewidth=1.5,
        capsize=2.5,
        elinewidth=1.0,
        label="confidence gate (labels: threshold)" if confident else "coin flip at the same pad ratio",
        zorder=3 if confident else 2,
    )
    if confident:
        _label_thresholds(ax, usable, x, items)


def _label_thresholds(ax: Any, points: Sequence[Row], x: Sequence[float], items: Sequence[Row]) -> None:
    """Thresholds above their intervals; one too near the last label is left out (the table has all)."""
    gap = 0.028 * ((max(x) - min(x)) or 1.0)
    last = float("-inf")
    for point, px, item in zip(points, x, items, strict=True):
        if px - last < gap:
            continue
        last = px
        top = 100 * (item["value"] if item.get("high") is None else item["high"])
        ax.annotate(
            f"{point['threshold']:g}", (px, top), xytext=(0, 3), textcoords="offset points", fontsize=7, rotation=90,
            ha="center", va="bottom", zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def latency(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """Top: first token and time per token; bottom: how many times faster than the reference, with intervals.

    Medians and all tokens, or means and the first 16, as the run's protocol says.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(8.4, 6.8))
    axes = figure.subplots(2, 2, sharex=True)
    keys = list(dict.fromkeys(_key(r) for r in run.rows))
    lengths = sorted({r["input_tokens"] for r in run.rows})
    octaves = math.log2(lengths[-1] / lengths[0]) or 1.0
    word = "mean" if run.summary.get("statistic") == "mean" else "median"
    later = run.summary.get("tpot", "tpot")
    titles = (("ttft", "first token (TTFT)"), (later, f"time per token after it ({later.upper()})"))
    for j, (metric, title) in enumerate(titles):
        top, bottom = axes[0][j], axes[1][j]
        for i, key in enumerate(keys):
            dodge = 2 ** (0.012 * octaves * (i - (len(keys) - 1) / 2))  # side by side where values coincide
            _latency_line(run, key, metric, dodge, styles[series_name(*key)].line, top, bottom)
        _paper_point(bottom, "tpot" if j else "ttft", lengths)
        top.set_title(title)
        top.set_ylabel(f"{word}, ms" if j == 0 else f"{word}, ms a token")
        bottom.axhline(1.0, color=DARK, linewidth=0.8)
        bottom.set_ylabel(f"times as fast as {run.summary.get('reference') or 'the reference (none here)'}")
        bottom.set_xlabel("input length, tokens")
        bottom.set_ylim(bottom=0)
        length_axis(bottom, lengths)
    axes[0][0].set_yscale("log")
    low, high = axes[0][0].get_ylim()
    axes[0][0].yaxis.set_major_formatter(ScalarFormatter())
    axes[0][0].yaxis.set_minor_formatter(ScalarFormatter() if high < 10 * low else NullFormatter())
    axes[0][1].set_ylim(bottom=0)
    handles, labels = axes[0][0].get_legend_handles_labels()
    paper_handles, paper_labels = axes[1][0].get_legend_handles_labels()
    figure.legend(handles + paper_handles, labels + paper_labels, loc="outside lower center", ncols=4)
    return figure


def _latency_line(
    run: LoadedRun,
    key: tuple[str, float | None],
    metric: str,
    dodge: float,
    look: dict[str, Any],
    top: Any,
    bottom: Any,
) -> None:
    shown = run.summary.get("statistic", "p50")
    of = [r for r in run.rows if (r["variant"], r.get("keep")) == key and (r.get(f"{metric}_s") or {}).get(shown)]
    of.sort(key=lambda r: r["input_tokens"])
    values = [1000 * r[f"{metric}_s"][shown] for r in of]
    top.errorbar([dodge * r["input_tokens"] for r in of], values, **look, label=series_name(*key))
    ratios = [
        r for r in run.summary.get("ratios", ()) if (r["variant"], r.get("keep")) == key and r["metric"] == metric
    ]
    ratios.sort(key=lambda r: r["input_tokens"])
    if ratios and key[0] != run.summary.get("reference"):
        x, y = [dodge * r["input_tokens"] for r in ratios], [r["value"] for r in ratios]
        bottom.errorbar(x, y, yerr=spread(ratios), **look)


def _paper_point(ax: Any, metric: str, lengths: Sequence[int]) -> None:
    """The paper's own ratios, where their lengths lie within the axis."""
    points = {int(n): v for n, v in paper()["latency"][metric].items() if lengths[0] <= int(n) <= lengths[-1]}
    if points:
        ax.plot(
            list(points), list(points.values()), linestyle="none", marker="*", markersize=12, markerfacecolor="white",
            markeredgecolor=DARK, label="the paper's PIPO (4B model)", zorder=5,
        )  # fmt: skip


def _key(row: Row) -> Series:
    return row["variant"], row.get("keep")


def length_axis(ax: Any, lengths: Sequence[int]) -> None:
    """Input lengths by powers of two."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(lengths, [f"{n // 1024}K" if n % 1024 == 0 else str(n) for n in lengths])
    ax.minorticks_off()
