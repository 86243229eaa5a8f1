"""The training study in a report: figure, tables and words. Schema: ablations/training_summary.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures import spread
from reports.load import LoadedRun
from reports.paper import paper
from reports.settle import BETTER, OPEN, WORSE, settled
from reports.style import DARK, LIGHT, Look, looks
from reports.text import DASH, interval, listed, markdown, number, percent

Row = Mapping[str, Any]
LOOSE = "loose"
THRESHOLD = 0.95  # the paper's, at which rows are compared
PLACE = ("gate", "threshold", "keep_rate")  # what tells a row's points apart
COLUMNS = 3


def trainings(run: LoadedRun) -> dict[str, Row]:
    """Rows of the study that have results, by name, in the study's order."""
    return {t["row"]: t for t in run.summary["trainings"] if t["seeds"]}


def points(run: LoadedRun, name: str, budget: str = LOOSE) -> list[Row]:
    """A row's points under a budget."""
    return [r for r in run.rows if r["row"] == name and r["budget"] == budget]


def shown_point(run: LoadedRun, name: str) -> Row:
    """A row's point at the default threshold, or its first one."""
    found = points(run, name)
    return next((p for p in found if p["threshold"] == THRESHOLD), found[0])


def gap(run: LoadedRun, name: str, reference: str, metric: str) -> Row | None:
    """Row minus reference at the row's shown point (or of areas), loose budget; None where there is none."""
    shown = shown_point(run, name) if name in trainings(run) else {}
    for d in run.summary["differences"] if shown else ():
        at = d["gate"] == "area" if metric == "area" else all(d[p] == shown[p] for p in PLACE)
        if at and (d["row"], d["reference"], d["budget"], d["metric"]) == (name, reference, LOOSE, metric):
            found: Row = d
            return found
    return None


def point_name(point: Row) -> str:
    """``0.95``, ``coin 0.4`` or ``regular``."""
    if point["gate"] == "coin":
        return f"coin {point['keep_rate']:g}"
    return "regular" if point["gate"] == "regular" else f"{point['threshold']:g}"


def panels(run: LoadedRun) -> dict[str, list[str]]:
    """Group -> rows with a gate to draw: the rows that its rows are held against first, then its own."""
    known = trainings(run)
    out: dict[str, list[str]] = {}
    for name, training in known.items():
        if training["train"] in ("sft", "opd"):
            out.setdefault(training["group"], []).append(name)
    for group, names in out.items():
        against = [r for n in names for r in known[n]["against"] if r in known and r not in names]
        out[group] = list(dict.fromkeys([*against, *names]))
    return out


def figure(run: LoadedRun) -> Any:
    """Quality against kept share, a panel a group of rows and a line a row; rows without a gate as level lines."""
    from matplotlib.figure import Figure

    groups = panels(run)
    height = -(-len(groups) // COLUMNS)
    fig = Figure(figsize=(0.6 + 3.9 * min(COLUMNS, len(groups)), 0.3 + 4.4 * height))
    axes = fig.subplots(height, min(COLUMNS, len(groups)), squeeze=False, sharex=True, sharey=True).flat
    for (group, names), ax in zip(groups.items(), axes, strict=False):
        _levels(ax, run)
        for i, (name, look) in enumerate(looks(names).items()):
            dodge = 0.7 * (i - (len(names) - 1) / 2)  # points side by side where rows keep the same share
            found = sorted(points(run, name), key=lambda p: p["kept_share"]["value"])
            values = [p["avg"] for p in found]
            ax.errorbar(
                [100 * p["kept_share"]["value"] + dodge for p in found], [100 * v["value"] for v in values],
                yerr=spread(values, 100), label=f"{name} ({_seeds(values[0]['seeds'])})", **look.line,
            )  # fmt: skip
        ax.set_title(group or "rows")
        ax.set_ylim(bottom=0)
        ax.set_xlabel("kept share of drafts, %")
        ax.set_ylabel(f"avg@{run.k}, loose budget, %")
        ax.tick_params(labelbottom=True, labelleft=True)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=7.5, ncols=2)
    for ax in list(axes):
        ax.set_visible(False)
    return fig


def series(run: LoadedRun) -> list[str]:
    """None: each panel has looks of its own."""
    return []


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Quality over kept share, where a row has a gate."""
    return {stem: figure(run)} if panels(run) else {}


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    return {name: run.summary.get(name) for name in ("differences", "keys", "trainings")}


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _levels(ax: Any, run: LoadedRun) -> None:
    """Rows without a gate: level lines with their intervals as bands."""
    plain = [name for name, t in trainings(run).items() if t["train"] in ("none", "regular")]
    for name, (colour, dash) in zip(plain, ((LIGHT, ":"), (DARK, "--"), (DARK, "-.")), strict=False):
        avg = points(run, name)[0]["avg"]
        ax.axhline(100 * avg["value"], color=colour, linestyle=dash, linewidth=1.1, label=f"{name}, regular")
        if avg["low"] is not None:
            ax.axhspan(100 * avg["low"], 100 * avg["high"], color=colour, alpha=0.09, linewidth=0)


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The study's part of a page: figure, definitions, tables, the paper beside it, what is missing."""
    s = run.summary
    d = s["definitions"]
    parts = [
        "## What training buys",
        *(f"![Quality against kept share by way of training]({f})" for f in names),
        f"Loose budget, {listed([f'{n} items of {t}' for t, n in s['items'].items()])}, {run.k} samples an item. "
        f"± is half of the 95% interval; intervals: {s['interval']}.",
        "\n".join(
            [
                f"- **area**: {d['area']}.",
                f"- **kept at no loss, against {s['reference']}**: {d['kept_reference']}.",
                f"- **kept at no loss, against its own best**: {d['kept_best']}.",
            ]
        ),
        f"### Rows, at threshold {THRESHOLD:g}",
        rows_table(run),
        "### Differences that the rows were made for",
        differences_table(run),
        "### The paper's findings beside the lab's",
        "Another model, other tasks, no intervals in the paper: compare directions, not values.",
        paper_table(run),
    ]
    parts += [_folded("Every point of every row", points_table(run)), _folded("How each row was trained", how(run))]
    missing = missing_text(run)
    return [*parts, *([f"**Missing:** {missing}."] if missing else [])]


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def rows_table(run: LoadedRun) -> str:
    """One line a row: quality at the default threshold, best point, area, kept shares at no loss."""
    keys = {key["row"]: key for key in run.summary["keys"]}
    reference = run.summary["reference"]
    lines = []
    for name in trainings(run):
        point, key = shown_point(run, name), keys.get(name)
        avg, best = point["avg"], key["best"] if key else None
        lines.append(
            [
                name, avg["seeds"], point_name(point), percent(avg), _over_seeds(avg),
                percent(point["pass"].get(str(run.k))), _kept(point["kept_share"]),
                interval(gap(run, name, reference, "avg"), 100, 1, sign=True),
                f"{number(100 * best['avg']['value'])} ({point_name(best)})" if best else DASH,
                percent(key["area"]) if key else DASH,
                _no_loss(key, "kept_reference"), _no_loss(key, "kept_best"),
            ]
        )  # fmt: skip
    k = run.k
    columns = [
        "row", "seeds", "gate", f"avg@{k} %", "over seeds", f"pass@{k} %", "kept %", f"avg@{k} − {reference}",
        f"best avg@{k} (at)", "area %", f"kept at no loss against {reference} (at)", "… its own best (at)",
    ]  # fmt: skip
    return markdown(columns, lines)


def _over_seeds(estimate: Row) -> str:
    if estimate["seeds"] < 2:
        return DASH
    return f"{number(100 * estimate['seed_low'])} to {number(100 * estimate['seed_high'])}"


def _kept(estimate: Row | None) -> str:
    return number(100 * estimate["value"]) if estimate else DASH


def _no_loss(key: Row | None, part: str) -> str:
    if key is None:
        return DASH
    return f"{number(100 * key[part]['kept_share'])} ({point_name(key[part])})" if key[part] else "none"


def differences_table(run: LoadedRun) -> str:
    """Each row against those that its study names: avg and pass at the default threshold, and areas."""
    lines = []
    for name, training in trainings(run).items():
        for reference in (r for r in training["against"] if r in trainings(run)):
            found = [gap(run, name, reference, m) for m in ("avg", f"pass@{run.k}", "area")]
            cells = [f"{interval(g, 100, 1, sign=True)}, {settled(g)}" if g else DASH for g in found]
            lines.append([name, reference, point_name(shown_point(run, name)), *cells])
    return markdown(["row", "against", "gate", f"avg@{run.k}", f"pass@{run.k}", "area"], lines, left=3)


def paper_table(run: LoadedRun) -> str:
    """The paper's claims, what it gives for them, and the lab's difference with what it settles."""
    lines = []
    for claim in paper()["training"]:
        for metric, ours in (("avg", "avg"), ("pass", f"pass@{run.k}")):
            if metric not in claim:
                continue
            theirs, found = claim[metric], gap(run, claim["row"], claim["against"], ours)
            sign = theirs if isinstance(theirs, str) else "+" if theirs > 0 else "-"
            value = {"+": "above", "-": "below"}[theirs] if isinstance(theirs, str) else number(theirs, 2, sign=True)
            lines.append(
                [claim["says"], f"{claim['row']} − {claim['against']}", f"{metric}@{run.k}", value,
                 interval(found, 100, 1, sign=True), verdict(found, sign)]
            )  # fmt: skip
    return markdown(["the paper", "difference", "metric", "paper", "lab [95%]", "the lab"], lines, left=3)


def verdict(found: Row | None, sign: str) -> str:
    """Whether a difference confirms a direction: only where its interval leaves out 0."""
    if found is None:
        return "not measured"
    expected, other = (BETTER, WORSE) if sign == "+" else (WORSE, BETTER)
    return {expected: "confirms", other: "contradicts"}.get(settled(found), OPEN)


def points_table(run: LoadedRun) -> str:
    """Every point under both budgets."""
    lines = [
        [
            r["row"], point_name(r), r["budget"], percent(r["avg"]), _over_seeds(r["avg"]),
            percent(r["pass"].get(str(run.k))), _kept(r["kept_share"]), number(r["slots"]["value"]),
        ]
        for r in run.rows
    ]  # fmt: skip
    columns = ["row", "gate", "budget", f"avg@{run.k} %", "over seeds", f"pass@{run.k} %", "kept %", "slots"]
    return markdown(columns, lines, left=3)


def how(run: LoadedRun) -> str:
    """What each row was trained with."""
    lines = [
        [
            t["row"], t["note"], t["from"] or DASH, ", ".join(map(str, t["seeds"])) or DASH,
            number(t["tokens"], 0), number(t["steps"], 0), number(t["data_rows"], 0), number(t["wall_s"], 0),
        ]
        for t in run.summary["trainings"]
    ]  # fmt: skip
    columns = ["row", "what", "from", "seeds", "tokens", "steps", "data rows", "seconds"]
    return markdown(columns, lines, left=4)


def missing_text(run: LoadedRun) -> str:
    """Rows and seeds that are not there, and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for m in run.summary["missing"]:
        found.setdefault((m["row"], m["why"]), []).append(str(m["seed"]))
    return "; ".join(f"{row}, seed {listed(seeds)} ({why})" for (row, why), seeds in found.items())


def what(run: LoadedRun) -> str:
    """One sentence: what was run."""
    known = trainings(run)
    return (
        f"Ways of training compared over seeds, on {listed(run.tasks)}, {run.k} samples an item: {listed(list(known))}."
    )


def answer(run: LoadedRun) -> str:
    """What the study settles, in short: each row's areas against the rows that it was made to be held against."""
    by_standing: dict[str, list[str]] = {}
    for name, training in trainings(run).items():
        for reference in training["against"]:
            found = gap(run, name, reference, "area")
            if found:
                text = f"{name} − {reference} {interval(found, 100, 1, sign=True)}"
                by_standing.setdefault(settled(found), []).append(text)
    lines = [
        f"- **Training, {standing}** (area, points): {'; '.join(by_standing[standing])}."
        for standing in (BETTER, WORSE, OPEN)
        if standing in by_standing
    ]
    return "\n".join(lines)
