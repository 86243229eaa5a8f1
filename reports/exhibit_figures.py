"""Figures 2, 5 and 6 of the paper beside ours: budget, the teacher's filter, confidence against random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports import budget, training
from reports.exhibit_tables import HERE, absent, part, standing
from reports.exhibits import Exhibit
from reports.figures import metric_of, spread, threshold_line
from reports.load import ALL_TASKS, LoadedRun
from reports.paper import MODEL, paper
from reports.settle import settled
from reports.style import DARK, Look
from reports.text import DASH, interval, listed, markdown, number, percent

Row = Mapping[str, Any]
LOOSE = "loose"
STAR: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 11, "markerfacecolor": "white", "zorder": 5}
SLOTS = "slots"
# The filter's rows in the training study: share of the teacher's roll-outs that must be right -> row.
FILTER = {0.0: "opd-rho-0", 0.25: "opd-rho-0.25", 0.5: "pipo-opd", 0.75: "opd-rho-0.75", 1.0: "opd-rho-1"}


def figure2(run: LoadedRun) -> Exhibit | None:
    """pass@k over the budget in slots, all tasks."""
    found = budget.curves_of(run, SLOTS)
    if not found:
        return None
    facts = paper()
    k = found[0]["k"]
    rows: list[dict[str, Any]] = [
        {"source": "paper", "method": name, "model": model, "fraction": 1.0, "slots": facts["budget"]["slots"][-1],
         "k": 4, "avg": {"value": round(cells[-1][0] / 100, 6)}, "pass": {"value": round(cells[-1][1] / 100, 6)}}
        for model in facts["table2"] for name, cells in facts["table1"][model].items()
    ]  # fmt: skip
    rows += [
        {"source": HERE, "method": p["variant"], "model": None, "fraction": p["fraction"], "slots": p["budget"],
         "k": p["k"], "avg": p["avg"], "pass": p["pass"]}
        for p in budget.points(run) if p["axis"] == SLOTS and p["task"] == ALL_TASKS
    ]  # fmt: skip
    where = f"Numbers of all budgets stand in the comparison's part, *{budget.TITLE}*; those of the end in table 1."
    note = (
        f"The paper's budgets are {facts['budget']['slots'][0]} to {facts['budget']['slots'][-1]} slots; it gives "
        f"numbers for the end alone, and says that {facts['budget']['says']}. {standing(run)}"
    )
    return Exhibit(
        "figure2", f"Figure 2: pass@{k} over the budget", rows, where, note, absent(run),
        lambda styles: draw2(run, found, styles),
    )  # fmt: skip


def draw2(run: LoadedRun, found: Sequence[Row], styles: Mapping[str, Look]) -> Any:
    """One panel: pass@k over the budget of slots, and the paper's ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.9))
    ax = figure.subplots()
    for n, curve in enumerate(found):
        budget.draw_line(ax, curve, "pass", 2 ** (0.05 * (n - (len(found) - 1) / 2)), styles[curve["variant"]])
    budget.paper_ends(ax, found, "pass", styles)
    ax.set_xscale("log", base=2)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"pass@{found[0]['k']}, all tasks, %")
    budget.budget_axis(ax, SLOTS, found[0])
    ax.set_xlim(left=budget.first_right(found) / 1.25)
    ax.set_title("budget of slots")
    handles, labels = ax.get_legend_handles_labels()
    lines = sorted(zip(handles, labels, strict=True), key=lambda pair: pair[1].startswith("the paper"))
    figure.legend(*zip(*lines, strict=True), loc="outside lower center", ncols=4)
    return figure


def figure5(run: LoadedRun) -> Exhibit | None:
    """avg@k and pass@k over the teacher's filter."""
    known, k, facts = training.trainings(run), run.k, paper()["figure5"]
    here = {rho: row for rho, row in FILTER.items() if row in known}
    if len(here) < 2:
        return None
    lines, rows = [], []
    for rho, name in here.items():
        point = training.shown_point(run, name)
        avg, best = point["avg"], point["pass"].get(str(k))
        gaps = [training.gap(run, name, "pipo-opd", m) for m in ("avg", f"pass@{k}")]
        lines.append([f"{rho:g}", name, avg["seeds"], percent(avg), percent(best),
                      *(f"{interval(g, 100, 1, sign=True)}, {settled(g)}" if g else DASH for g in gaps)])  # fmt: skip
        rows.append({"source": HERE, "rho": rho, "row": name, "seeds": avg["seeds"], "avg": part(avg),
                     "pass": part(best), "avg_gap": part(gaps[0]), "pass_gap": part(gaps[1])})  # fmt: skip
    rows += [{"source": "paper", "rho": rho, "says": facts["says"]} for rho in facts["filter_rho"]]
    columns = [
        "filter",
        "row",
        "seeds",
        f"avg@{k} %",
        f"pass@{k} %",
        f"avg@{k} − at 0.5 [95%]",
        f"pass@{k} − at 0.5 [95%]",
    ]
    gone = [row for rho, row in FILTER.items() if rho not in here]
    lacking = f"{listed(gone)}; `pipo ablate training {' '.join(f'--row {r}' for r in gone)}`." if gone else ""
    note = (
        "*Filter*: share of the teacher's roll-outs that must be right for a question to be kept. The paper's figure "
        f"has no numbers; it says: {facts['says']}. Rows at threshold {training.THRESHOLD:g} on {listed(run.tasks)}."
    )
    return Exhibit("figure5", "Figure 5: the teacher's filter", rows, markdown(columns, lines, left=2), note, lacking,
                   lambda _: draw5(run, here))  # fmt: skip


def draw5(run: LoadedRun, here: Mapping[float, str]) -> Any:
    """Two panels over the filter: avg@k, pass@k."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4))
    for ax, metric in zip(figure.subplots(1, 2), ("avg", f"pass@{run.k}"), strict=True):
        points = {rho: metric_of(training.shown_point(run, name), metric) for rho, name in here.items()}
        values = [p for p in points.values() if p]
        ax.errorbar([rho for rho, p in points.items() if p], [100 * p["value"] for p in values],
                    yerr=spread(values, 100), color=DARK, marker="o", markersize=5, capsize=2.5, elinewidth=1.0,
                    linewidth=1.3)  # fmt: skip
        ax.set_xlabel("filter: right roll-outs of the teacher, share")
        ax.set_ylabel(f"avg@{run.k}, %" if metric == "avg" else f"{metric}, %")
        ax.set_xticks(list(FILTER))
        ax.set_ylim(bottom=0)
    return figure


def figure6(run: LoadedRun) -> Exhibit | None:
    """pass@k over the share of drafts not kept: the confidence gate and a coin."""
    facts, k = paper()["figure6"], run.k
    points = [p for p in run.rows if p["task"] == ALL_TASKS and p["budget"] == LOOSE]
    if not points:
        return None
    theirs = paper_points()
    gaps = {d["threshold"]: d for d in run.summary.get("differences", ())
            if (d["task"], d["budget"], d["metric"]) == (ALL_TASKS, LOOSE, f"pass@{k}")}  # fmt: skip
    by_gate = {(p["threshold"], p["gate"]): p for p in points}
    lines = []
    for threshold in sorted({p["threshold"] for p in points}):
        gate, coin = (by_gate.get((threshold, g), {}) for g in ("confidence", "random"))
        gap = gaps.get(threshold)
        paper_pad = facts["pad_ratio_at_0_95"] if threshold == 0.95 else 1.0 if threshold == 1.0 else None
        paper_pass = {0.95: facts["pass_at_threshold"]["0.95"], 1.0: facts["pass_at_threshold"]["1.0"]}.get(threshold)
        if paper_pass is None:
            continue
        lines.append([
            f"{threshold:g}", percent(gate.get("pad_ratio")),
            *(percent((p.get("pass") or {}).get(str(k))) for p in (gate, coin)),
            f"{interval(gap, 100, 1, sign=True)}, {settled(gap)}" if gap else "",
            number(paper_pad and 100 * paper_pad), number(paper_pass, 2),
        ])  # fmt: skip
    rows = [{"source": "paper", **p} for p in theirs]
    rows += [{"source": HERE, "gate": p["gate"], "threshold": p["threshold"], "pad_ratio": part(p.get("pad_ratio")),
              "pass": part((p.get("pass") or {}).get(str(k)))} for p in points]  # fmt: skip
    columns = ["threshold", "pad ratio %", f"confidence: pass@{k} %", f"coin: pass@{k} %", "confidence − coin [95%]",
               "paper: pad ratio %", "paper: pass@4 %"]  # fmt: skip
    at = facts["at_pad_ratio"]
    note = (
        f"The paper (PIPO-SFT, {MODEL}): at a pad ratio of {100 * at['ratio']:g} % {at['confidence']:.2f} by "
        f"confidence and {at['random']:.2f} at random. Here {run.summary.get('model', 'a PIPO model')} on "
        f"{listed(run.tasks)}, loose budget: compare which gate is above, and where quality begins to fall. All "
        "thresholds stand in the part *Threshold*."
    )
    gone = [f"{t:g}" for t in facts["thresholds"] if t not in {p["threshold"] for p in points}]
    lacking = f"thresholds {listed(gone)}; `pipo ablate threshold` has them." if gone else ""
    return Exhibit("figure6", "Figure 6: confidence against random", rows, markdown(columns, lines), note, lacking,
                   lambda _: draw6(run))  # fmt: skip


def paper_points() -> list[dict[str, Any]]:
    """The paper's points of figure 6, fractions."""
    facts = paper()["figure6"]
    at = facts["at_pad_ratio"]
    found = [
        ("confidence", 0.95, facts["pad_ratio_at_0_95"], facts["pass_at_threshold"]["0.95"]),
        ("confidence", 1.0, 1.0, facts["pass_at_threshold"]["1.0"]),
        ("confidence", None, at["ratio"], at["confidence"]), ("random", None, at["ratio"], at["random"]),
    ]  # fmt: skip
    return [
        {"gate": gate, "threshold": t, "pad_ratio": {"value": pad}, "pass": {"value": round(best / 100, 6)}}
        for gate, t, pad, best in found
    ]


def draw6(run: LoadedRun) -> Any:
    """One panel: pass@k over pad ratio, both gates, the paper's points as stars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6))
    ax = figure.subplots()
    for gate in ("random", "confidence"):
        some = [p for p in run.rows if p["budget"] == LOOSE and p["gate"] == gate]
        threshold_line(ax, some, gate, f"pass@{run.k}")
    for gate, colour in (("confidence", "#8c1c13"), ("random", "#d98e04")):
        of = [p for p in paper_points() if p["gate"] == gate]
        ax.plot([100 * p["pad_ratio"]["value"] for p in of], [100 * p["pass"]["value"] for p in of],
                markeredgecolor=colour, label=f"the paper's {gate} ({MODEL})", **STAR)  # fmt: skip
    ax.margins(x=0.06, y=0.16)
    ax.set_xlabel("pad ratio: drafts not kept, %")
    ax.set_ylabel(f"pass@{run.k}, all tasks, loose budget, %")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
