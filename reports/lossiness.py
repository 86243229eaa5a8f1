"""The lossiness study in a report: distances of every method to regular decoding.

Schema: ablations/lossiness_summary.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures import spread
from reports.load import ALL_TASKS, LoadedRun
from reports.settle import OPEN, settled
from reports.style import DARK, LIGHT, Look, looks
from reports.text import DASH, folded, image, interval, listed, markdown, number, plus_minus

Row = Mapping[str, Any]
PLACES = ("all", "first", "second")


def whole(run: LoadedRun) -> str:
    """The task name of rows over everything."""
    return ALL_TASKS if len(run.tasks) > 1 else run.tasks[0]


def rows(run: LoadedRun, task: str | None = None) -> dict[tuple[str, str, str], Row]:
    """(method, model, place) -> row."""
    return {(r["method"], r["model"], r["place"]): r for r in run.rows if r["task"] == (task or whole(run))}


def methods(run: LoadedRun) -> list[tuple[str, str]]:
    """(method, model) in the run's order."""
    return list(dict.fromkeys((r["method"], r["model"]) for r in run.rows))


def what(run: LoadedRun) -> str:
    """One line: what was compared."""
    s = run.summary
    return (
        f"Next-token distributions of {listed(list(dict.fromkeys(m for m, _ in methods(run))))} held against regular "
        f"decoding of {s['base']}, on {s['texts']} of its own texts."
    )


def series(run: LoadedRun) -> list[str]:
    """None: its figure has looks of its own."""
    return []


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    return {name: run.summary.get(name) for name in ("differences", "calibration")}


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Total variation over the threshold, and what the confidence says of acceptance."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12.2, 4.6))
    axes = fig.subplots(1, 3)
    _over_threshold(axes[0], run, "all", "tv", "to regular decoding of the base: all places")
    _over_threshold(axes[1], run, "all", "twin_tv", "to the own twin at threshold 1")
    _calibration(axes[2], run)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4)
    return {stem: fig}


def _over_threshold(ax: Any, run: LoadedRun, place: str, value: str, title: str) -> None:
    """A line a PIPO model; methods without a threshold are level lines."""
    s, found = run.summary, rows(run)
    xs = list(range(len(s["thresholds"])))
    for i, (name, look) in enumerate(looks(s["models"]).items()):
        dodge = 0.08 * (i - (len(s["models"]) - 1) / 2)  # side by side where values coincide
        items = [found[f"pipo {t:g}", name, place][value] for t in s["thresholds"]]
        ax.errorbar(
            [x + dodge for x in xs], [100 * item["value"] for item in items], yerr=spread(items, 100),
            label=f"pipo, {name}", **look.line,
        )  # fmt: skip
        coin = found.get(("random", name, place))
        if coin and s["match"] in s["thresholds"]:
            at = s["thresholds"].index(s["match"]) + 0.2 + dodge
            ax.errorbar([at], [100 * coin[value]["value"]], yerr=spread([coin[value]], 100), color=look.colour,
                        marker="x", markersize=7, capsize=2.5, linestyle="none", label=f"coin, {name}")  # fmt: skip
    if value == "tv":
        for (method, model), dash in zip(
            [k for k in methods(run) if k[1] not in s["models"]], ("-.", ":", "--", (0, (1, 3))), strict=False
        ):
            level = found[method, model, place]["tv"]
            ax.axhline(100 * level["value"], color=LIGHT if method == "eagle" else DARK, linestyle=dash, linewidth=1.2,
                       label=f"{method}, {model}")  # fmt: skip
            if level["low"] is not None:
                ax.axhspan(100 * level["low"], 100 * level["high"], color=DARK, alpha=0.06, linewidth=0)
    ax.set_xticks(xs, [f"{t:g}" for t in s["thresholds"]])
    ax.set_xlim(-0.4, len(xs) - 0.6)
    ax.set_ylim(bottom=-0.3)
    ax.set_title(title)
    ax.set_xlabel("threshold")
    ax.set_ylabel("total variation, %")


def _calibration(ax: Any, run: LoadedRun) -> None:
    """Confidence against the chance that a verifier over the base would accept the draft; bars: how many drafts."""
    models = run.summary["models"]
    first = [b for b in run.summary["calibration"] if b["model"] == models[0]]
    most = max((b["drafts"] for b in first), default=0) or 1
    for b in first:
        width = 0.92 * (b["high"] - b["low"])
        ax.bar((b["low"] + b["high"]) / 2, 100 * b["drafts"] / most, width=width, color="#ececec", zorder=0)
    ax.plot([0, 1], [0, 100], color=LIGHT, linestyle=":", linewidth=1.0)
    for name, look in looks(models).items():
        at = [b for b in run.summary["calibration"] if b["model"] == name and b["confidence"]]
        items = [b["accept_reference"] for b in at]
        x = [b["confidence"]["value"] for b in at]
        ax.errorbar(x, [100 * item["value"] for item in items], yerr=spread(items, 100), **look.line)
    ax.set_title("confidence and acceptance by the base")
    ax.set_xlabel("confidence (bars: drafts of the first model)")
    ax.set_ylabel("accepted by a verifier, %")
    ax.set_xlim(0, 1.01)
    ax.set_ylim(0, 105)


def answer(run: LoadedRun) -> str:
    """Losslessness, and the best threshold of the first model beside its twin, in short."""
    s, found = run.summary, rows(run)
    check = s["lossless"]
    lines = []
    if check["places"]:
        word = "loses nothing" if check["holds"] else "**is not lossless**"
        lines.append(f"- **Lossiness**: eagle {word} (largest total variation {check['largest_tv']:.0e}).")
    model = s["models"][0]
    at = {t: found[f"pipo {t:g}", model, "all"]["tv"] for t in s["thresholds"]}
    parts = [f"{plus_minus(v, 100)} at {t:g}" for t, v in at.items()]
    lines.append(f"- **Total variation of {model} to regular decoding, %**, by threshold: {', '.join(parts)}.")
    return "\n".join(lines)


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The study's part of a page."""
    s = run.summary
    temperature = s["sampling"]["temperature"]
    parts = [
        "## Lossiness",
        f"{s['texts']} texts of regular decoding ({s['base']}, temperature {temperature:g}), read by every method: at "
        "each place all have the same text before them. TV: total variation to regular decoding there, the share of "
        "draws that must differ, percent; KL in nats. *first*: places that no draft is offered for; *second*: the "
        "others. *twin*: the same PIPO model at threshold 1: TV to regular at threshold 1 is what training and "
        "compression change, TV to the twin is what keeping drafts changes. A PIPO model reads the text as its gate "
        "would have written it.",
        *(image(name, "Total variation over threshold, and calibration") for name in names),
        _table(run, whole(run)),
        folded("What each number is", "\n".join(f"- {k}: {v}" for k, v in s["definitions"].items())),
        lossless_text(run),
        "### Differences, place by place",
        differences_table(run),
    ]
    for task in run.tasks if len(run.tasks) > 1 else ():
        parts.append(folded(task, _table(run, task)))
    return parts


def lossless_text(run: LoadedRun) -> str:
    """Whether verification loses nothing, and what it costs in acceptance."""
    check = run.summary["lossless"]
    if not check["places"]:
        return "EAGLE verified no draft here, so whether it loses anything was not tried."
    word = "loses nothing" if check["holds"] else "**loses something: a fault**"
    return (
        f"EAGLE's verification {word}: min(p, q) and the residual give back p with a total variation of at most "
        f"{check['largest_tv']:.1e} over {check['places']} verified places (limit {check['limit']:.0e}, what float32 "
        "rounds to)."
    )


def _table(run: LoadedRun, task: str) -> str:
    """One row a method and model."""
    found = rows(run, task)
    lines = [["regular", run.summary["base"], "0 (the reference)", *[DASH] * 9]]
    for method, model in methods(run):
        at = {p: found.get((method, model, p), {}) for p in (*PLACES, "draft", "after PAD")}
        whole_, second = at["all"], at["second"]
        lost = number(100 * whole_["kl_reference_infinite"], 1) if whole_["kl_reference_infinite"] else "0"
        kept = at["draft"].get("places", 0) / second["places"] if second and method.startswith("pipo") else None
        distances = [plus_minus(at[p].get("tv"), 100, 2) for p in at]
        kls = [plus_minus(whole_[name], 1, 3) for name in ("kl_reference", "kl_method")]
        rest = [plus_minus(whole_["twin_tv"], 100, 2), number(None if kept is None else 100 * kept, 0)]
        accepted = plus_minus(second.get("accept_reference"), 100)
        lines.append([method, model, *distances, *kls, lost, *rest, accepted])
    lines[0] = [*lines[0], *[DASH] * (len(lines[1]) - len(lines[0]))] if len(lines) > 1 else lines[0]
    columns = ["method", "model", "TV all", "first", "second", "kept draft", "after PAD", "KL(regular‖m)",
               "KL(m‖regular)", "infinite %", "TV to twin", "kept %", "accepted by the base %"]  # fmt: skip
    return markdown(columns, lines, left=2)


def differences_table(run: LoadedRun) -> str:
    """Total variation of one method minus another's at the same places, percentage points; bold where settled."""
    lines = []
    for d in run.summary["differences"]:
        text = interval(d, 100, 2, sign=True)
        lines.append(
            [f"{d['method']}, {d['model']}", f"{d['reference']}, {d['reference_model']}", d["says"],
             f"**{text}**" if settled(d) != OPEN else text]
        )  # fmt: skip
    return markdown(["method", "minus", "what it says", "points of TV"], lines, left=3)
