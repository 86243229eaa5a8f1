"""Figure 4 of the paper beside ours: first token and time per token over input length, and speed-ups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.exhibit_tables import HERE, part
from reports.exhibits import Exhibit
from reports.figures import length_axis, spread
from reports.load import LoadedRun
from reports.paper import MODEL, paper
from reports.style import DARK, Look
from reports.text import interval, listed, markdown, number, series_name

Row = Mapping[str, Any]
LENGTHS = ("2048", "131072")
THEIRS = "#8c1c13"
STAR: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 11, "markerfacecolor": "white", "zorder": 5}


def figure4(run: LoadedRun) -> Exhibit | None:
    """First token and time per token over input length, and how many times faster than regular."""
    facts, rows = paper()["figure4"], [*paper_rows(), *our_rows(run)]
    lines = [
        [
            f"{r['variant']}, the paper" if r["source"] == "paper" else r["variant"], r["input_tokens"],
            number(r["ttft_s"] and 1000 * r["ttft_s"]), number(r["tpot16_s"] and 1000 * r["tpot16_s"], 2),
            *(interval(r[f"{m}_times"], 1, 2) for m in ("ttft", "tpot16")),
        ]
        for r in rows if r["source"] == "paper" or str(r["input_tokens"]) in LENGTHS
    ]  # fmt: skip
    columns = ["variant", "input tokens", "TTFT ms", "TPOT16 ms", "TTFT ×", "TPOT16 ×"]
    shape, statistic = run.summary.get("shape"), run.summary.get("statistic", "p50")
    note = (
        f"Here {'means' if statistic == 'mean' else 'medians'} on {run.run.provenance.device}, "
        f"{f'a random model of shape {shape}' if shape else 'the models of the run'}; the paper: {MODEL}, "
        f"{facts['backend']} back end, means of {facts['trials']} trials, TPOT over the first "
        f"{facts['tpot_over_first_tokens']} tokens. Seconds compare on the same model and device only; what compares "
        "is ×, and how it moves with the length. Other lengths of this run stand in the part *Latency*."
    )
    gone = [n for n in facts["input_lengths"] if n not in run.summary.get("input_lengths", [])]
    words = listed([f"{n // 1024}K" for n in gone])
    lacking = f"the paper's lengths {words}; `pipo bench latency --protocol paper` has them." if gone else ""
    return Exhibit("figure4", "Figure 4: latency over input length", rows, markdown(columns, lines), note, lacking,
                   lambda styles: draw4(run, styles))  # fmt: skip


def paper_rows() -> list[dict[str, Any]]:
    """The paper's points, seconds and times faster than regular."""
    facts, rows = paper()["figure4"], []
    for method in ("regular", "pipo"):
        for n in LENGTHS:
            first, later = (facts[key][method].get(n) for key in ("ttft_s", "tpot_ms"))
            times = {m: facts[f"{m}_times"][n] if method == "pipo" else None for m in ("ttft", "tpot")}
            rows.append({
                "source": "paper", "variant": method, "model": MODEL, "input_tokens": int(n), "ttft_s": first,
                "tpot16_s": later and round(later / 1000, 6), "ttft_times": {"value": times["ttft"]},
                "tpot16_times": {"value": times["tpot"]},
            })  # fmt: skip
    return rows


def our_rows(run: LoadedRun) -> list[dict[str, Any]]:
    """What was measured, in the same form."""
    statistic = run.summary.get("statistic", "p50")
    ratios = {(r["variant"], r.get("keep"), r["input_tokens"], r["metric"]): r for r in run.summary.get("ratios", ())}
    rows = []
    for r in run.rows:
        key = (r["variant"], r.get("keep"), r["input_tokens"])
        times = {f"{m}_s": (r.get(f"{m}_s") or {}).get(statistic) for m in ("ttft", "tpot16")}
        gaps = {f"{m}_times": part(ratios.get((*key, m))) for m in ("ttft", "tpot16")}
        name = series_name(r["variant"], r.get("keep"))
        rows.append({"source": HERE, "variant": name, "model": r.get("model"), "input_tokens": r["input_tokens"],
                     **times, **gaps})  # fmt: skip
    return rows


def draw4(run: LoadedRun, styles: Mapping[str, Look]) -> Any:
    """Top: seconds; bottom: times faster than regular. The paper's points as stars, its lengths on the axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    facts = paper()["figure4"]
    figure = Figure(figsize=(8.8, 7.2))
    axes = figure.subplots(2, 2, sharex=True)
    ours = our_rows(run)
    names = list(dict.fromkeys(r["variant"] for r in ours))
    for j, metric in enumerate(("ttft", "tpot16")):
        top, bottom = axes[0][j], axes[1][j]
        for i, name in enumerate(names):
            dodge = 2 ** (0.07 * (i - (len(names) - 1) / 2))  # side by side where values coincide
            _lines(top, bottom, [r for r in ours if r["variant"] == name], metric, dodge, styles[name].line)
        _stars(top, bottom, metric)
        top.set_yscale("log")
        top.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        top.yaxis.set_major_formatter("{x:g}")
        top.yaxis.set_minor_formatter(NullFormatter())
        top.set_title("first token (TTFT)" if j == 0 else "time per token over the first 16 (TPOT16)")
        top.set_ylabel("ms" if j == 0 else "ms a token")
        bottom.set_ylabel(f"times as fast as {run.summary.get('reference') or 'the reference (none here)'}")
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("input length, tokens")
        length_axis(bottom, sorted({*(r["input_tokens"] for r in ours), *facts["input_lengths"]}))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _lines(top: Any, bottom: Any, rows: list[dict[str, Any]], metric: str, dodge: float, look: dict[str, Any]) -> None:
    plain = {key: value for key, value in look.items() if key not in ("capsize", "elinewidth")}
    timed = [r for r in rows if r[f"{metric}_s"]]
    top.plot([dodge * r["input_tokens"] for r in timed], [1000 * r[f"{metric}_s"] for r in timed],
             label=rows[0]["variant"], **plain)  # fmt: skip
    compared = [r for r in rows if r[f"{metric}_times"]]
    if compared:
        gaps = [r[f"{metric}_times"] for r in compared]
        x = [dodge * r["input_tokens"] for r in compared]
        bottom.errorbar(x, [g["value"] for g in gaps], yerr=spread(gaps), **look)


def _stars(top: Any, bottom: Any, metric: str) -> None:
    for method, colour in (("regular", DARK), ("pipo", THEIRS)):
        points = [r for r in paper_rows() if r["variant"] == method and r[f"{metric}_s"]]
        top.plot([r["input_tokens"] for r in points], [1000 * r[f"{metric}_s"] for r in points],
                 markeredgecolor=colour, label=f"{method}, the paper ({MODEL})", **STAR)  # fmt: skip
    times = [r for r in paper_rows() if r["variant"] == "pipo"]
    bottom.plot([r["input_tokens"] for r in times], [r[f"{metric}_times"]["value"] for r in times],
                markeredgecolor=THEIRS, **STAR)  # fmt: skip
    bottom.axhline(1.0, color=DARK, linewidth=0.8)
