"""The three figures: quality by task and budget, quality against pad ratio, latency against input length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.style import DARK, LIGHT, Look

Row = Mapping[str, Any]


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

    tasks = [ALL_TASKS, *(t for t in run.summary.get("tasks", ()) if t != ALL_TASKS)]
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
                ax.set_title("all tasks" if task == ALL_TASKS else task)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


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
                _gate_line(ax, [p for p in run.rows if p["budget"] == budget and p["gate"] == gate], gate, metric)
            ax.margins(x=0.06, y=0.12)
            if i == 0:
                ax.set_title(f"{budget} budget, all tasks")
            if i == len(metrics) - 1:
                ax.set_xlabel("pad ratio: drafts not kept, %")
            if j == 0:
                ax.set_ylabel(f"{label}, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return figure


def _gate_line(ax: Any, points: Sequence[Row], gate: str, metric: str) -> None:
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
        _label_thresholds(ax, usable, x, y)


def _label_thresholds(ax: Any, points: Sequence[Row], x: Sequence[float], y: Sequence[float]) -> None:
    """Thresholds beside their points; one too near the last label is left out (the table has all)."""
    gap = 0.07 * ((max(x) - min(x)) or 1.0)
    last = float("-inf")
    for point, px, py in zip(points, x, y, strict=True):
        if px - last < gap:
            continue
        last = px
        ax.annotate(f"{point['threshold']:g}", (px, py), xytext=(5, 5), textcoords="offset points", fontsize=8)


def latency(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """Top: median first token and time per token; bottom: how many times faster than the reference, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 6.6))
    axes = figure.subplots(2, 2, sharex=True)
    for j, (metric, name) in enumerate((("ttft", "first token (TTFT)"), ("tpot", "time per token after it (TPOT)"))):
        for key in dict.fromkeys((r["variant"], r.get("keep")) for r in run.rows):
            look = styles[key[0]].line
            of = [r for r in run.rows if (r["variant"], r.get("keep")) == key]
            medians = [(r["input_tokens"], 1000 * r[f"{metric}_s"]["p50"]) for r in of if r.get(f"{metric}_s")]
            axes[0][j].errorbar(*zip(*sorted(medians), strict=True), **look, label=_series(*key))
            ratios = [
                r
                for r in run.summary.get("ratios", ())
                if (r["variant"], r.get("keep")) == key and r["metric"] == metric
            ]
            ratios.sort(key=lambda r: r["input_tokens"])
            if ratios and key[0] != run.summary.get("reference"):
                lengths, values = [r["input_tokens"] for r in ratios], [r["value"] for r in ratios]
                axes[1][j].errorbar(lengths, values, yerr=spread(ratios), **look)
        axes[0][j].set_title(name)
        axes[0][j].set_ylabel("median, ms" if j == 0 else "median, ms a token")
        axes[0][j].set_yscale("log")
        axes[1][j].axhline(1.0, color=DARK, linewidth=0.8)
        axes[1][j].set_ylabel(f"times as fast as {run.summary.get('reference')}")
        axes[1][j].set_xlabel("input length, tokens")
        _length_axis(axes[1][j], sorted({r["input_tokens"] for r in run.rows}))
        axes[1][j].set_ylim(bottom=0)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def _series(variant: str, keep: float | None) -> str:
    return variant if keep is None else f"{variant}, {100 * keep:.0f} % kept by force"


def _length_axis(ax: Any, lengths: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(lengths, [f"{n // 1024}K" if n % 1024 == 0 else str(n) for n in lengths])
    ax.minorticks_off()
