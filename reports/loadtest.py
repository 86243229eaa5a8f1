"""A load run in a report: percentiles and goodput over load, a trace over time. Schema: bench/load/summary.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.load import LoadedRun
from reports.settle import settled
from reports.style import Look
from reports.text import DASH, folded, image, interval, listed, markdown, number, percent

Row = Mapping[str, Any]
RARE = ("failed", "timed out", "left at the end", "W", "J/token")
DISTURBED = 0.05  # share of the time without a CPU from which on numbers are warned of
UNITS = {"rate": "requests a second", "probe": "requests a second", "concurrency": "requests at once"}
WORDS = {"rate": "{:g}/s", "probe": "{:g}/s", "concurrency": "{:g} at once", "trace": "trace × {:g}"}
TIMES = {
    "ttft": "first token", "first_pair": "first pair", "tpot": "per token", "gap": "gap between chunks",
    "longest_gap": "longest gap of a request", "itl": "gap between tokens", "e2e": "whole request",
    "queue": "in the queue", "send_delay": "sent late",
}  # fmt: skip
QUANTILES = ("p50", "p90", "p95", "p99")
NOTE = (
    "Times count from when a request was due, whenever it was sent. *Per token* is the time after the first token over "
    "the tokens after it. Tokens of one chunk have gaps of 0 between them and the chunk has one: so *gap between "
    "tokens* flatters whoever brings two at once, and *gap between chunks* is what a reader sees. Percentiles that "
    "less than one request lies beyond are left out. Intervals take neighbours together, since they share a queue; "
    "near saturation even these are too narrow."
)


def series(run: LoadedRun) -> list[str]:
    """Names of the variants."""
    return list(dict.fromkeys(r["variant"] for r in run.rows))


def what(run: LoadedRun) -> str:
    """One line: who was asked what, and how it came."""
    s = run.summary
    loads = listed(list(dict.fromkeys(load(r) for r in run.rows)))
    asked = f"items of {s['task']}" if s["task"] else f"requests of {s['trace']}" if s["trace"] else "random prompts"
    return f"Load: {asked} on {s['target']} at {loads}: {listed(series(run))}."


def load(r: Row) -> str:
    """A row's load in words."""
    return WORDS[r["mode"]].format(r["load"])


def answer(run: LoadedRun) -> str:
    """Bullets: the rates that searches found, and how the first token and the pace compare at the highest load."""
    target = run.summary["target_share"]
    lines = [f"- {sentence(f, target)}{disturbed(_of(run, f['variant']))}" for f in run.summary["found"]]
    highest = max((r["load"] for r in run.rows), default=0.0)
    for variant in series(run):
        of = {r["metric"]: r for r in run.summary["ratios"] if r["variant"] == variant and r["load"] == highest}
        if run.summary["found"] or not {"ttft", "tpot"} <= of.keys():
            continue
        words = [f"{TIMES[m]} {interval(of[m], digits=2)}, {settled(of[m], 1.0)}" for m in ("ttft", "tpot")]
        where = load(next(r for r in run.rows if r["load"] == highest))
        lines.append(
            f"- **{variant} under load, {where}:** times as fast as {run.summary['reference']} over the same requests: "
            f"{'; '.join(words)}.{disturbed([r for r in run.rows if r['load'] == highest])}"
        )
    return "\n".join(lines)


def disturbed(rows: list[Row]) -> str:
    """A sentence where others on the machine took the CPU from one of these points; else nothing."""
    most = max((r["client"].get("waited_share") or 0.0 for r in rows), default=0.0)
    text = f" Others had the CPU for up to {100 * most:.0f} % of the time: do not lean on this."
    return text if most > DISTURBED else ""


def sentence(found: Row, target: float) -> str:
    """What a search found."""
    if found["rate"] is None:
        return f"**{found['variant']}:** no rate tried keeps {100 * target:g} % within the limits."
    beyond = "no higher one was tried" if found["next"] is None else f"{found['next']:g} does not"
    return (
        f"**{found['variant']}:** {found['rate']:g} requests a second keep {percent(found['share'])} % within the "
        f"limits; {beyond}."
    )


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Percentiles and goodput over load; for a trace what came, ran and waited over time."""
    if run.summary["mode"] == "trace":
        return {stem: over_time(run, styles)}
    return {stem: over_load(run, styles)}


def over_load(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """Four panels over load: first token, pace, throughput, and goodput or the whole request."""
    from matplotlib.figure import Figure

    good = bool(run.summary["slo"])
    figure = Figure(figsize=(8.4, 5.6))
    axes = list(figure.subplots(2, 2, sharex=True).flat)
    mode = run.rows[0]["mode"]
    for ax, key, title in zip(axes, ("ttft", "tpot"), ("first token, ms", "time a token, ms")):
        _percentiles(ax, run, styles, key)
        ax.set_title(title)
    _lines(axes[2], run, styles, lambda r: r["tokens_s"])
    axes[2].set_title("tokens a second, whole run")
    if good:
        _lines(axes[3], run, styles, lambda r: 100 * r["goodput"]["share"]["value"], ends=_share_ends)
        axes[3].axhline(100 * run.summary["target_share"], color="#9a9a9a", linewidth=0.8, linestyle=":")
        axes[3].set_ylim(-3, 103)
        limits = ", ".join(f"{name} {1000 * v:g} ms" for name, v in run.summary["slo"].items())
        axes[3].set_title(f"% of requests within {limits}")
    else:
        _percentiles(axes[3], run, styles, "e2e")
        axes[3].set_title("whole request, ms")
    loads = sorted({r["load"] for r in run.rows})
    for i, ax in enumerate(axes):
        ax.set_xscale("log", base=2)
        if len(loads) <= 8:
            ax.set_xticks(loads, [f"{x:g}" for x in loads])
        ax.minorticks_off()
        if i >= 2:
            ax.set_xlabel(UNITS[mode])
    figure.suptitle("median with its 95% interval; thin lines: p90", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _log(ax: Any) -> None:
    """A logarithmic scale with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _of(run: LoadedRun, name: str, key: str | None = None) -> list[Row]:
    rows = [r for r in run.rows if r["variant"] == name and (key is None or r[key])]
    return sorted(rows, key=lambda r: float(r["load"]))


def _percentiles(ax: Any, run: LoadedRun, styles: Mapping[str, Look], key: str) -> None:
    for name in series(run):
        rows = _of(run, name, key)
        mid = [r[key]["p50"] for r in rows]
        y = [1000 * m["value"] for m in mid]
        ends = [(m["value"], m["value"]) if m["low"] is None else (m["low"], m["high"]) for m in mid]
        bars = [[max(0.0, v - 1000 * low) for v, (low, _) in zip(y, ends)],
                [max(0.0, 1000 * high - v) for v, (_, high) in zip(y, ends)]]  # fmt: skip
        ax.errorbar([r["load"] for r in rows], y, yerr=bars, label=name, **styles[name].line)
        tail = [r for r in rows if r[key]["p90"]]
        ax.plot([r["load"] for r in tail], [1000 * r[key]["p90"]["value"] for r in tail],
                color=styles[name].colour, linestyle=styles[name].dash, linewidth=0.8)  # fmt: skip
    _log(ax)


def _lines(ax: Any, run: LoadedRun, styles: Mapping[str, Look], value: Any, ends: Any = None) -> None:
    for name in series(run):
        rows = _of(run, name)
        y = [value(r) for r in rows]
        bars = None
        if ends is not None:
            bars = [
                [max(0.0, v - ends(r)[0]) for v, r in zip(y, rows)],
                [max(0.0, ends(r)[1] - v) for v, r in zip(y, rows)],
            ]
        ax.errorbar([r["load"] for r in rows], y, yerr=bars, label=name, **styles[name].line)


def _share_ends(r: Row) -> tuple[float, float]:
    share = r["goodput"]["share"]
    value = share["value"]
    return 100 * (value if share["low"] is None else share["low"]), 100 * (
        value if share["high"] is None else share["high"]
    )


def over_time(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """Three panels over time: requests that came, requests in flight, time to the first token."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.6))
    came, flying, first = figure.subplots(3, 1, sharex=True)
    for number_, r in enumerate(run.rows):
        name, steps = r["variant"], [s for s in run.summary["series"] if s["point"] == r["point"]]
        t = [s["t"] for s in steps]
        width = t[1] - t[0] if len(t) > 1 else 1.0
        line = {k: v for k, v in styles[name].line.items() if k in ("color", "linestyle", "linewidth")}
        if number_ == 0:
            came.bar(t, [s["due"] / width for s in steps], width=width, align="edge", color="#b9b9b9")
        flying.step(t, [s["in_flight"] for s in steps], where="post", label=name, **line)
        seen = [s for s in steps if s["ttft"] is not None]
        first.plot([s["t"] + width / 2 for s in seen], [1000 * s["ttft"] for s in seen], label=name,
                   marker=styles[name].marker, markersize=3.5, **line)  # fmt: skip
    came.set_title(f"requests of {run.summary['trace']} that came, a second")
    flying.set_title("requests in flight")
    first.set_title("first token, ms: median of those due then")
    _log(first)
    first.set_xlabel("seconds since the start")
    for ax in (came, flying):
        ax.set_ylim(bottom=0)
    figure.legend(*flying.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The load run's part of a page."""
    s = run.summary
    parts = ["## Load", *(image(f, "Latency and throughput under load") for f in names), NOTE, rates(run)]
    if s["found"]:
        parts += ["### Highest rate within the limits", *(f"- {sentence(f, s['target_share'])}" for f in s["found"])]
    if s["ratios"]:
        parts += [f"### Times as fast as {s['reference']}, median over the same requests", ratios(run)]
    parts.append(folded("Percentiles", percentiles(run)))
    return [*parts, *remarks(run)]


def rates(run: LoadedRun) -> str:
    """One line a point: what came, what was answered, how fast, how good."""
    slo, asked = bool(run.summary["slo"]), any(r["avg"] for r in run.rows)
    columns = ["variant", "load", "answered", *RARE[:2], "offered/s", "answered/s", RARE[2], "tokens/s"]
    columns += ["tokens/chunk", "kept %", "first token ms [95%]", "ms a token [95%]"]
    columns += ["% within limits", "such/s"] if slo else []
    columns += ["avg@1 %", "cut"] if asked else []
    columns += RARE[3:]
    rows = []
    for r in run.rows:
        e = r["energy"]
        line = [r["variant"], load(r), f"{r['ok']}/{r['requests']}", r["failed"], r["timeout"]]
        line += [number(r["offered_s"], 2), number(r["achieved_s"], 2), r["backlog"], number(r["tokens_s"], 0)]
        line += [number(r["tokens_per_chunk"], 2), number(r["kept_share"] and 100 * r["kept_share"], 0)]
        line += [_ms(r["ttft"], "p50"), _ms(r["tpot"], "p50")]
        if slo:
            line += [percent(r["goodput"]["share"]), number(r["goodput"]["rate_s"], 2)]
        line += [percent(r["avg"]), r["cut"]] if asked else []
        rows.append([*line, number(e.get("watts"), 1), number(e.get("joules_token"), 3)])
    return markdown(*_telling(columns, rows), left=2)


def _telling(columns: list[str], rows: list[list[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Without the columns of what went wrong or could not be read, where that holds for no row."""
    kept = [i for i, c in enumerate(columns) if c not in RARE or any(row[i] not in (0, DASH) for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _ms(times: Row | None, q: str) -> str:
    return interval((times or {}).get(q), 1000, 2)


def percentiles(run: LoadedRun) -> str:
    """All times, a line each, with intervals."""
    rows = [
        [r["variant"], load(r), word, r[key]["n"], *(_ms(r[key], q) for q in QUANTILES)]
        for key, word in TIMES.items() for r in run.rows if r[key]
    ]  # fmt: skip
    return markdown(["variant", "load", "ms", "values", *QUANTILES], rows, left=3)


def ratios(run: LoadedRun) -> str:
    """Paired ratios, a line a point."""
    loads = {r["point"]: load(r) for r in run.rows}
    names = ("ttft", "first_pair", "tpot", "e2e")
    of: dict[tuple[str, str], dict[str, Row]] = {}
    for r in run.summary["ratios"]:
        of.setdefault((r["variant"], loads[r["point"]]), {})[r["metric"]] = r
    rows = [[*key, *(interval(found[m], digits=2) if m in found else DASH for m in names)] for key, found in of.items()]
    return markdown(["variant", "load", *(TIMES[m] for m in names)], rows, left=2)


def remarks(run: LoadedRun) -> list[str]:
    """What failed and why, what the client costs, what could not be read."""
    lines = [f"- {r['variant']}, {load(r)}: {x['count']} × {x['error']}" for r in run.rows for x in r["reasons"]]
    lines += [f"- {r['variant']}, {load(r)}: {text}" for r in run.rows for text in r["warnings"]]
    lines += [
        f"- {r['variant']}, {load(r)}: tokens of a chunk are a guess" for r in run.rows if r["counted"] == "chunks"
    ]
    lines += [f"- power: {why}" for why in dict.fromkeys(r["energy"].get("why") for r in run.rows) if why]
    lines += [f"- {text}" for text in run.summary["notes"]]
    for c in run.summary["client"]:
        lines.append(
            f"- The client against what answers at once ({c['side']}): {number(1000 * c['request_s']['p50'], 2)} ms a "
            f"request, {number(1e6 * c['chunk_s'], 1)} µs of CPU a chunk, sent "
            f"{number(1000 * c['send_delay_s']['p50'], 2)} ms late at the median, "
            f"{number(1000 * c['send_delay_s']['p99'], 2)} at p99."
        )
    return ["### Remarks", "\n".join(lines)] if lines else []


def lists(run: LoadedRun) -> dict[str, Any]:
    """Ratios, every point over time, the probes of searches."""
    probes = [{"variant": f["variant"], **p} for f in run.summary["found"] for p in f["probes"]]
    return {"ratios": run.summary["ratios"], "series": run.summary["series"], "probes": probes}
