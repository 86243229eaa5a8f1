"""``pipo report diff``: what changed from one run to another, in words and tables. Computed by ``bench.diff``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.settle import WORSE
from reports.statistics import chance
from reports.text import DASH, folded, interval, markdown, number

Row = Mapping[str, Any]
WORDS = {"ttft": "TTFT", "first_pair": "first pair", "tpot16": "TPOT16", "tpot": "TPOT", "e2e": "whole answer"}
HEADS = {"latency": ["variant", "input tokens"], "load": ["variant", "load"]}
GUIDE = """\
- **B − A**: in points of quality, else in slots or tokens; **B ÷ A**: of medians (means by the paper's protocol),
  above 1 is slower. In brackets the interval; *better* and *worse*: it leaves out no difference. **p**: of no
  difference. **Holm**: corrected for the number of rows that decide.
- **paired**: the same questions on both sides, so their difficulty drops out. **unpaired**: other questions; errors
  are clustered by question on each side, and much larger.
- **cut**: by the budget, in whole samples; cut and failed ones count as wrong. **drafts kept**: the others are PADs.
  A → B where they differ.
- **McNemar**: questions that only B : only A solved, with each sample (avg) or any of the first k (pass@k), exact p.
  **bootstrap**: the interval drawn from the questions, 95%. **shows from**: the least difference that runs of this size
  would show 4 times of 5."""


def diff(old: Path, new: Path, **settings: Any) -> dict[str, Any]:
    """Compare two run folders; ``settings``: those of ``bench.diff.Settings``; the result is ``bench.diff.compare``'s.

    Raises:
        BadInput: runs that do not compare, a setting out of range. BadRecord: a folder that is no finished run.
    """
    from bench.diff import Settings, compare

    return compare(old, new, Settings(**settings))


def page(found: Mapping[str, Any]) -> str:
    """The whole diff as markdown."""
    rows = found["rows"]
    parts = ["# Two runs compared", f"A: `{found['a']}`\n\nB: `{found['b']}`", verdict(found)]
    parts += [markdown(*table(found, [r for r in rows if r["decides"]]), left=left(found))]
    single = [r for r in rows if not r["decides"]]
    if single:
        parts.append(folded("Task by task", markdown(*table(found, single), left=left(found))))
    tests = [_tests(r, found["k"]) for r in rows if r["decides"] and (r.get("mcnemar") or r.get("bootstrap_low"))]
    if tests:
        parts.append(folded("Tests of each difference", markdown(TESTS, tests, left=3)))
    if found["counts"]:
        parts.append(markdown(COUNTS, lost(found), left=2))
    if found["notes"]:
        parts.append("\n".join(f"- {note}" for note in found["notes"]))
    parts += ["## What else differs", changes(found), "## How to read this", GUIDE]
    return "\n\n".join(parts) + "\n"


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence: whether it got worse, by which rule."""
    rows = [r for r in found["rows"] if r["decides"]]
    failed = [r for r in rows if r["failed"]]
    by = _margin(found["margin"], rows)
    if found["non_inferiority"]:
        rule = f"not worse by {by}, at level {1 - found['alpha']:g}"
        if not failed:
            return f"**Shown for all {len(rows)} comparisons:** {rule}."
        return f"**Not shown for {len(failed)} of {len(rows)} comparisons** ({rule}): {_named(failed, found['k'])}."
    rule = f"by more than {by} " if found["margin"] else ""
    if failed:
        return f"**Worse:** {len(failed)} of {len(rows)} comparisons, {rule}after Holm: {_named(failed, found['k'])}."
    settled = {word: sum(r["settled"] == word for r in rows) for word in ("better", "worse", "not settled")}
    counts = ", ".join(f"{n} {word}" for word, n in settled.items() if n)
    text = f"**No settled worsening** {rule}among {len(rows)} comparisons ({counts}, each by its own interval)."
    return f"{text} {_risk(rows, found['k'])}".rstrip()


def _risk(rows: Sequence[Row], k: int) -> str:
    """The largest loss of quality that an interval does not leave out."""
    known = [r for r in rows if _quality(r) and r["low"] is not None and r["low"] < 0]
    if not known:
        return ""
    least = min(known, key=lambda r: r["low"])
    return f"Not excluded: a loss of {number(-100 * least['low'])} points ({_variant(least)}, {metric(least, k)})."


def _margin(margin: float, rows: Sequence[Row]) -> str:
    """The margin in the units of what is compared."""
    kinds = {_quality(r) for r in rows}
    words = {True: f"{margin:g} points", False: f"{margin:g} %"}
    return words[kinds.pop()] if len(kinds) == 1 else f"{words[True]} ({words[False]} of slots and tokens)"


def _named(rows: Sequence[Row], k: int) -> str:
    return "; ".join(f"{_variant(r)} {_place(r)} {metric(r, k)} {gap(r)}" for r in rows)


def left(found: Mapping[str, Any]) -> int:
    """How many columns of ``table`` are text."""
    return len(_heads(found)) + 1


def _heads(found: Mapping[str, Any]) -> list[str]:
    return HEADS.get(found["kind"], ["variant", "task", "budget"])


def table(found: Mapping[str, Any], rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and lines of the differences."""
    gaps = {"latency": "B ÷ A", "load": "B ÷ A, B − A"}.get(found["kind"], "B − A")
    level = f"[{100 * (1 - found['alpha']):g}%]"
    columns = [
        *_heads(found),
        "metric",
        "A",
        "B",
        f"{gaps} {level}",
        "how",
        "p",
        "Holm",
        "so B is",
    ]
    return columns, [
        [
            _variant(r), *_where(r), metric(r, found["k"]),
            _value(r, "a"), _value(r, "b"), gap(r), r["how"], chance(r["p"]), chance(r["p_holm"]), _so(r, found),
        ]
        for r in rows
    ]  # fmt: skip


def _so(r: Row, found: Mapping[str, Any]) -> str:
    if found["non_inferiority"] and r["decides"]:
        return f"{r['settled']}, {'not shown to be within' if r['failed'] else 'within'} the margin"
    if r["failed"]:
        return "worse, fails"
    if r["settled"] != WORSE or not r["decides"]:
        return str(r["settled"])
    return f"worse, {'within the margin' if r['p_margin'] == 1.0 else 'not after Holm'}"


def _variant(r: Row) -> str:
    return r["variant"] if r["variant"] == r["was"] else f"{r['was']} → {r['variant']}"


def _task(r: Row) -> str:
    return "all tasks" if r["task"] == "overall" else str(r["task"])


def _where(r: Row) -> list[str]:
    """The cells that say at which point a row was measured."""
    if "load" in r:
        return [f"{r['load']:g} {LOADS[r['mode']]}"]
    return [str(r["input_tokens"])] if "input_tokens" in r else [_task(r), r["budget"]]


def _place(r: Row) -> str:
    if "load" in r:
        return f"at {_where(r)[0]},"
    return f"after {r['input_tokens']} tokens," if "input_tokens" in r else f"on {_task(r)}, {r['budget']} budget,"


def metric(r: Row, k: int) -> str:
    """``avg@4``, ``pass@4``, ``slots``, ``TTFT``."""
    if r["metric"] == "ok":
        return "ended well"
    return f"avg@{k}" if r["metric"] == "avg" else WORDS.get(r["metric"], str(r["metric"]))


def _quality(r: Row) -> bool:
    return r["metric"] in ("avg", "ok") or r["metric"].startswith("pass@")


def _value(r: Row, side: str) -> str:
    if r["metric"] in WORDS:
        return f"{number(1000 * r[side], 3 if r[side] < 0.01 else 1 if r[side] < 1 else 0)} ms"
    return f"{number(100 * r[side])} %" if _quality(r) else number(r[side])


def gap(r: Row) -> str:
    """The difference or ratio with its interval."""
    if r["metric"] in WORDS:
        return interval(r, 1, 3)
    return interval(r, 100 if _quality(r) else 1, 1, sign=True)


LOADS = {"rate": "a second", "probe": "a second", "concurrency": "at once", "trace": "times as fast as recorded"}
COUNTS = ["variant", "budget", "samples", "cut %", "failed", "drafts kept %"]
TESTS = ["variant", "budget", "metric", "bootstrap [95%]", "McNemar", "its p", "shows from"]


def lost(found: Mapping[str, Any]) -> list[list[str]]:
    """Lines of ``COUNTS``, A → B: what was cut or failed counts as wrong; drafts that were not kept are PADs."""
    return [
        [
            _variant(c), c["budget"], *_moved([str(n) for n in c["samples"]]), *_moved(_shares(c["cut"], c["samples"])),
            *_moved([str(n) for n in c["failed"]]), *_moved(_shares(c["kept"], c["offered"])),
        ]
        for c in found["counts"]
    ]  # fmt: skip


def _shares(some: Sequence[int], of: Sequence[int]) -> list[str]:
    return [number(100 * n / m) if m else DASH for n, m in zip(some, of, strict=True)]


def _moved(sides: Sequence[str]) -> list[str]:
    """One cell: both sides, or the one value that they share."""
    return [sides[0] if sides[0] == sides[1] else " → ".join(sides)]


def _tests(r: Row, k: int) -> list[str]:
    scale = 100 if _quality(r) else 1
    drawn = {"value": r["value"], "low": r["bootstrap_low"], "high": r["bootstrap_high"]}
    tests, least = r["mcnemar"] or [], r["detectable"]
    return [
        _variant(r), r["budget"], metric(r, k), interval(drawn, scale, 1, sign=True).partition(" ")[2] or DASH,
        ", ".join(f"{t['only']} : {t['only_reference']}" for t in tests) or DASH,
        ", ".join(chance(t["p"]) for t in tests) or DASH, f"{number(scale * least)} points" if least else DASH,
    ]  # fmt: skip


def changes(found: Mapping[str, Any]) -> str:
    """What of settings, models, versions, commit and device differs, as a table; or that nothing does."""
    rows = [[c["what"], _plain(c["a"]), _plain(c["b"])] for c in found["changed"]]
    return markdown(["", "A", "B"], rows, left=3) if rows else "Nothing: settings, models, versions, commit and device."


def _plain(value: Any) -> str:
    return DASH if value is None else str(value)
