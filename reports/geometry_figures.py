"""Figures of the geometry study: quantities of pairs (8 to 11), the latent space (12), and where PADs fall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.figures import spread
from reports.load import LoadedRun
from reports.paper import paper
from reports.style import DARK, LIGHT, Look, looks

Row = Mapping[str, Any]
FIGURES = {
    "first_slot_jacobian_share": "8", "swap_cosine": "9", "raw_pair_cosine": "9", "cosine_to_sum": "10",
    "cosine_to_first": "10", "cosine_to_second": "10", "norm_ratio_to_sum": "10", "pad_second_cosine_to_survivor": "11",
    "pad_first_cosine_to_survivor": "11", "pad_pad_norm": "11",
}  # fmt: skip
WORDS = {
    "first_slot_jacobian_share": "first slot's share of |Jacobian|",
    "swap_cosine": "cos(C(a, b), C(b, a))",
    "raw_pair_cosine": "cos(a, b)",
    "cosine_to_sum": "cos(C(a, b), a + b)",
    "cosine_to_first": "cos(C(a, b), a)",
    "cosine_to_second": "cos(C(a, b), b)",
    "norm_ratio_to_sum": "|C(a, b)| / |a + b|",
    "pad_second_cosine_to_survivor": "cos(C(a, PAD), a)",
    "pad_first_cosine_to_survivor": "cos(C(PAD, b), b)",
    "pad_pad_norm": "|C(PAD, PAD)| / |C(a, b)|",
}
NORMS = ("norm_ratio_to_sum", "pad_pad_norm")
COLUMNS = 3


def values(run: LoadedRun) -> dict[tuple[str, str], Row]:
    """(subject, quantity) -> estimate."""
    return {(r["subject"], r["quantity"]): r["value"] for r in run.rows}


def quantities(run: LoadedRun) -> Any:
    """Figures 8 to 11: a line a quantity, a mark a compressor with its interval, a star for the paper's."""
    from matplotlib.figure import Figure

    found, facts = values(run), paper()["appendix_e"]
    subjects = list(run.summary["subjects"])
    parts = [[q for q in WORDS if q not in NORMS], list(NORMS)]
    fig = Figure(figsize=(9.4, 0.9 + 0.16 * len(subjects) * len(WORDS)))
    axes = fig.subplots(2, 1, height_ratios=[len(p) for p in parts])
    for ax, part in zip(axes, parts, strict=True):
        for i, (name, look) in enumerate(looks(subjects).items()):
            shift = 0.7 * ((i + 0.5) / len(subjects) - 0.5)
            items = [found[name, q] for q in part]
            ax.errorbar(
                [item["value"] for item in items], [j + shift for j in range(len(part))], xerr=spread(items),
                color=look.colour, marker=look.marker, linestyle="none", markersize=5, capsize=2, elinewidth=1.0,
                label=name,
            )  # fmt: skip
        ax.plot(
            [facts[q] for q in part], range(len(part)), linestyle="none", marker="*", markersize=11, color="white",
            markeredgecolor=DARK, label="paper (Qwen3.5-4B, OPD)", zorder=5,
        )  # fmt: skip
        ax.set_yticks(range(len(part)), [f"{WORDS[q]}  (fig. {FIGURES[q]})" for q in part])
        ax.set_ylim(len(part) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        for edge in range(1, len(part)):
            ax.axhline(edge - 0.5, color="#e4e4e4", linewidth=0.6)
        ax.axvline(0, color=LIGHT, linewidth=0.8)
    axes[0].axvline(1, color=LIGHT, linewidth=0.8)
    axes[0].set_xlabel("share or cosine")
    axes[1].set_xlabel("ratio of norms")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
    return fig


def space(run: LoadedRun) -> Any:
    """Figure 12: both kinds of latents on the first two components, a panel a compressor; then what they explain."""
    from matplotlib.figure import Figure

    subjects = list(run.summary["subjects"])
    height = -(-(len(subjects) + 1) // COLUMNS)
    fig = Figure(figsize=(3.7 * COLUMNS, 3.5 * height))
    axes = list(fig.subplots(height, COLUMNS, squeeze=False).flat)
    shares = {(r["subject"], r["component"]): r["share"] for r in run.summary["explained"]}
    for ax, name in zip(axes, subjects, strict=False):
        for kind, colour, marker in (("both real", DARK, "o"), ("second PAD", "#d98e04", "x")):
            at = [p for p in run.summary["points"] if p["subject"] == name and p["kind"] == kind]
            face: Any = {"facecolors": "none", "edgecolors": colour} if marker == "o" else {"color": colour}
            ax.scatter(
                [p["x"] for p in at], [p["y"] for p in at], s=16, marker=marker, linewidths=0.8, label=kind, **face
            )
        ax.set_title(name)
        ax.set_xlabel(f"component 1, {100 * shares[name, 1]:.0f} % of the variance")
        ax.set_ylabel(f"component 2, {100 * shares.get((name, 2), 0):.0f} %")
    axes[0].legend(fontsize=8)
    last = axes[len(subjects)]
    for name, look in looks(subjects).items():
        at = sorted(c for s, c in shares if s == name)
        running = [100 * sum(shares[name, c] for c in at[: i + 1]) for i in range(len(at))]
        last.plot(at, running, color=look.colour, marker=look.marker, linestyle=look.dash, markersize=4, label=name)
    last.set_title("variance explained together")
    last.set_xlabel("components")
    last.set_ylabel("%")
    last.set_ylim(0, 102)
    last.legend(fontsize=7.5)
    for ax in axes[len(subjects) + 1 :]:
        ax.set_visible(False)
    return fig


def pads(run: LoadedRun) -> Any:
    """Where PADs fall: over the answer, in runs, after kinds of tokens; and what the confidence was worth."""
    from matplotlib.figure import Figure

    entries = {entry_name(e): e for e in run.summary["pads"]}
    styles = looks(list(entries))
    fig = Figure(figsize=(11.2, 7.4))
    axes = fig.subplots(2, 2)
    _parts(axes[0][0], entries, styles)
    _runs(axes[0][1], entries, styles)
    _after(axes[1][0], entries, styles)
    _confidence(axes[1][1], entries, styles)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    return fig


def entry_name(entry: Row) -> str:
    """A variant, with its run's folder where that is another one."""
    return f"{entry['variant']}, {entry['run'].rstrip('/').rsplit('/', 1)[-1]}" if entry["run"] else entry["variant"]


def _bars(ax: Any, at: Sequence[float], items: Sequence[Row], look: Look, label: str | None = None) -> None:
    ax.errorbar(at, [100 * item["value"] for item in items], yerr=spread(items, 100), label=label, **look.line)


def _parts(ax: Any, entries: Mapping[str, Row], styles: Mapping[str, Look]) -> None:
    for i, (name, entry) in enumerate(entries.items()):
        shift = 1.2 * (i - (len(entries) - 1) / 2)
        _bars(ax, [10 * p["part"] + 5 + shift for p in entry["by_part"]], [p["pad_share"] for p in entry["by_part"]],
              styles[name], name)  # fmt: skip
    ax.set_title("PADs over the answer")
    ax.set_xlabel("part of the answer, % of its slots")
    ax.set_ylabel("drafts rejected, %")
    ax.set_ylim(0, 100)


def _runs(ax: Any, entries: Mapping[str, Row], styles: Mapping[str, Look]) -> None:
    for name, entry in entries.items():
        total = sum(r["runs"] for r in entry["runs"]) or 1
        shares = [100 * r["runs"] / total or math.nan for r in entry["runs"]]  # an axis of logarithms has no nought
        look = styles[name]
        ax.plot(range(1, len(shares) + 1), shares, color=look.colour, marker=look.marker, markersize=5, linewidth=1.4)
        p, n = entry["pad_share"]["value"], len(shares)
        alone = [100 * (1 - p) * p ** (i - 1) if i < n else 100 * p ** (n - 1) for i in range(1, n + 1)]
        ax.plot(range(1, n + 1), alone, color=look.colour, linestyle=":", linewidth=1.2)
    ax.plot([], [], color=DARK, linestyle=":", label="if each draft were rejected on its own")
    ax.legend(fontsize=8)
    ax.set_yscale("log")
    ax.set_ylim(0.03, 120)
    ax.set_title("runs of PADs")
    ax.set_xlabel("rejected drafts in a row (last: or more)")
    ax.set_ylabel("share of runs, %")


def _after(ax: Any, entries: Mapping[str, Row], styles: Mapping[str, Look]) -> None:
    kinds = list(dict.fromkeys(a["kind"] for e in entries.values() for a in e["after"]))
    for i, (name, entry) in enumerate(entries.items()):
        shift = 0.5 * ((i + 0.5) / len(entries) - 0.5)
        look = styles[name]
        items = [a["pad_share"] for a in entry["after"]]
        x = [kinds.index(a["kind"]) + shift for a in entry["after"]]
        ax.errorbar(
            x, [100 * item["value"] for item in items], yerr=spread(items, 100), color=look.colour, marker=look.marker,
            linestyle="none", capsize=2.5,
        )  # fmt: skip
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_xlim(-0.5, len(kinds) - 0.5)
    ax.set_ylim(0, 100)
    ax.grid(axis="x", visible=False)
    ax.set_title("PADs by the kind of token before them")
    ax.set_ylabel("drafts rejected, %")


def _confidence(ax: Any, entries: Mapping[str, Row], styles: Mapping[str, Look]) -> None:
    """Reliability: how often the model itself says the draft after a PAD in its place; bars: how many drafts."""
    first = next(iter(entries.values()), None)
    if first is not None:
        most = max(b["kept"] + b["rejected"] for b in first["confidence"]) or 1
        for b in first["confidence"]:
            width, x = 0.92 * (b["high"] - b["low"]), (b["low"] + b["high"]) / 2
            gone, kept = (100 * b[key] / most for key in ("rejected", "kept"))
            ax.bar(x, gone, width=width, color="#dcdcdc", zorder=0)
            ax.bar(x, kept, bottom=gone, width=width, color="#f3e2bf", zorder=0)
    ax.plot([0, 1], [0, 100], color=LIGHT, linestyle=":", linewidth=1.0)
    for name, entry in entries.items():
        told = [b for b in entry["confidence"] if b["mean"] and b["chance"]]
        _bars(ax, [b["mean"]["value"] for b in told], [b["chance"] for b in told], styles[name])
        seen = [b for b in entry["confidence"] if b["mean"] and b["agreement"]]
        ax.plot([b["mean"]["value"] for b in seen], [100 * b["agreement"]["value"] for b in seen], linestyle="none",
                marker="+", markersize=9, color=styles[name].colour)  # fmt: skip
    ax.plot([], [], linestyle="none", marker="+", color=DARK, label="rejected drafts that came next all the same")
    ax.legend(fontsize=8, loc="upper left")
    ax.set_title("confidence: what the model says after a PAD instead")
    ax.set_xlabel("confidence (bars: drafts of the first, grey rejected, light kept)")
    ax.set_ylabel("the draft, %")
    ax.set_xlim(0, 1.01)
    ax.set_ylim(0, 105)
