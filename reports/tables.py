"""Tables of a report in markdown: one function a table, each from a run's summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.settle import settled
from reports.statistics import chance
from reports.text import DASH, interval, markdown, number, percent, plus_minus, series_name, share

Row = Mapping[str, Any]
STEPS = ("tokens/slot", "tokens/step", "kept %", "tokens/s")


def comparison(run: LoadedRun, task: str, budget: str) -> str:
    """One line a variant: quality, what was cut or failed, slots, kept share, speed; ± is half of the 95% interval.

    Steps and speed are those of the whole generations, so they stand under the largest budget alone.
    """
    k = str(run.k)
    columns = ["variant", f"avg@{k} %", f"pass@{k} %", "cut %", "failed", "slots", *STEPS]
    rows = [r for r in run.rows if r["task"] == task and r["budget"] == budget]
    largest = budget == [b for b in BUDGETS if any(r["budget"] == b for r in run.rows)][-1]
    shown = len(columns) if largest else len(columns) - len(STEPS)
    return markdown(columns[:shown], [_comparison_row(r, k)[:shown] for r in rows])


def _comparison_row(row: Row, k: str) -> list[str]:
    speed = row.get("throughput") or {}
    return [
        row["variant"],
        percent(row.get("avg")),
        percent((row.get("pass") or {}).get(k)),
        percent(row.get("truncated")),
        f"{row.get('failed', 0)} of {row.get('samples', DASH)}",
        plus_minus(row.get("slots")),
        plus_minus(row.get("tokens_per_slot"), digits=2),
        plus_minus(row.get("acceptance"), digits=2),
        percent(row.get("kept_share")),
        interval(speed, digits=0, key="tokens_s"),
    ]


def _milliseconds(times: Row | None, statistic: str = "p50") -> str:
    return interval(times, 1000, 1 if times and (times.get(statistic) or 0) < 1 else 0, key=statistic)


def acceptance(run: LoadedRun) -> str:
    """Share of drafts accepted by chain position, given that all earlier ones were; empty without eagle variants."""
    rows = [r for r in run.rows if r["budget"] == BUDGETS[-1] and r.get("acceptance_by_position")]
    rows = rows or [r for r in run.rows if r.get("acceptance_by_position")]
    if len(run.tasks) == 1:
        rows = [r for r in rows if r["task"] != ALL_TASKS]
    deepest = max((len(r["acceptance_by_position"]) for r in rows), default=0)
    cells = [
        [
            r["variant"], "all tasks" if r["task"] == ALL_TASKS else r["task"],
            *(percent(e) for e in r["acceptance_by_position"]),
            *[""] * (deepest - len(r["acceptance_by_position"])), plus_minus(r.get("acceptance"), digits=2),
        ]
        for r in rows
    ]  # fmt: skip
    columns = ["variant", "task", *(f"draft {i + 1} %" for i in range(deepest)), "tokens/step"]
    return markdown(columns, cells, left=2) if cells else ""


def differences(run: LoadedRun, overall: bool) -> str:
    """Paired differences over all tasks, or task by task, a pair once: value, interval, and what it settles."""
    metrics = ("avg", f"pass@{run.k}")
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for d in run.summary.get("differences", ()):
        if d["metric"] in metrics and d["variant"] != d["reference"] and (d["task"] == ALL_TASKS) is overall:
            pair, place = (d["variant"], d["reference"]), ([] if overall else [d["task"]]) + [d["budget"]]
            if (*reversed(pair), *place) not in found:
                cell = f"{interval(d, 100, 1, sign=True)}, {settled(d)}"
                found.setdefault((*pair, *place), {})[d["metric"]] = cell
    columns = ["variant", "against", *([] if overall else ["task"]), "budget"]
    rows = [[*key, *(cells.get(m, DASH) for m in metrics)] for key, cells in found.items()]
    return markdown([*columns, *(f"{m} points [95%]" for m in (f"avg@{run.k}", metrics[1]))], rows, left=len(columns))


def failures(run: LoadedRun) -> str:
    """The failed generations that the summary names; an empty string where none failed."""
    rows = [
        [f["variant"], f["task"], f["item"], f["sample"], f["error"] or DASH] for f in run.summary.get("failures", ())
    ]
    return markdown(["variant", "task", "item", "sample", "error"], rows, left=3) if rows else ""


def threshold(run: LoadedRun) -> str:
    """Both gates at each threshold and budget, over all tasks."""
    k = str(run.k)
    order = {b: i for i, b in enumerate(BUDGETS)}
    rows = [p for p in run.rows if p["task"] == ALL_TASKS]
    rows.sort(key=lambda p: (order[p["budget"]], p["threshold"], p["gate"]))
    gaps = {
        (d["threshold"], d["budget"]): d
        for d in run.summary.get("differences", ())
        if d["task"] == ALL_TASKS and d["metric"] == f"pass@{k}"
    }
    cells = []
    for p in rows:
        gap = gaps.get((p["threshold"], p["budget"])) if p["gate"] == "confidence" else None
        gate = "coin flip" + (" (same decoding)" if p.get("reused") else "") if p["gate"] == "random" else "confidence"
        cells.append(
            [
                p["budget"], f"{p['threshold']:g}", gate, percent(p.get("pad_ratio")), percent(p.get("avg")),
                percent((p.get("pass") or {}).get(k)), plus_minus(p.get("slots")),
                f"{interval(gap, 100, 1, sign=True)}, {settled(gap)}" if gap else "",
                chance(gap.get("p_holm")) if gap else "",
            ]
        )  # fmt: skip
    columns = ["budget", "threshold", "gate", "pad ratio %", f"avg@{k} %", f"pass@{k} %", "slots"]
    return markdown([*columns, f"pass@{k}: confidence − coin [95%]", "p (Holm)"], cells, left=3)


def latency(run: LoadedRun) -> str:
    """Times at batch 1, how far they lie above the floor, and with intervals how many times faster than the reference.

    Medians, or means where the run's protocol reports means.
    """
    ratios = {(r["variant"], r.get("keep"), r["input_tokens"], r["metric"]): r for r in run.summary.get("ratios", ())}
    statistic = run.summary.get("statistic", "p50")
    rows = []
    for r in run.rows:
        key = (r["variant"], r.get("keep"), r["input_tokens"])
        rows.append(
            [
                series_name(r["variant"], r.get("keep")), r["input_tokens"],
                *(_milliseconds(r.get(f"{m}_s"), statistic) for m in ("ttft", "first_pair", "tpot16", "tpot", "step")),
                number(r.get("tokens_per_step"), 2), share(r.get("kept_share"), 0),
                number(r.get("ttft_over_floor"), 2), number(r.get("tpot_over_floor"), 2),
                *(interval(ratios.get((*key, m)), 1, 2) for m in ("ttft", "tpot16", "tpot")),
            ]
        )  # fmt: skip
    columns = [
        "variant", "input tokens", "TTFT ms", "first pair ms", "TPOT16 ms", "TPOT ms", "step ms", "tokens/step",
        "kept %", "TTFT ÷ floor", "TPOT ÷ floor", "TTFT ×", "TPOT16 ×", "TPOT ×",
    ]  # fmt: skip
    return markdown(columns, rows)


def tails(run: LoadedRun) -> str:
    """How far single trials stray: 50th, 90th and 99th percentile and mean of first token and time per token."""
    places = ("p50", "p90", "p99", "mean")
    rows = [
        [
            series_name(r["variant"], r.get("keep")), r["input_tokens"],
            *(_milliseconds(r.get(f"{m}_s"), p) for m in ("ttft", "tpot") for p in places),
        ]
        for r in run.rows
    ]  # fmt: skip
    return markdown(["variant", "input tokens", *(f"{m} {p} ms" for m in ("TTFT", "TPOT") for p in places)], rows)


def floor(run: LoadedRun) -> str:
    """What the floor allows beside what was measured, reference over variant; empty where the run has no such rows."""
    rows = [
        [
            series_name(f["variant"], f.get("keep")), f["input_tokens"],
            *(number(f.get(f"{m}_{part}"), 2) for m in ("ttft", "tpot") for part in ("allowed", "measured", "reached")),
        ]
        for f in run.summary.get("floor", ())
        if f["variant"] != run.summary.get("reference")
    ]  # fmt: skip
    parts = ("allowed", "measured", "measured ÷ allowed")
    columns = ["variant", "input tokens", *(f"{m} × {part}" for m in ("TTFT", "TPOT") for part in parts)]
    return markdown(columns, rows) if rows else ""


def machine(run: LoadedRun) -> str:
    """The rates that the floor was computed from, as one sentence; empty where the run has none."""
    m = run.summary.get("machine")
    if not m:
        return ""
    return (
        f"Floor of {m['name']}, {m['dtype']}: {number(m['bandwidth'] / 1e9)} GB/s, matrix products at "
        f"{number(m['matmul_rate'] / 1e9)} and attention at {number(m['attention_rate'] / 1e9)} GFLOP/s, "
        f"{number(m['call_s'] * 1e6)} µs a torch call, measured by the job."
    )
