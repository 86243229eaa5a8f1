"""Trainings in a report: losses, what the confidence head predicts, what the gate would keep, its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.load import LoadedRun
from reports.style import COLOURS, DARK, LIGHT, Look, looks
from reports.text import markdown, number

LOSSES = {
    "backbone_loss": "backbone", "backbone_kl": "backbone", "mtp_loss": "MTP", "mtp_kl": "MTP",
    "confidence_loss": "confidence",
}  # fmt: skip
ROWS_IN_TABLE = 8


def figure(run: LoadedRun) -> Any:
    """Six panels: losses, confidence and its target, kept share by threshold, PADs, rate or gap, reliability."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(11.6, 6.6))
    axes = fig.subplots(2, 3).flat
    _losses(axes[0], run)
    _lines(axes[1], run, {"confidence": "predicted", "confidence_target": "target"}, "mean over drafts")
    axes[1].set_title("confidence against its target")
    _kept(axes[2], run)
    _lines(axes[3], run, {"pad_ratio": "pairs with a PAD", "kept": "drafts kept in roll-outs"}, "share")
    axes[3].set_title("PADs in what is trained on")
    _last(axes[4], run)
    _reliability(axes[5], run)
    for ax in list(fig.axes)[:5]:
        ax.set_xlabel("real tokens trained on, thousands")
    return fig


def _series(run: LoadedRun, key: str) -> tuple[list[float], list[float]]:
    found = [r for r in run.rows if r.get(key) is not None]
    return [r["tokens"] / 1000 for r in found], [r[key] for r in found]


def _lines(ax: Any, run: LoadedRun, names: Mapping[str, str], label: str) -> None:
    for (key, name), look in zip(names.items(), looks(list(names)).values(), strict=True):
        x, y = _series(run, key)
        if y:
            ax.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=1.3, label=name)
    ax.set_ylabel(label)
    ax.set_ylim(-0.02, 1.02)
    if ax.lines:
        ax.legend(fontsize=8)


def _losses(ax: Any, run: LoadedRun) -> None:
    known = {k: n for k, n in LOSSES.items() if any(k in r for r in run.rows)}
    for (key, name), look in zip(known.items(), looks(list(known)).values(), strict=True):
        x, y = _series(run, key)
        ax.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=1.3, label=name)
    ax.set_title("losses" if run.kind == "train-sft" else "divergence from the teacher")
    ax.set_ylabel("nats a place")
    ax.set_ylim(bottom=0)
    if known:
        ax.legend(fontsize=8)


def _kept(ax: Any, run: LoadedRun) -> None:
    keys = sorted({k for r in run.rows for k in r if k.startswith("kept@")}, key=lambda k: float(k[5:]))
    for key, colour in zip(keys, COLOURS, strict=False):
        x, y = _series(run, key)
        ax.plot(x, y, color=colour, linewidth=1.2, label=key[5:])
    if keys:
        ax.legend(fontsize=7.5, ncols=3, title="threshold", title_fontsize=7.5)
    ax.set_title("drafts that each threshold would keep")
    ax.set_ylabel("share")
    ax.set_ylim(-0.02, 1.02)


def _last(ax: Any, run: LoadedRun) -> None:
    """OPD: the gap between the engine that rolled out and the trainer; SFT: the gradient's norm."""
    key, label = ("logprob_gap", "mean gap, nats") if run.kind == "train-opd" else ("grad_norm", "norm before clipping")
    x, y = _series(run, key)
    ax.plot(x, y, color=DARK, linewidth=1.2)
    ax.set_title("engine against trainer, log-probabilities" if key == "logprob_gap" else "gradient")
    ax.set_ylabel(label)
    ax.set_yscale("log")


def _reliability(ax: Any, run: LoadedRun) -> None:
    found = run.summary.get("calibration") or {"drafts": 0, "bins": [], "ece": None}
    bins = [b for b in found["bins"] if b["count"]]
    ax.plot([0, 1], [0, 1], color=LIGHT, linestyle=":", linewidth=1.0)
    most = max((b["count"] for b in bins), default=1)
    for b in bins:
        ax.bar((b["low"] + b["high"]) / 2, b["count"] / most, width=0.09, color="#e9e9e9", zorder=0)
    ax.plot([b["confidence"] for b in bins], [b["target"] for b in bins], color=DARK, marker="o", markersize=4)
    error = "none" if found["ece"] is None else f"{found['ece']:.3f}"
    ax.set_title(f"{found['drafts']} held-out drafts, ECE {error}")
    ax.set_xlabel("confidence (bars: how many drafts, relative)")
    ax.set_ylabel("accepted, expected share")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)


def series(run: LoadedRun) -> list[str]:
    """None: panels name their lines."""
    return []


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Losses, what the gate kept, calibration."""
    return {stem: figure(run)}


def lists(run: LoadedRun) -> dict[str, Any]:
    """No further tables."""
    return {}


def answer(run: LoadedRun) -> str:
    """A training says nothing about what pays."""
    return ""


def what(run: LoadedRun) -> str:
    """One line: what was trained on what."""
    last = run.rows[-1]
    stage = "SFT" if run.kind == "train-sft" else "OPD"
    return (
        f"{stage} of {run.summary['model']} on {run.summary['data']}: {last['step']} steps, {last['tokens']:,} real "
        f"tokens, {last['seconds']:.0f} s."
    )


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The training's part of a page: figure, logged steps, calibration."""
    title = "## Training: SFT" if run.kind == "train-sft" else "## Training: OPD"
    parts = [title, what(run), *(f"![Losses, confidence and calibration]({f})" for f in names), steps_table(run)]
    found = run.summary.get("calibration")
    if found and found["drafts"]:
        lines = [[f"{k['threshold']:g}", number(100 * k["share"]), _share(k["target"])] for k in found["kept"]]
        parts += [
            "### What the gate would keep, on held-out rows",
            "*Accepted* is the expected share of the kept drafts that the target distribution would accept.",
            markdown(["threshold", "kept %", "accepted %"], lines),
        ]
    settings = ", ".join(
        f"{k} {v}" for k, v in run.run.spec.items() if v is not None and k not in ("model", "data", "out", "resume")
    )
    return [*parts, f"Settings: {settings}."]


def _share(value: float | None) -> str:
    return "–" if value is None else number(100 * value)


def steps_table(run: LoadedRun) -> str:
    """Some of the logged steps, the first and the last among them."""
    n = len(run.rows)
    picked = sorted({round(i * (n - 1) / max(1, min(n, ROWS_IN_TABLE) - 1)) for i in range(min(n, ROWS_IN_TABLE))})
    keys = ["step", "tokens", *(k for k in LOSSES if k in run.rows[-1]), "confidence", "confidence_target", "kept@0.95",
            "pad_ratio"]  # fmt: skip
    shown = [k for k in keys if any(k in r for r in run.rows)]
    lines = [[_cell(run.rows[i].get(k)) for k in shown] for i in picked]
    return markdown([k.replace("_", " ") for k in shown], lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else number(value, 3)
