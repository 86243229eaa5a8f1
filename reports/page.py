"""The text of report.md: the answer first, then tables and figures, then where the numbers come from."""

from __future__ import annotations

from typing import Any

from reports import budget, curves, statistics, tables, training
from reports import map as maps
from reports.load import ALL_TASKS, BUDGETS, COMPARE, CURVES, LATENCY, MAP, TRAINING, LoadedRun
from reports.paper import paper
from reports.text import listed, markdown
from reports.verdict import answers

GUIDE = """\
- **slot**: one committed backbone position: a token for regular, mtp and eagle, a pair for pipo. Budgets count slots.
- **kept share**: drafts kept of drafts offered; **pad ratio** is the rest. **tokens/slot** counts real tokens only.
- **avg@k**: share of samples that are right. **pass@k**: chance that at least one of k samples is right (unbiased).
- **cut**: samples that the budget ended; they count as wrong. **failed**: the engine reported an error; wrong as well.
- **TTFT**: from submission to the first token out; **first pair**: until two tokens are out. **TPOT**: time per token
  after the first; **TPOT16**: over the first 16 tokens. **×**: reference over variant, above 1 is faster.
- **floor**: the least time that the machine's measured rates and the model's shapes allow; **÷ floor**: how many times
  that a measured time is, 1 would be perfect. **allowed**: the × that the floors alone give.
- **step**: time of one step after the first, whatever came out of it. On a random model of a shape the kept share is
  forced, and what eagle accepts there means nothing: read its step, and divide by an acceptance length of your own.
- **tokens/step**: tokens a backbone pass after the first (for eagle its acceptance length). **draft 2 %**: share of
  second drafts that were accepted where the first one was; a chain's first rejection ends it.
- **±** is half of the 95% interval, **[low, high]** the interval itself, shown where its sides differ. Samples of one
  item are not independent, so errors are clustered by item; differences are paired by item; times are bootstrapped
  medians.
- *better* and *worse* mean that the interval leaves out no difference, *not settled* that it does not. Of twenty such
  intervals one misses by chance: a single settled difference in a long table is weak evidence.
- A variant is judged against the reference that has the same model, where there is one (only the method differs), else
  against every reference, and the least favourable difference decides. *control* has had as much training as pipo.
- **tokens/s** in the comparison: the whole batch together (times of single samples under that load are in the CSV);
  the latency table is at batch 1. Speeds within 5 % of each other are called about as fast."""


def page(runs: list[LoadedRun], figures: dict[int, list[str]]) -> str:
    """The whole markdown page; ``figures``: names of the PNG files of each run, by its place in ``runs``."""
    parts = [
        "# PIPO: decoding methods compared",
        _what(runs),
    ]
    short = [
        *answers(runs),
        *(maps.answer(run) for run in runs if run.kind == MAP),
        *(training.answer(run) for run in runs if run.kind == TRAINING),
    ]
    if any(short):
        parts += ["## In short: does it pay?", *filter(None, short)]
    for i, run in enumerate(runs):
        sections = {COMPARE: _comparison, LATENCY: _latency, MAP: maps.section, TRAINING: training.section}
        sections.update({kind: curves.section for kind in CURVES})
        section = sections.get(run.kind, _threshold)
        parts += section(run, figures.get(i, []))
    parts += ["## How to read this", GUIDE, "## Where the numbers come from"]
    parts += [_provenance(run) for run in runs]
    facts = paper()
    parts.append(f"Figures marked as the paper's: {facts['source']}, {facts['model']}; {facts['setting']}.")
    return "\n\n".join(parts) + "\n"


def _what(runs: list[LoadedRun]) -> str:
    lines = []
    for run in runs:
        names = list(dict.fromkeys(r["variant"] for r in run.rows if "variant" in r))
        if run.kind == COMPARE:
            items = run.summary.get("items") or {}
            tasks = listed([f"{task} ({items.get(task, '?')} items)" for task in run.tasks])
            lines.append(f"Compared on {tasks}, {run.k} samples an item: {listed(names)}.")
        elif run.kind == MAP:
            lines.append(maps.what(run))
        elif run.kind == TRAINING:
            lines.append(training.what(run))
        elif run.kind in CURVES:
            lines.append(curves.what(run))
        elif run.kind == LATENCY:
            lengths = listed([str(n) for n in sorted({r["input_tokens"] for r in run.rows})])
            shape = run.summary.get("shape")
            on = f" of a random model of shape {shape}" if shape else ""
            lines.append(f"Latency{on} at batch 1 after {lengths} tokens: {listed(names)}.")
        else:
            model = run.summary.get("model", "a PIPO model")
            lines.append(f"Threshold of the gate varied on {model}, beside a coin flip at the same pad ratio.")
    return "\n".join(lines)


def _image(name: str, text: str) -> str:
    return f"![{text}]({name})"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _comparison(run: LoadedRun, figures: list[str]) -> list[str]:
    budgets = [b for b in BUDGETS if any(r["budget"] == b for r in run.rows)]
    parts = ["## Comparison", *(_image(f, "Quality by task and budget") for f in figures[:1])]
    everything = "All tasks" if len(run.tasks) != 1 else run.tasks[0]
    for size in budgets:
        parts += [f"### {everything}, {size} budget", tables.comparison(run, ALL_TASKS, size)]
    for task in run.tasks if len(run.tasks) > 1 else ():
        for size in budgets:
            rows = (r for r in run.rows if r["task"] == task and r["budget"] == size)
            slots = next((r.get("budget_slots") for r in rows), None)
            title = f"### {task}, {size} budget" + (f" ({slots} slots)" if slots else "")
            parts += [title, tables.comparison(run, task, size)]
    accepted = tables.acceptance(run)
    if accepted:
        parts += ["### Drafts accepted by their place in the chain", accepted]
    if run.summary.get("differences"):
        parts += ["### Paired differences, all tasks", tables.differences(run, overall=True)]
    parts += statistics.section(run)
    if run.summary.get("differences") and len(run.tasks) > 1:
        parts.append(_folded("Paired differences task by task", tables.differences(run, overall=False)))
    failed = tables.failures(run)
    if failed:
        parts += ["### Failed generations", failed]
    parts += budget.section(run, figures[1:])
    paper_table = tables.paper_comparison(run)
    if paper_table:
        parts += [
            "### The paper's figures beside ours",
            "Other tasks, another model size, no intervals in the paper: compare directions, not values.",
            paper_table,
        ]
    return parts


def _latency(run: LoadedRun, figures: list[str]) -> list[str]:
    parts = ["## Latency", *(_image(f, "Latency against input length") for f in figures), tables.latency(run)]
    parts.append(_folded("Percentiles over trials", tables.tails(run)))
    floor = tables.floor(run)
    if floor:
        parts += ["### What the floor allows", *filter(None, [tables.machine(run)]), floor]
    return [*parts, "### The paper's latency", tables.paper_latency()]


def _threshold(run: LoadedRun, figures: list[str]) -> list[str]:
    parts = ["## Threshold", *(_image(f, "Quality against pad ratio, confidence gate and coin flip") for f in figures)]
    return [*parts, tables.threshold(run), "### The paper's threshold figure", tables.paper_threshold()]


def _provenance(run: LoadedRun) -> str:
    p = run.run.provenance
    facts: list[tuple[str, Any]] = [
        ("run", f"{run.run.kind}, {run.records} records, started {p.started}"),
        ("settings hash", f"`{p.settings_hash}`"),
        ("commit", f"`{p.git_commit}`" + (", with uncommitted changes" if p.git_dirty else "")),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(p.versions.items()))),
        ("device", f"{p.device}, {p.cpu_count} cores, {p.threads} threads"),
        ("engine", p.engine),
        ("note", "; ".join(p.warnings)),
        ("seed", p.seed),
        ("sampling", _pairs({f: getattr(run.run.sampling, f) for f in run.run.sampling.__struct_fields__})),
        ("budgets in slots", "; ".join(f"{task}: {_pairs(b)}" for task, b in run.run.budgets.items())),
        ("models", "; ".join(f"{name}: `{mark}`" for name, mark in p.models.items())),
        ("variants", "; ".join(f"{v.name}: {v.model}, {_method(v.method)}" for v in _variants(run))),
        ("intervals", run.summary.get("interval")),
    ]
    return markdown(["", run.kind], [[name, value] for name, value in facts if value not in (None, "")], left=2)


def _variants(run: LoadedRun) -> list[Any]:
    return [] if run.kind == TRAINING else run.run.variants  # a study's are hundreds, and its tables name them


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _method(method: Any) -> str:
    """A method with the one setting that it uses."""
    setting = {"pipo": "threshold", "eagle": "depth", "random": "keep_rate"}.get(method.name)
    return f"{method.name} {setting.replace('_', ' ')} {getattr(method, setting)}" if setting else str(method.name)
