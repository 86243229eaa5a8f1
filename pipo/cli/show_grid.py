"""A grid study as a table for a terminal; schema in ablations/grid_summary.py."""

from __future__ import annotations

from typing import Any

from pipo.cli.output import cell, print_table
from reports import statistics
from reports.text import number

OVERALL = "overall"


def show(result: dict[str, Any]) -> None:
    """A line a point over all tasks, with what separates it from its reference; then what is settled."""
    from pipo.cli.show import mean, percent, share

    k, best = result.get("k", 0), max(result.get("pass_at") or [0])
    print(f"{result.get('question')}\n\nall tasks; percent, ± half of the 95% interval clustered by item; Δ: minus the "
          "point's reference, p corrected for all points (Holm)\n")  # fmt: skip
    rows = [r for r in result.get("rows", ()) if r["task"] == OVERALL]
    gaps = {(d["variant"], d["metric"]): d for d in result.get("differences", ()) if d["task"] == OVERALL}
    table = []
    for row in rows:
        name, speed = row["variant"], row.get("throughput") or {}
        quality = (row.get("pass") or {}).get(str(min(best, row.get("k") or best)))
        table.append(
            [
                name, percent(row.get("avg")), percent(quality), share(row.get("truncated")), mean(row.get("slots")),
                share(row.get("kept_share")), mean(row.get("acceptance"), 2), cell(speed.get("tokens_s")),
                _gap(gaps.get((name, "avg")), 100), _gap(gaps.get((name, "tokens_per_step")), 1, 2),
            ]
        )  # fmt: skip
    columns = ["point", f"avg@{k}", f"pass@{best}", "cut", "slots", "kept", "tok/step", "tok/s", "Δ avg (p)",
               "Δ tok/step (p)"]  # fmt: skip
    print_table(columns, table)
    print()
    for line in [*statistics.spoken(result), *checks(result)]:
        print(line)


def _gap(row: dict[str, Any] | None, scale: float, digits: int = 1) -> str:
    if row is None:
        return "-"
    p = row.get("p_holm")
    return f"{number(scale * row['value'], digits, sign=True)} ({'-' if p is None else statistics.chance(p)})"


def checks(result: dict[str, Any]) -> list[str]:
    """What must be equal and whether it is: greedy points token by token, sampled ones by their differences."""
    found = result.get("lossless") or []
    greedy = [c for c in found if c["same"] is not None]
    lines = [f"{c['variant']}: {c['same']} of {c['samples']} greedy samples have the tokens of {c['reference']}"
             for c in greedy]  # fmt: skip
    metrics = [m for c in found if not c["greedy"] for m in c["metrics"] if m["p_holm"] is not None]
    if metrics:
        least = min(m["p_holm"] for m in metrics)
        lines.append(
            f"lossless when sampled: {sum(m['p_holm'] < 0.05 for m in metrics)} of {len(metrics)} differences of "
            f"quality settled after correction, the smallest corrected p {statistics.chance(least)}"
        )
    return lines
