"""What settles a difference: its tests side by side, corrected for their number, and what an open one would need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import ALL_TASKS, LoadedRun
from reports.settle import BETTER, OPEN, WORSE, settled
from reports.text import DASH, interval, markdown, number

Row = Mapping[str, Any]

GUIDE = """\
- **p**: of the paired difference, as its interval has it. **Holm**: corrected so that even one false alarm among all
  differences of that metric comes in 5 % of reports; **BH** (Benjamini and Hochberg): so that 5 % of those below 0.05
  are false alarms, for exploring. **McNemar**: questions that only the variant : only the reference solved (with the
  first sample, or with any of the k), and the exact p of that. **bootstrap**: the interval drawn from the questions.
- **would need**: to show such a difference 4 times of 5 at 5 %, given how much questions and samples vary here."""


def section(run: LoadedRun) -> list[str]:
    """How many differences survive correction, what the open ones need, and all tests; empty for runs without p."""
    rows = quality(run.summary)
    if not rows:
        return []
    columns = [
        "variant", "against", "budget", "metric", "points [95%]", "bootstrap", "p", "Holm", "BH", "McNemar", "its p",
        "would need",
    ]  # fmt: skip
    table = markdown(columns, [_cells(d, run.k) for d in rows], left=4)
    folded = f"<details><summary>Tests of each difference</summary>\n\n{table}\n\n{GUIDE}\n\n</details>"
    bullets = "\n".join(f"- {line}" for line in spoken(run.summary))
    return ["### What is settled, and what would settle the rest", bullets, folded]


def spoken(summary: Mapping[str, Any]) -> list[str]:
    """A summary's differences over all tasks in sentences, by metric: how many hold, what the open ones would need."""
    rows, lines = quality(summary), []
    for metric in dict.fromkeys(d["metric"] for d in rows):
        family = [d for d in rows if d["metric"] == metric]
        known = [d for d in family if settled(d) in (BETTER, WORSE)]
        held = sum((d.get("p_holm") or 0.0) < 0.05 for d in known)
        name = _metric(family[0], int(summary["k"]))
        counts = f"{name}: {len(known)} of {len(family)} differences settled"
        lines.append(f"{counts}, {held} still after correction for their number (Holm)." if known else f"{counts}.")
        lines += [power(name, family)] if any(settled(d) == OPEN and d.get("power") for d in family) else []
    return lines


def quality(summary: Mapping[str, Any]) -> list[Row]:
    """The tested differences in avg and pass@k over all tasks; of a pair in both directions the first."""
    found: dict[Any, Row] = {}
    for d in summary.get("differences", ()):
        if d["task"] == ALL_TASKS and d["metric"] in ("avg", f"pass@{summary.get('k')}") and d.get("p") is not None:
            found.setdefault((frozenset((d["variant"], d.get("reference"))), d["budget"], d["metric"]), d)
    return list(found.values())


def power(name: str, rows: Sequence[Row]) -> str:
    """What the open ones among the differences of a metric (``name``) would need to be shown."""
    open_ = [d for d in rows if settled(d) == OPEN and d.get("power")]
    needs = [d["power"] for d in open_]
    questions, least = sorted(n["questions"] for n in needs), sorted(n["detectable"] for n in needs)
    text = (
        f"{name}, not settled: a difference of {100 * needs[0]['points']:g} points would need about "
        f"{_range([rounded(q) for q in questions])} questions at {needs[0]['k']} samples; the {open_[0]['n']} here "
        f"show differences from {_range([number(100 * v) for v in least])} points on."
    )
    if open_[0]["metric"] != "avg":
        return text
    enough = sorted(n["samples"] for n in needs if n["samples"])
    if not enough:
        return text + " No number of samples of these questions is enough."
    which = "" if len(enough) == len(needs) else f" for {len(enough)} of {len(needs)} differences"
    return text + f" About {_range([rounded(s) for s in enough])} samples of each would do as well{which}."


def _range(words: Sequence[str]) -> str:
    return words[0] if words[0] == words[-1] else f"{words[0]} to {words[-1]}"


def _cells(d: Row, k: int) -> list[str]:
    drawn = {"value": d["value"], "low": d.get("bootstrap_low"), "high": d.get("bootstrap_high")}
    test, need = d.get("mcnemar") or {}, d.get("power") or {}
    return [
        d["variant"], d["reference"], d["budget"], _metric(d, k), interval(d, 100, 1, sign=True),
        interval(drawn, 100, 1, sign=True).partition(" ")[2] or DASH, chance(d["p"]), chance(d.get("p_holm")),
        chance(d.get("p_bh")), f"{test['only']} : {test['only_reference']}" if test else DASH, chance(test.get("p")),
        f"{100 * need['points']:g} points: {rounded(need['questions'])} questions" if need else "",
    ]  # fmt: skip


def _metric(d: Row, k: int) -> str:
    return f"avg@{k}" if d["metric"] == "avg" else str(d["metric"])


def chance(p: float | None) -> str:
    """A p value: three digits, ``< 0.001`` below."""
    return DASH if p is None else "< 0.001" if p < 0.001 else number(p, 3)


def rounded(count: int) -> str:
    """A count up to two digits, as an estimate deserves: 2,700 of 2,623."""
    if count < 100:
        return str(count)
    step = 10 ** (len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"
