"""The answer in plain words, computed: what wins, by how much, and where the data do not settle it.

A difference counts as *better* or *worse* where its 95% interval leaves out 0, else it is *not settled*. Nothing here
knows which method ought to win.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reports.load import ALL_TASKS, BUDGETS, COMPARE, LATENCY, THRESHOLD, LoadedRun
from reports.text import interval, listed, number, share

BETTER, WORSE, OPEN = "better", "worse", "not settled"
Row = Mapping[str, Any]


def settled(item: Row | None, neutral: float = 0.0) -> str:
    """``better`` where the whole interval lies above ``neutral``, ``worse`` where below, else ``not settled``."""
    if not item or item.get("low") is None or item.get("high") is None:
        return OPEN
    return BETTER if item["low"] > neutral else WORSE if item["high"] < neutral else OPEN


def answers(runs: list[LoadedRun]) -> list[str]:
    """Markdown lines (a list) that say what the runs show; empty for no runs of a known kind."""
    latency = next((r for r in runs if r.kind == LATENCY), None)
    comparisons = [r for r in runs if r.kind == COMPARE]
    lines: list[str] = []
    for run in comparisons:
        lines += [_best(run, budget) for budget in _budgets(run)]
        for name in _challengers(run):
            lines += _variant(run, name, latency)
    if latency and not comparisons:
        for name in dict.fromkeys(r["variant"] for r in latency.summary.get("ratios", ())):
            text, _ = _batch_one(latency, name)
            lines.append(f"- **{name}**: {text}.")
    for run in runs:
        if run.kind == THRESHOLD:
            lines += _gate(run)
    return lines


def _budgets(run: LoadedRun) -> list[str]:
    present = {row["budget"] for row in run.rows}
    return [b for b in BUDGETS if b in present]


def _challengers(run: LoadedRun) -> list[str]:
    references = set(run.summary.get("references", ()))
    names = dict.fromkeys(row["variant"] for row in run.rows)
    return [name for name in names if name not in references]


def _overall(run: LoadedRun, budget: str) -> list[Row]:
    return [row for row in run.rows if row["budget"] == budget and row["task"] == ALL_TASKS]


def _difference(run: LoadedRun, variant: str, reference: str, budget: str, metric: str) -> Row | None:
    for d in run.summary.get("differences", ()):
        here = (d["variant"], d["reference"], d["task"], d["budget"], d["metric"])
        if here == (variant, reference, ALL_TASKS, budget, metric):
            found: Row = d
            return found
    return None


def points(item: Row | None) -> str:
    """A difference of shares in points, with its interval and what it settles."""
    return f"{interval(item, 100, 1, sign=True)}, {settled(item)}" if item else "no difference on record"


def _best(run: LoadedRun, budget: str) -> str:
    k = run.k
    rows = [r for r in _overall(run, budget) if (r.get("pass") or {}).get(str(k))]
    if not rows:
        return f"- {budget.capitalize()} budget: no pass@{k} on record."
    best = max(rows, key=lambda r: r["pass"][str(k)]["value"])
    name = best["variant"]
    text = f"- **{budget.capitalize()} budget, all tasks:** highest pass@{k} has **{name}**, "
    text += f"{interval(best['pass'][str(k)], 100)} %"
    others = [ref for ref in run.summary.get("references", ()) if ref != name]
    found = [(ref, _difference(run, name, ref, budget, f"pass@{k}")) for ref in others]
    parts = [f"{points(d)} against {ref}" for ref, d in found if d]
    return text + (f"; {listed(parts)}." if parts else ".")


def _variant(run: LoadedRun, name: str, latency: LoadedRun | None) -> list[str]:
    k, references = run.k, list(run.summary.get("references", ()))
    rows = [r for r in run.rows if r["variant"] == name and r["task"] == ALL_TASKS]
    kept = next((r["kept_share"] for r in rows if r.get("kept_share")), None)
    method = (rows[0].get("method") or {}).get("name", "") if rows else ""
    head = f"- **{name}** ({method}" + (f", {share(kept['value'], 0)} % of its drafts kept)" if kept else ")")
    lines, standing = [head], {}
    for budget in _budgets(run):
        found = {ref: _difference(run, name, ref, budget, f"pass@{k}") for ref in references}
        lines.append(
            f"  - {budget} budget, points of pass@{k}: "
            + "; ".join(f"{points(d)} against {ref}" for ref, d in found.items())
        )
        standing[budget] = [d for d in found.values() if d]
    batch_one, pace = _batch_one(latency, name) if latency else ("", OPEN)
    many, pace_many = _whole_batch(run, name)
    lines.append("  - speed: " + "; ".join(t for t in (batch_one, many) if t))
    pace = pace if batch_one else pace_many
    lines += [f"  - so, {budget} budget: {_conclusion(found, pace)}" for budget, found in standing.items() if found]
    return lines


def _conclusion(differences: Iterable[Row], pace: str) -> str:
    """One sentence from the least favourable of the differences and the speed."""
    worst = min(differences, key=lambda d: (WORSE, OPEN, BETTER).index(settled(d)))
    quality = settled(worst)
    low = worst.get("low")
    risk = f"a loss of up to {number(-100 * low)} points is not excluded" if low is not None and low < 0 else ""
    risk = risk or "no interval to tell"
    if quality == BETTER:
        gain = {BETTER: "better and faster: it pays", WORSE: "better but slower: quality is bought with time"}
        return gain.get(pace, "better; whether it is faster is not settled") + "."
    if quality == WORSE:
        loss = {BETTER: "faster but worse: speed is bought with quality", WORSE: "worse and slower: it does not pay"}
        return loss.get(pace, "worse, and no gain in speed is shown: it does not pay") + "."
    if pace == BETTER:
        return f"faster; its quality is not settled, {risk}."
    if pace == WORSE:
        return f"slower, and no gain in quality is shown ({risk}): it does not pay here."
    return f"neither quality nor speed is settled ({risk})."


def _batch_one(latency: LoadedRun, name: str) -> tuple[str, str]:
    """Latency of a variant at the longest input, in words, and whether it is faster than the reference."""
    ratios = [r for r in latency.summary.get("ratios", ()) if r["variant"] == name]
    if not ratios:
        is_reference = name == latency.summary.get("reference")
        return ("the reference of the latency run" if is_reference else "not in the latency run"), OPEN
    keep = None if any(r.get("keep") is None for r in ratios) else ratios[0]["keep"]
    length = max(r["input_tokens"] for r in ratios)
    at = {r["metric"]: r for r in ratios if r.get("keep") == keep and r["input_tokens"] == length}
    states = {settled(at.get(metric), 1.0) for metric in ("ttft", "tpot")}
    pace = BETTER if BETTER in states and WORSE not in states else WORSE if WORSE in states else OPEN
    forced = "" if keep is None else f", {share(keep, 0)} % of drafts kept by force"
    first, per_token = interval(at.get("ttft"), 1, 2), interval(at.get("tpot"), 1, 2)
    against = latency.summary.get("reference")
    return (
        f"batch 1, {length} tokens in{forced}: first token {first} and each token after it {per_token} "
        f"times as fast as {against}"
    ), pace


def _whole_batch(run: LoadedRun, name: str) -> tuple[str, str]:
    """Tokens per second of the whole batch against the first reference; settled where the intervals are apart."""
    rows = {r["variant"]: r for r in _overall(run, _budgets(run)[-1])}
    reference = next(iter(run.summary.get("references", ())), None)
    ours, theirs = (rows.get(n, {}).get("throughput") for n in (name, reference))
    if not ours or not theirs or not theirs.get("tokens_s"):
        return "", OPEN
    bounds = (ours.get("low"), ours.get("high"), theirs.get("low"), theirs.get("high"))
    pace = OPEN
    if None not in bounds:
        pace = BETTER if bounds[0] > bounds[3] else WORSE if bounds[1] < bounds[2] else OPEN
    word = {BETTER: "intervals apart", WORSE: "intervals apart", OPEN: "not settled"}[pace]
    batch = rows[name].get("batch")
    text = (
        f"batch {batch}: {number(ours['tokens_s'] / theirs['tokens_s'], 2)} times the tokens per second of {reference}"
    )
    return f"{text} ({word})", pace


def _gate(run: LoadedRun) -> list[str]:
    """Whether the confidence gate is better than a coin flip that keeps as many drafts."""
    lines = []
    for budget in _budgets(run):
        metric = f"pass@{run.k}"
        found = [
            d
            for d in run.summary.get("differences", ())
            if d["task"] == ALL_TASKS and d["budget"] == budget and d["metric"] == metric
        ]
        if not found:
            continue
        states = [settled(d) for d in found]
        top = max(found, key=lambda d: d["value"])
        lines.append(
            f"- **Gate, {budget} budget:** confidence against a coin flip that keeps as many, {metric}: better at "
            f"{states.count(BETTER)}, worse at {states.count(WORSE)}, not settled at {states.count(OPEN)} of "
            f"{len(found)} thresholds; largest at {top['threshold']:g}: {points(top)}."
        )
    return lines
