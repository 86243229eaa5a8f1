"""Studies as grids of points in a report, one section each. Schema of their summaries: ablations/grid_summary.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import grid_figure, statistics
from reports.grid_figure import axis_of, best_of, lines_of
from reports.load import ALL_TASKS, LoadedRun
from reports.paper import paper, quality_rows
from reports.settle import BETTER, WORSE, settled
from reports.style import Look
from reports.text import DASH, folded, image, interval, markdown, number, percent, plus_minus

Row = Mapping[str, Any]
STEP = "tokens_per_step"
GUIDE = """\
- A point is held against its reference, paired by question; **p** is that of the interval, **Holm** corrected for all
  points of the study, a metric at a time. **tokens/step**: of all steps after the first, as a ratio of sums.
- Points that decode the same way were generated once: smaller budgets and fewer samples are read off, exactly. Such
  points have no pace of their own. The others ran one after another, so their tokens/s hold what else the machine did
  meanwhile."""


def what(run: LoadedRun) -> str:
    """One line: what the study asks."""
    points = len(run.summary.get("points") or ())
    return f"Study {run.summary['study']}, {points} points: {run.summary['question']}"


def series(run: LoadedRun) -> list[str]:
    """The lines of its figure."""
    return list(lines_of(run))


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Metrics over the study's axis."""
    return {stem: grid_figure.figure(run, styles)}


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    checks = [{**c, "metrics": None} for c in run.summary.get("lossless") or ()]
    return {"differences": run.summary.get("differences"), "points": run.summary.get("points"), "lossless": checks}


def answer(run: LoadedRun) -> str:
    """One bullet: how many points are settled against their references, and in which metric."""
    parts = []
    for metric in ("avg", f"pass@{best_of(run)}"):
        family = [d for d in _overall(run, metric) if d["p"] is not None]
        held = [d for d in family if (d["p_holm"] or 0.0) < 0.05]
        better = sum(d["value"] > 0 for d in held)
        label = f"avg@{run.k}" if metric == "avg" else metric
        parts += [f"{label} better at {better} and worse at {len(held) - better} of {len(family)}"] if family else []
    if not parts:
        return ""
    return f"- **Study {run.summary['study']}**, points against their references, corrected: {'; '.join(parts)}."


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The study's part of a page."""
    s = run.summary
    axis = axis_of(run)
    over = f", over {grid_figure.LABELS.get(axis, axis)}" if axis else ""
    parts = [f"## Study: {s['study']}", s["question"]]
    parts += [image(name, f"Study {s['study']}: quality and pace{over}") for name in names]
    parts += [points_table(run, ALL_TASKS)]
    parts += [folded(f"{task}, point by point", points_table(run, task)) for task in run.tasks if len(run.tasks) > 1]
    accepted = acceptance(run)
    if accepted:
        parts += ["### Drafts accepted by their place in the chain", accepted]
    if s.get("differences"):
        bullets = "\n".join(f"- {line}" for line in statistics.spoken(s))
        parts += ["### Against the reference, all tasks", differences(run), *([bullets] if bullets else [])]
    checks = lossless(run)
    if checks:
        parts += ["### Must be equal, and is it?", checks]
    parts += papers(run)
    return [*parts, GUIDE]


def points_table(run: LoadedRun, task: str) -> str:
    """One line a point: quality, what was cut, slots, kept share, tokens a step, pace."""
    k, best = run.k, best_of(run)
    cells = []
    for row in (r for r in run.rows if r["task"] == task):
        speed = row.get("throughput") or {}
        cells.append(
            [
                row["variant"], percent(row.get("avg")), percent((row.get("pass") or {}).get(str(best))),
                percent(row.get("truncated")), f"{row.get('failed', 0)} of {row.get('samples', DASH)}",
                plus_minus(row.get("slots")), percent(row.get("kept_share")),
                plus_minus(row.get("acceptance"), digits=2), interval(speed, digits=0, key="tokens_s"),
            ]
        )  # fmt: skip
    columns = ["point", f"avg@{k} %", f"pass@{best} %", "cut %", "failed", "slots", "kept %", "tokens/step", "tokens/s"]
    return markdown(columns, cells)


def acceptance(run: LoadedRun) -> str:
    """Share of drafts accepted by chain position, of the points that were generated; empty without eagle."""
    made = {p["name"] for p in run.summary.get("points") or () if p["generated"]}
    rows = [r for r in run.rows if r["task"] == ALL_TASKS and r["variant"] in made and r.get("acceptance_by_position")]
    deepest = max((len(r["acceptance_by_position"]) for r in rows), default=0)
    cells = [
        [r["variant"], *(percent(e) for e in r["acceptance_by_position"]),
         *[""] * (deepest - len(r["acceptance_by_position"]))] for r in rows
    ]  # fmt: skip
    return markdown(["point", *(f"draft {i + 1} %" for i in range(deepest))], cells) if cells else ""


def _overall(run: LoadedRun, metric: str) -> list[Row]:
    found = run.summary.get("differences") or ()
    return [d for d in found if d["task"] == ALL_TASKS and d["metric"] == metric]


def differences(run: LoadedRun) -> str:
    """Every point against its reference: value, interval, bootstrap, p and corrected p, what it settles."""
    cells = []
    for metric in ("avg", f"pass@{best_of(run)}", "slots", STEP):
        scale, digits = (100, 1) if metric == "avg" or metric.startswith("pass@") else (1, 2)
        label = f"avg@{run.k}, points" if metric == "avg" else f"{metric}, points" if scale == 100 else metric
        for d in _overall(run, metric):
            drawn = {"value": d["value"], "low": d.get("bootstrap_low"), "high": d.get("bootstrap_high")}
            cells.append(
                [
                    label.replace("_", " ").replace("tokens per step", "tokens/step"), d["variant"], d["reference"],
                    interval(d, scale, digits, sign=True),
                    interval(drawn, scale, digits, sign=True).partition(" ")[2] or DASH,
                    statistics.chance(d["p"]), statistics.chance(d["p_holm"]), _words(d, scale),
                ]
            )  # fmt: skip
    columns = ["metric", "point", "against", "difference [95%]", "bootstrap", "p", "Holm", "so it is"]
    return markdown(columns, cells, left=3)


def _words(d: Row, scale: float) -> str:
    """What a difference settles; for slots and tokens a step there is no better."""
    if d["low"] == d["high"] == 0:
        return "equal"
    word = settled(d)
    if word in (BETTER, WORSE):
        word = word if scale == 100 else "more" if d["value"] > 0 else "fewer"
        return word if (d["p_holm"] or 0.0) < 0.05 else f"{word}, but not after correction"
    return word


def lossless(run: LoadedRun) -> str:
    """Points that sample from their reference's own distribution: greedy ones token by token, others by differences."""
    cells = []
    for c in run.summary.get("lossless") or ():
        avg = next((m for m in c["metrics"] if m["metric"] == "avg"), None)
        same = f"{c['same']} of {c['samples']}" if c["same"] is not None else f"{DASH} (sampled)"
        least = [m["p_holm"] for m in c["metrics"] if m["p_holm"] is not None]
        cells.append(
            [c["variant"], c["reference"], same, interval(avg, 100, 1, sign=True),
             statistics.chance(min(least)) if least else DASH]
        )  # fmt: skip
    columns = ["point", "against", "samples with the same tokens", f"avg@{run.k}, points [95%]", "smallest Holm p"]
    return markdown(columns, cells, left=2) if cells else ""


def papers(run: LoadedRun) -> list[str]:
    """What the paper has for bases of the same names, and where it has the study."""
    names = list(dict.fromkeys(p["base"] for p in run.summary.get("points") or ()))
    theirs = {name: (avg, best) for name, avg, best, _ in quality_rows(names)}
    axis = axis_of(run)
    if not theirs:
        return []
    base = theirs.get("regular")
    rows = [
        [name, number(avg, 2), number(best, 2),
         *((number(avg - base[0], 2, sign=True), number(best - base[1], 2, sign=True)) if base else ())]
        for name, (avg, best) in theirs.items()
    ]  # fmt: skip
    facts = paper()
    columns = ["the paper", "avg@4 %", "pass@4 %", *(["avg@4 − regular", "pass@4 − regular"] if base else [])]
    where = f"In the paper: {run.summary.get('paper') or 'not there'}. {facts['model']}, {facts['setting']}."
    coin = facts["threshold"]["at_pad_ratio_60"]
    if axis == "keep_rate":
        where += f" At 60 % of PADs its gate has pass@4 {coin['confidence']}, its coin {coin['random']}."
    return ["### The paper's values", where, markdown(columns, rows)]
