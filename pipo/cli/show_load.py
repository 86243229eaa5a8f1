"""A load run as tables for a terminal. Schema of its summary: bench/load/summary.py."""

from __future__ import annotations

from typing import Any

from pipo.cli.output import cell, print_table

WORDS = {"rate": "{:g}/s", "probe": "{:g}/s", "concurrency": "{:g} at once", "trace": "trace ×{:g}"}
TIMES = (
    ("ttft", "first token"), ("first_pair", "first pair"), ("tpot", "per token"), ("gap", "gap of chunks"),
    ("itl", "gap of tokens"), ("e2e", "whole request"), ("queue", "in queue"), ("send_delay", "sent late"),
)  # fmt: skip
QUANTILES = ("p50", "p90", "p95", "p99")
Row = dict[str, Any]


def show(result: Row) -> None:
    """Rates and goodput, percentiles with intervals, ratios paired by request, and what to be wary of."""
    rows = result["rows"]
    print(_head(result))
    columns = ["variant", "load", "ok", "failed", "offered/s", "done/s", "tok/s", "TTFT p50 ms", "p99", "TPOT p50 ms"]
    columns += ["kept %"] if any(r["kept_share"] is not None for r in rows) else []
    columns += ["good %", "good/s"] if result["slo"] else []
    columns += ["right %", "cut"] if any(r["avg"] for r in rows) else []
    columns += ["W"] if any(r["energy"].get("watts") for r in rows) else []
    print_table(columns, [_line(r, columns) for r in rows], left=["load"])
    print("\nms from when a request was due, with 95% intervals\n")
    lines = [[r["variant"], load(r), word, *(_with_ends(r[key], q) for q in QUANTILES)] for key, word in TIMES
             for r in rows if r[key]]  # fmt: skip
    print_table(["variant", "load", "time", *QUANTILES], lines, left=["load", "time"])
    if result["ratios"]:
        print(f"\ntimes as fast as {result['reference']}, median over the same requests, with 95% intervals\n")
        _ratios(result)
    for found in result["found"]:
        print(f"\n{said_of_search(found, result['target_share'])}")
    for text in remarks(result):
        print(text)


def _head(result: Row) -> str:
    slo = ", ".join(f"{name} {limit:g} s" for name, limit in result["slo"].items())
    what = f"the trace {result['trace']}, lengths times {result['scale']:g}" if result["trace"] else None
    asked = what or (f"items of {result['task']}" if result["task"] else "random prompts")
    return f"{result['target']}: {asked}" + (f"; good: {slo}" if slo else "") + "\n"


def load(r: Row) -> str:
    """A row's load in words."""
    return WORDS[r["mode"]].format(r["load"])


def _line(r: Row, columns: list[str]) -> list[Any]:
    good, avg = r["goodput"], r["avg"]
    cells = {
        "variant": r["variant"], "load": load(r), "ok": f"{r['ok']}/{r['requests']}",
        "failed": cell(r["failed"] + r["timeout"]), "offered/s": cell(r["offered_s"]), "done/s": cell(r["achieved_s"]),
        "tok/s": cell(r["tokens_s"]), "TTFT p50 ms": _with_ends(r["ttft"], "p50"), "p99": _ms(r["ttft"], "p99"),
        "TPOT p50 ms": _with_ends(r["tpot"], "p50"),
        "kept %": "-" if r["kept_share"] is None else f"{100 * r['kept_share']:.0f}",
        "good %": "-" if not good else f"{100 * good['share']['value']:.1f}",
        "good/s": cell(good["rate_s"]) if good else "-",
        "right %": "-" if not avg else f"{100 * avg['value']:.1f}",
        "W": cell(r["energy"].get("watts")), "cut": r["cut"],
    }  # fmt: skip
    return [cells[c] for c in columns]


def _ms(times: Row | None, q: str) -> str:
    return f"{1000 * times[q]['value']:.3g}" if times and times.get(q) else "-"


def _with_ends(times: Row | None, q: str) -> str:
    value = (times or {}).get(q)
    if value is None:
        return "-"
    if value["low"] is None:
        return f"{1000 * value['value']:.3g}"
    return f"{1000 * value['value']:.3g} [{1000 * value['low']:.3g}, {1000 * value['high']:.3g}]"


def _ratios(result: Row) -> None:
    modes = {r["point"]: load(r) for r in result["rows"]}
    names = {"ttft": "first token", "first_pair": "first pair", "tpot": "per token", "e2e": "whole request"}
    lines: dict[str, dict[str, str]] = {}
    for r in result["ratios"]:
        ends = "" if r["low"] is None else f" [{r['low']:.2f}, {r['high']:.2f}]"
        lines.setdefault(r["point"], {"variant": r["variant"]})[r["metric"]] = f"{r['value']:.2f}{ends}"
    print_table(
        ["variant", "load", *names.values()],
        [[v["variant"], modes[point], *(v.get(m, "-") for m in names)] for point, v in lines.items()], left=["load"],
    )  # fmt: skip


def said_of_search(found: Row, target: float) -> str:
    """What a search found, in a sentence."""
    name, rate, share = found["variant"], found["rate"], found["share"]
    if rate is None:
        return f"{name}: no rate tried keeps {100 * target:g}% within the SLO, not even {found['next']:g}/s"
    ends = "" if share["low"] is None else f" [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
    beyond = "no higher one was tried" if found["next"] is None else f"{found['next']:g}/s does not"
    return f"{name}: {rate:g} requests/s keep the SLO for {100 * share['value']:.1f}%{ends} of them; {beyond}"


def remarks(result: Row) -> list[str]:
    """What failed, what energy was read, what the client costs, and warnings, a line each."""
    out = []
    for r in result["rows"]:
        where = f"{r['variant']}, {load(r)}"
        out += [f"{where}: {x['count']} failed: {x['error']}" for x in r["reasons"]]
        if r["counted"] == "chunks":
            out.append(f"{where}: the endpoint does not tell the tokens of a chunk; times between tokens are a guess")
        out += [f"{where}: {text}" for text in r["warnings"]]
    energies = [r["energy"] for r in result["rows"]]
    for why in dict.fromkeys(e.get("why") for e in energies if e.get("why")):
        out.append(f"power and energy: {why}")
    out += [
        f"{r['variant']}, {load(r)}: {e['joules']:.3g} J, {e['watts']:.3g} W ({e['source']})"
        for r, e in zip(result["rows"], energies, strict=True)
        if e.get("joules") is not None
    ]
    for c in result["client"]:
        out.append(
            f"client ({c['side']}) against what answers at once: {1000 * c['request_s']['p50']:.3g} ms a request, "
            f"{1e6 * c['chunk_s']:.3g} µs of CPU a chunk, sent {1000 * c['send_delay_s']['p50']:.3g} ms late (p50), "
            f"{1000 * c['send_delay_s']['p99']:.3g} ms (p99)"
        )
    return ["", *out, *result["notes"]] if out or result["notes"] else []
