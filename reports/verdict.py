"""The answer in plain words, computed: what wins, by how much, and where the data do not settle it.

A difference counts as *better* or *worse* where its 95% interval leaves out 0, else it is *not settled*. A speed is
*about the same* where its whole interval lies within 5% of the reference. Nothing here knows which method ought to win.

A variant is judged against the reference with the same model, where there is one (eagle on the base model: only the
method differs); otherwise against every reference, and the least favourable difference decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.kinds import COMPARE, LATENCY, THRESHOLD
from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.pace import Pace, batch_one, whole_batch
from reports.settle import BETTER, OPEN, WORSE, settled
from reports.text import interval, listed, markdown, number, share

Row = Mapping[str, Any]


def answers(runs: list[LoadedRun]) -> list[str]:
    """Blocks of markdown (bullets, then a table) that say what the runs show."""
    latency = next((r for r in runs if r.kind == LATENCY), None)
    comparisons = [r for r in runs if r.kind == COMPARE]
    bullets, table_blocks = [], []
    for run in comparisons:
        bullets += [_best(run, budget) for budget in budgets_of(run)]
        bullets += [_challenger(run, name, latency) for name in challengers(run)]
        table_blocks.append(_standing(run, latency))
    if latency and not comparisons:
        bullets += [_latency_alone(latency, n) for n in dict.fromkeys(r["variant"] for r in latency.rows)]
    for run in runs:
        if run.kind == THRESHOLD:
            bullets += _gate(run)
    return ["\n".join(b for b in bullets if b), *(t for t in table_blocks if t)]


def budgets_of(run: LoadedRun) -> list[str]:
    """The budgets that a run has rows for, tight first."""
    present = {row["budget"] for row in run.rows}
    return [b for b in BUDGETS if b in present]


def challengers(run: LoadedRun) -> list[str]:
    """The variants that are no reference, in the run's order."""
    references = set(run.summary.get("references", ()))
    return [name for name in dict.fromkeys(row["variant"] for row in run.rows) if name not in references]


def judged_against(run: LoadedRun, name: str) -> list[str]:
    """The references that a variant is judged against; see the module's docstring."""
    models = {row["variant"]: row.get("model") for row in run.rows}
    references = [r for r in run.summary.get("references", ()) if r in models and r != name]
    return [r for r in references if models[r] == models[name]] or references


def _difference(run: LoadedRun, variant: str, reference: str, budget: str) -> Row | None:
    wanted = (variant, reference, ALL_TASKS, budget, f"pass@{run.k}")
    for d in run.summary.get("differences", ()):
        if (d["variant"], d["reference"], d["task"], d["budget"], d["metric"]) == wanted:
            found: Row = d
            return found
    return None


def points(item: Row | None) -> str:
    """A difference of shares in points, with its interval and what it settles."""
    return f"{interval(item, 100, 1, sign=True)}, {settled(item)}" if item else "no difference on record"


def _best(run: LoadedRun, budget: str) -> str:
    k = str(run.k)
    rows = [r for r in run.rows if r["budget"] == budget and r["task"] == ALL_TASKS and (r.get("pass") or {}).get(k)]
    if not rows:
        return ""
    best = max(rows, key=lambda r: r["pass"][k]["value"])
    name = best["variant"]
    equal = [r["variant"] for r in rows if r["pass"][k]["value"] == best["pass"][k]["value"]]
    if len(equal) > 1:
        return f"- **{budget.capitalize()} budget, all tasks:** {listed(equal)} share the highest pass@{k}, " + (
            f"{interval(best['pass'][k], 100)} %."
        )
    text = f"- **{budget.capitalize()} budget, all tasks:** the highest pass@{k} has **{name}**, "
    text += f"{interval(best['pass'][k], 100)} %"
    references = [r for r in run.summary.get("references", ()) if r != name]
    found = [(r, _difference(run, name, r, budget)) for r in references]
    parts = [f"{interval(d, 100, 1, sign=True)} points against {r} ({settled(d)})" for r, d in found if d]
    return text + (f": {listed(parts)}." if parts else ".")


def _kept(run: LoadedRun, name: str) -> Row | None:
    rows = (r for r in run.rows if r["variant"] == name and r["task"] == ALL_TASKS)
    return next((r["kept_share"] for r in rows if r.get("kept_share")), None)


def _challenger(run: LoadedRun, name: str, latency: LoadedRun | None) -> str:
    against, kept = judged_against(run, name), _kept(run, name)
    pace = pace_of(run, name, latency)
    parts = []
    for budget in budgets_of(run):
        found = [d for d in (_difference(run, name, r, budget) for r in against) if d]
        if found:
            parts.append(f"under the {budget} budget {conclusion(found, pace)}")
    if not parts:
        return ""
    if verified(run, name, against):
        found = [d for d in (_difference(run, name, against[0], b) for b in budgets_of(run)) if d]
        gaps = "; ".join(f"{d['budget']} budget {points(d)}" for d in found if settled(d) != OPEN)
        chance = f"; what seems to differ ({gaps}) is chance or float rounding" if gaps else ""
        parts = [f"it draws from the same distribution, so only speed is open: **{pace.said}**{chance}"]
    share_text = f", {share(kept['value'], 0)} % of its drafts kept" if kept else ""
    return f"- **{name}**, judged against {listed(against)}{share_text}: {'; '.join(parts)}. {pace.text}".rstrip()


def verified(run: LoadedRun, name: str, against: Sequence[str]) -> bool:
    """Whether a variant is EAGLE on its reference's own model: then its quality is the reference's, whatever is seen.

    tests/unit/test_decode_lossless.py proves that of the engine.
    """
    ways = {v.name: (v.model, v.method.name) for v in run.run.variants}
    model, method = ways.get(name, ("", ""))
    return method == "eagle" and len(against) == 1 and ways.get(against[0]) == (model, "regular")


def pace_of(run: LoadedRun, name: str, latency: LoadedRun | None) -> Pace:
    """The speed of a variant: at batch 1 where it was measured there, else of the whole batch; the text says both."""
    many = whole_batch(run, name)
    if latency is None:
        return many
    one = batch_one(latency, name)
    both = " ".join(t for t in (one.text, many.text) if t)
    return Pace(one.word, both, one.parts) if one.text else many


def conclusion(differences: Sequence[Row], pace: Pace) -> str:
    """Half a sentence from the least favourable of the differences and from the speed."""
    least = min(differences, key=lambda d: (WORSE, OPEN, BETTER).index(settled(d)))
    quality, low = settled(least), least.get("low")
    if quality == BETTER:
        end = {BETTER: ": it pays", WORSE: ": quality is bought with time"}.get(pace.word, "")
        return f"**better {'but' if pace.word == WORSE else 'and'} {pace.said}{end}**"
    if quality == WORSE:
        end = {BETTER: ": speed is bought with quality"}.get(pace.word, ": it does not pay")
        return f"**worse {'but' if pace.word == BETTER else 'and'} {pace.said}{end}**"
    risk = "there is no interval" if low is None else "no loss within the interval"
    if low is not None and low < 0:
        risk = f"a loss of up to {number(-100 * low)} points is not excluded"
    end = ": no gain is shown" if pace.word == WORSE else ""
    return f"**{pace.said}{end}; its quality is not settled** ({risk})"


def _standing(run: LoadedRun, latency: LoadedRun | None) -> str:
    """Challengers against every reference: quality under each budget, kept share, speed."""
    references, budgets = list(run.summary.get("references", ())), budgets_of(run)
    columns = ["variant", "kept %"]
    columns += [f"{budget}: pass@{run.k} against {ref}" for budget in budgets for ref in references]
    rows = []
    for name in challengers(run):
        kept = _kept(run, name)
        cells = [name, share(kept["value"], 0) if kept else "–"]
        for budget in budgets:
            cells += [points(_difference(run, name, ref, budget)) for ref in references]
        rows.append(cells)
    return markdown(columns, rows) if rows and references else ""


def _latency_alone(latency: LoadedRun, name: str) -> str:
    pace = batch_one(latency, name)
    return f"- **{name}**: {pace.said}. {pace.text}" if pace.text else ""


def _gate(run: LoadedRun) -> list[str]:
    """Whether the confidence gate is better than a coin flip that keeps as many drafts."""
    said: dict[str, list[str]] = {}
    metric = f"pass@{run.k}"
    for budget in budgets_of(run):
        found = [
            d
            for d in run.summary.get("differences", ())
            if d["task"] == ALL_TASKS and d["budget"] == budget and d["metric"] == metric
        ]
        if not found:
            continue
        states = [settled(d) for d in found]
        top = max(found, key=lambda d: d["value"])
        counts = [f"{word} at {states.count(word) or 'none'}" for word in (BETTER, WORSE, OPEN)]
        text = (
            f"{metric} of the confidence gate against a coin flip that keeps as many: {', '.join(counts)} of "
            f"{len(found)} thresholds; largest difference at {top['threshold']:g}: {points(top)}."
        )
        said.setdefault(text, []).append(budget)
    return [f"- **Gate, {listed(of)} budget{'s' * (len(of) > 1)}:** {text}" for text, of in said.items()]
