"""The text of report.md: the answer first, then tables and figures, then where the numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.kinds import TRAINING, shown
from reports.load import LoadedRun
from reports.paper import paper
from reports.text import markdown
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
  the latency table is at batch 1. Speeds within 5 % of each other are called about as fast. The tight budget is read
  off the same generations, so steps, kept drafts and speed stand once, under the loose one."""


def page(runs: list[LoadedRun], figures: dict[int, list[str]], papers: Sequence[str] = ()) -> str:
    """The whole markdown page; ``figures``: names of the PNG files of each run, by its place in ``runs``.

    ``papers``: the part on the paper's tables and figures (reports/exhibits.py).
    """
    parts = ["# PIPO: decoding methods compared", "\n".join(f"- {shown(run.kind).what(run)}" for run in runs)]
    short = [*filter(None, [*answers(runs), *(shown(run.kind).answer(run) for run in runs)])]
    if short:
        parts += ["## In short: does it pay?", *short]
    for i, run in enumerate(runs):
        parts += shown(run.kind).section(run, figures.get(i, []))
    parts += [*papers, "## How to read this", GUIDE, "## Where the numbers come from"]
    parts += [_provenance(run) for run in runs]
    facts = paper()
    parts.append(f"Figures marked as the paper's: {facts['source']}, {facts['model']}; {facts['setting']}.")
    return "\n\n".join(parts) + "\n"


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
