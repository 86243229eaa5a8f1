"""Results of jobs as short tables for a terminal; the full story is `pipo report`. Schemas: bench/summary.py."""

from __future__ import annotations

from typing import Any

from pipo.cli import data, rollouts, show_looks
from pipo.cli.bench_map import show as map_
from pipo.cli.output import cell, print_table
from pipo.cli.show_grid import show as grid
from pipo.cli.show_load import show as load
from pipo.cli.show_training import show as training
from reports import statistics
from reports.text import interval, lopsided

ALL_TASKS = "overall"
BUSY = 0.2  # share of the wall clock spent waiting for a CPU from which a machine counts as busy


def percent(estimate: dict[str, Any] | None) -> str:
    """An estimate of a share as ``47.3 ±3.1`` in percent (half of its 95% interval, or both ends); ``-`` for none."""
    if not estimate or estimate.get("value") is None:
        return "-"
    if lopsided(estimate):
        return interval(estimate, 100)
    value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
    spread = f" ±{50 * (high - low):.1f}" if low is not None and high is not None else ""
    return f"{100 * value:.1f}{spread}"


def mean(estimate: dict[str, Any] | None, digits: int = 1) -> str:
    """An estimate's value alone."""
    return f"{estimate['value']:.{digits}f}" if estimate and estimate.get("value") is not None else "-"


def milliseconds(times: dict[str, Any] | None, statistic: str = "p50") -> str:
    """A time in milliseconds: its median, or another statistic of it."""
    return f"{1000 * times[statistic]:.1f}" if times and times.get(statistic) is not None else "-"


def share(value: Any) -> str:
    """A plain share or an estimate of one, in percent."""
    if isinstance(value, dict):
        value = value.get("value")
    return f"{100 * value:.0f}" if value is not None else "-"


def compare(result: dict[str, Any]) -> None:
    """A comparison or evaluation: one table per budget, a line for each variant over all tasks, then task by task."""
    if result.get("unjudged"):
        print(f"{result['unjudged']} samples are generated and not judged; `pipo eval score JOB` judges them")
        return
    k = result.get("k", 0)
    for budget in ("tight", "loose"):
        rows = [r for r in result.get("rows", ()) if r.get("budget") == budget]
        if len({r["task"] for r in rows}) == 2:  # one task: its mean over tasks is itself
            rows = [r for r in rows if r["task"] != ALL_TASKS]
        if not rows:
            continue
        print(f"{budget} budget of slots; percent, ± half of the 95% interval clustered by item\n")
        columns = ["variant", "task", f"avg@{k}", f"pass@{k}", "cut", "slots", "kept", "tok/s", "failed"]
        rows.sort(key=lambda r: r["task"] != ALL_TASKS)
        print_table(columns, [_compare_row(r, k) for r in rows], left=["task"])
        print()
    for line in statistics.spoken(result):
        print(line)
    for task, scored in (result.get("scoring") or {}).get("tasks", {}).items():
        if scored["waited_s"] is not None and scored["waited_s"] > BUSY * scored["wall_s"]:
            print(f"{task}: a busy machine; programs waited for a CPU in {cell(scored['waited_s'])} s of "
                  f"{cell(scored['wall_s'])} s (scores do not depend on it)")  # fmt: skip


def _compare_row(row: dict[str, Any], k: int) -> list[str]:
    speed = row.get("throughput") or {}
    return [
        row["variant"],
        row["task"],
        percent(row.get("avg")),
        percent((row.get("pass") or {}).get(str(k))),
        share(row.get("truncated")),
        mean(row.get("slots")),
        share(row.get("kept_share")),
        cell(speed.get("tokens_s")),
        cell(row.get("failed")),
    ]


def latency(result: dict[str, Any]) -> None:
    """A latency run: medians (or means), times over the floor, and how many times faster than the reference."""
    ratios = {(r["variant"], r.get("keep"), r["input_tokens"], r["metric"]): r for r in result.get("ratios", ())}

    def times_faster(row: dict[str, Any], metric: str) -> str:
        ratio = ratios.get((row["variant"], row.get("keep"), row["input_tokens"], metric))
        if not ratio:
            return "-"
        interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        return f"{ratio['value']:.2f}{interval}"

    statistic, tpot = result.get("statistic", "p50"), result.get("tpot", "tpot")
    word = "means" if statistic == "mean" else "medians"
    on = f" on a random model of shape {result['shape']}" if result.get("shape") else ""
    print(
        f"batch 1{on}, {word} of {result.get('trials')} trials; floor: least time by this machine's rates; "
        f"ratio: {result.get('reference')} over the variant\n"
    )
    print_table(
        [
            "variant", "input", "TTFT ms", "TPOT16 ms", "TPOT ms", "step ms", "tok/step", "kept", "TTFT/floor",
            "TPOT/floor", "TTFT ratio", f"{tpot.upper()} ratio",
        ],
        [
            [
                r["variant"] if r.get("keep") is None else f"{r['variant']}, keep {r['keep']:g}",
                r["input_tokens"],
                *(milliseconds(r.get(f"{m}_s"), statistic) for m in ("ttft", "tpot16", "tpot", "step")),
                cell(r.get("tokens_per_step")), share(r.get("kept_share")), cell(r.get("ttft_over_floor")),
                cell(r.get("tpot_over_floor")), times_faster(r, "ttft"), times_faster(r, tpot),
            ]
            for r in result.get("rows", ())
        ],
    )  # fmt: skip


def threshold(result: dict[str, Any]) -> None:
    """The threshold ablation: confidence gate and random gate at the same pad ratio, over all tasks."""
    k = result.get("k", 0)
    for budget in ("tight", "loose"):
        points = [p for p in result.get("points", ()) if p.get("budget") == budget and p.get("task") == ALL_TASKS]
        if not points:
            continue
        print(f"{budget} budget, all tasks; percent, ± half of the 95% interval clustered by item\n")
        print_table(
            ["threshold", "gate", "pad ratio", f"avg@{k}", f"pass@{k}", "slots"],
            [
                [
                    f"{p['threshold']:g}", p["gate"], share(p.get("pad_ratio")), percent(p.get("avg")),
                    percent((p.get("pass") or {}).get(str(k))), mean(p.get("slots")),
                ]
                for p in points
            ],
            left=["gate"],
        )  # fmt: skip
        print()


def plain(result: dict[str, Any]) -> None:
    """Any other result: its single values, one a line; nested ones as a count."""
    for key, value in result.items():
        if isinstance(value, dict) and all(not isinstance(v, list | dict) for v in value.values()):
            text = ", ".join(f"{k} {cell(v)}" for k, v in value.items())
        elif isinstance(value, list | dict):
            text = f"{len(value)} entries (--json shows them)"
        else:
            text = cell(value)
        print(f"{key.replace('_', ' ')}: {text}")


BY_KIND = {
    "compare": compare, "eval": compare, "merge": compare,
    "latency": latency, "load": load, "map": map_, "ablate-threshold": threshold,
    "ablate-grid": grid, "ablate-geometry": show_looks.geometry, "ablate-lossiness": show_looks.lossiness,
    "ablate-training": training, "rollouts": rollouts.show, "data-cache": data.show_cache, "data-show": data.show_file,
}  # fmt: skip


def for_kind(kind: str) -> Any:
    """The function that prints a result of this kind of job."""
    return BY_KIND.get(kind, plain)
