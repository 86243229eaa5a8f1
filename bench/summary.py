"""Records -> summary.json of the comparing jobs (compare, eval, ablate-threshold). Torch-free; no generation here.

Everything is a plain dict. An *estimate* is ``{"value", "se", "low", "high", "n"}``: a mean, its standard error
clustered by question (item), the 95% interval (docs/STATISTICS.md) and the number of items; each may be None (se,
low, high where n < 2). Shares and quality are fractions in [0, 1], times are seconds.

summary.json of ``compare`` and ``eval``::

    schema 1, kind, k (samples an item), pass_at [1, 2, 4], tasks [names], budgets {task: {"tight", "loose"}},
    items {task: number of items}, sampling {...}, seed, batch (most requests at once),
    interval (text: how intervals are made),
    references [variant names that differences are taken to],
    variants [{"name", "model", "method": {name, threshold, depth, keep_rate}}],
    rows [...], differences [...], failures [{"variant", "task", "item", "sample", "error"}, at most 20]

A *row* is one variant x task x budget; task "overall" is the mean over tasks (throughput: totals)::

    variant, model, method (dict as above), task, budget ("tight" | "loose"), budget_slots (int; None for overall),
    items, samples, failed (count: engine errors), batch,
    avg            estimate: share of samples that are right (avg@k)
    pass           {"1": estimate, "2": ..., "4": ...}: unbiased pass@k
    pass_all       [estimate]: unbiased pass@1, pass@2, ... up to the samples that every item has
    maj            as pass: chance that the most frequent answer of k samples is right; None where right samples have no
                   answer to count (code)
    truncated      estimate: share of samples cut by the budget (they count as wrong)
    slots          estimate: mean slots a sample within the budget
    tokens         estimate: mean real tokens a sample within the budget (no PADs)
    tokens_per_slot  estimate (ratio of sums)
    kept_share     estimate, drafts kept / drafts offered, over whole runs (both budgets alike); None without drafts
    acceptance     estimate, tokens a step after the first (eagle: the acceptance length), over whole runs
    acceptance_by_position  eagle: list over chain positions 1 to depth of estimates, share of drafts accepted given
                   that all earlier ones of the chain were, over whole runs (None where no chain got so far); else None
    ttft_s, first_pair_s, tpot16_s, tpot_s   {"p50", "p90", "low", "high"} under this batch, not at batch 1 (that is
                   the latency job); low/high: 95% bootstrap interval of the median over items; None where no times
    throughput     {"tokens_s", "low", "high", "full_tokens_s", "tokens", "wall_s"}: whole batch together;
                   full_tokens_s only while the batch was full (None if it never was); None without records

A *difference* is paired by item, variant minus reference::

    variant, reference, task, budget, metric ("avg" | "pass@1" | "pass@2" | "pass@4" | "slots" | "tokens"),
    value, se, low, high, n, p (two-sided, of that interval's kind), bootstrap_low, bootstrap_high (paired, by question)
    mcnemar        {"only", "only_reference", "p"}: questions that one side alone solved with its first k samples, exact
                   test; avg: first sample; None for slots and tokens
    power          {"points", "power", "questions", "k", "samples", "detectable"} where quality is not settled: what a
                   difference of ``points`` would need (bench/stats_paired.py, needs); else None
    p_holm, p_bh   p corrected for all differences of this metric, over all tasks or in single ones (bench/compared.py)

``compare`` and ``eval`` also have, where there are records to make them from (bench/budget.py, bench/costs.py)::

    curves       [{"variant", "task", "axis" ("slots" | "tokens" | "device_s"), "k", "fractions" (of the axis's end),
                   "budgets" (None over tasks with different ones), "avg", "pass" (at k: each {"value",
                   "low", "high"}, lists over budgets), "cut", "used" (mean of the axis a sample): lists}]
    costs        [{"variant", "task", "budget", "right" (count), "slots", "tokens", "device_s" (each {"value", "low",
                   "high"}: what was spent over the right answers; None where nothing was right, high None: no end)}]
    cost_ratios  [{"variant", "reference", "task", "budget", "value", "low", "high"}]: device seconds a right answer,
                   variant over reference: below 1 is cheaper
    equal_time   [{"variant", "task", "seconds" (a question; None over tasks), "samples" (that fit in), "value", "low",
                   "high"}]: pass with equal device seconds a question, under the loose budget
    equal_time_differences   as equal_time, and "reference": paired by question

All sampled runs have ``scoring``, how samples were judged (bench/grading.py, ``tally``). While some are not,
``unjudged`` is their number, and there are no rows, differences or anything else that depends on verdicts.

summary.json of ``ablate-threshold`` (made in ablations/threshold.py) has the same head and ``points`` instead of rows::

    model, thresholds, matched ("per task": how keep_rate was chosen), points [...], differences [...]
    point       a row as above, and: threshold, gate ("confidence" | "random"), keep_rate (random: the rate asked for),
                pad_ratio (estimate, 1 - kept_share), reused (bool: gate random at kept share 0 or 1 is the same
                decoding as the confidence gate's point; its numbers are that point's, nothing was generated)
    difference  threshold, task, budget, metric and all from value on as above: confidence gate minus random gate,
                paired by item, p_holm and p_bh over all thresholds; absent where reused

summary.json of ``latency`` (made in bench/latency_summary.py)::

    schema 1, kind, batch 1, tokens (output tokens), trials, input_lengths, reference (variant name), threads, variants,
    protocol ("ours" | "paper"), statistic ("p50" | "mean": what ratios and tables take), tpot ("tpot" | "tpot16": the
    one set beside the floor), shape (None: named models), machine (what bench/machine.py measured, once a job),
    rows    [{"variant", "model", "method", "keep" (forced kept share, None: as the model decides), "input_tokens",
              "trials", "ttft_s", "first_pair_s", "tpot16_s", "tpot_s", "step_s" (mean of a trial's steps after the
              first; each {"p50", "p90", "p99", "mean"} over trials), "tokens_per_slot", "kept_share" (None without
              drafts), "tokens_per_step", "ttft_floor_s", "step_floor_s", "tpot_floor_s" (step_floor_s over
              tokens_per_step), "ttft_over_floor", "tpot_over_floor" (by ``statistic`` and ``tpot``)}]
    ratios  [{"variant", "keep", "reference", "input_tokens", "metric" ("ttft" | "first_pair" | "tpot16" | "tpot"),
              "value" (reference over variant, of medians or means: above 1 is faster), "low", "high" (95%: paired
              bootstrap over trials for medians, Student t over trials for means)}]; on a shape none of tpot for eagle
    floor   [{"variant", "keep", "input_tokens", "ttft_allowed", "ttft_measured", "ttft_reached" (measured over
              allowed), "tpot_allowed", "tpot_measured", "tpot_reached"}]: reference over variant, of the floors
              (bench/roofline.py) and as measured
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec

from bench import acceptance, compared, costs, stats, votes
from bench.record import Record, Run, SampleRecord, ThroughputRecord, Variant
from bench.scoring import Items, by_item, metrics, task_parts
from bench.stats import Estimate
from bench.timing import TPOT_TOKENS, first_step_end, tpot
from pipo.engine.types import Method

BUDGETS = ("tight", "loose")
OVERALL = "overall"
Row = dict[str, Any]


def _times(items: Items, method: Method) -> dict[str, Row | None]:
    """Medians of times over all samples of a task; intervals by bootstrap over the items' medians."""
    of: dict[str, Callable[[SampleRecord], float]] = {
        "ttft_s": lambda r: r.ttft_s,
        "first_pair_s": lambda r: r.first_pair_s,
        "tpot16_s": lambda r: tpot(r.token_times_s, first_step_end(r, method), TPOT_TOKENS),
        "tpot_s": lambda r: tpot(r.token_times_s, first_step_end(r, method)),
    }
    out: dict[str, Row | None] = {}
    for name, value in of.items():
        groups = [[v for r in s if (v := value(r)) >= 0] for s in items.values()]
        flat = [v for g in groups for v in g]
        if not flat:
            out[name] = None
            continue
        low, high = stats.bootstrap([stats.quantile(g, 0.5) for g in groups if g])
        out[name] = {"p50": stats.quantile(flat, 0.5), "p90": stats.quantile(flat, 0.9), "low": low, "high": high}
    return out


def throughput(rows: Sequence[ThroughputRecord]) -> Row | None:
    """Tokens a second of the whole batch; the interval takes the stretches between writes as units."""
    wall = sum(r.wall_s for r in rows)
    if wall <= 0:
        return None
    rate = stats.ratio([r.tokens for r in rows], [r.wall_s for r in rows])
    full = sum(r.full_wall_s for r in rows)
    return {
        "tokens_s": rate.value, "low": None if rate.low is None else max(0.0, rate.low), "high": rate.high,
        "tokens": sum(r.tokens for r in rows), "wall_s": wall,
        "full_tokens_s": sum(r.full_tokens for r in rows) / full if full > 0 else None,
    }  # fmt: skip


def rows_of(run: Run, variant: Variant, records: Sequence[Record], pass_at: Sequence[int]) -> list[Row]:
    """Rows of one variant: each task with records and their mean, under both budgets."""
    grouped = by_item(records)
    tasks = [t for t in run.budgets if (variant.name, t) in grouped]
    speed = [r for r in records if isinstance(r, ThroughputRecord) and r.variant == variant.name]
    head = {"variant": variant.name, "model": variant.model, "method": msgspec.to_builtins(variant.method)}
    whole = {t: _whole_runs(grouped[variant.name, t], variant, [r for r in speed if r.task == t]) for t in tasks}
    chains = [acceptance.by_position(variant.method, grouped[variant.name, t]) for t in tasks]
    overall = {
        "throughput": throughput(speed),
        "acceptance_by_position": acceptance.plain(acceptance.over_tasks(chains)),
    }
    out: list[Row] = []
    for budget in BUDGETS:
        parts = [
            task_parts(variant.method, grouped[variant.name, t], run.budgets[t][budget], pass_at)
            | votes.shares(grouped[variant.name, t], run.budgets[t][budget], pass_at)
            for t in tasks
        ]
        rows = [
            {
                **head,
                "task": t,
                "budget": budget,
                "budget_slots": run.budgets[t][budget],
                **_plain(p, pass_at),
                **whole[t],
            }
            for t, p in zip(tasks, parts, strict=True)
        ]
        out += [*rows, _overall({**head, **overall}, budget, rows, parts, pass_at)] if rows else []
    return out


def _whole_runs(items: Items, variant: Variant, speed: list[ThroughputRecord]) -> Row:
    """The parts of a row that no budget changes."""
    samples = [r for s in items.values() for r in s]
    return {
        "items": len(items), "samples": len(samples), "failed": sum(r.finish == "failed" for r in samples),
        "batch": max((r.batch for r in speed), default=None), **_times(items, variant.method),
        "throughput": throughput(speed),
        "acceptance_by_position": acceptance.plain(acceptance.by_position(variant.method, items)),
    }  # fmt: skip


def _plain(parts: dict[str, Estimate | None], pass_at: Sequence[int]) -> Row:
    plain: Row = {name: e.plain() if e else None for name, e in parts.items()}
    plain["pass"] = {str(k): plain.pop(f"pass@{k}") for k in pass_at}
    maj = {str(k): plain.pop(f"maj@{k}") for k in pass_at}
    plain["maj"] = maj if all(maj.values()) else None
    whole = sorted((name for name in plain if name.startswith("all@")), key=lambda name: int(name[4:]))
    plain["pass_all"] = [plain.pop(name) for name in whole]
    return plain


def _overall(head: Row, budget: str, rows: list[Row], parts: list[dict[str, Any]], pass_at: Any) -> Row:
    def mean_of(name: str) -> Estimate | None:
        present = [p[name] for p in parts if p[name] is not None]
        return stats.combine(present) if present else None

    def mean_time(name: str) -> Row | None:
        present = [r[name] for r in rows if r[name]]
        keys = ("p50", "p90", "low", "high")
        return {k: sum(p[k] for p in present) / len(present) for k in keys} if present else None

    return {
        **head, "task": OVERALL, "budget": budget, "budget_slots": None, "batch": rows[0]["batch"],
        **{key: sum(r[key] for r in rows) for key in ("items", "samples", "failed")},
        **_plain({name: mean_of(name) for name in parts[0] if all(name in p for p in parts)}, pass_at),
        **{name: mean_time(name) for name in ("ttft_s", "first_pair_s", "tpot16_s", "tpot_s")},
    }  # fmt: skip


def differences(
    run: Run, records: Sequence[Record], pairs: Iterable[tuple[str, str]], pass_at: Sequence[int]
) -> list[Row]:
    """Paired differences, (variant, reference) each, by task and over tasks, under both budgets."""
    grouped = by_item(records)
    out: list[Row] = []
    for (variant, reference), budget, metric in (
        (pair, b, m) for pair in pairs for b in BUDGETS for m in metrics(pass_at)
    ):
        tasks = [t for t in run.budgets if (variant, t) in grouped and (reference, t) in grouped]
        budgets = [run.budgets[t][budget] for t in tasks]
        parts = [
            compared.pair(grouped[variant, t], grouped[reference, t], metric, b)
            for t, b in zip(tasks, budgets, strict=True)
        ]
        k = min((len(s) for t in tasks for s in grouped[variant, t].values()), default=0)
        found = {t: compared.row([part], k) for t, part in zip(tasks, parts, strict=True)}
        if tasks:
            found[OVERALL] = compared.row(parts, k)
        if metric == "avg" or metric.startswith("pass@"):
            found = {task: compared.within_one(row) for task, row in found.items()}
        head = {"variant": variant, "reference": reference, "budget": budget, "metric": metric}
        out += [{**head, "task": task, **row} for task, row in found.items()]
    return out


def head_of(run: Run, records: Sequence[Record], k: int, pass_at: Sequence[int]) -> Row:
    """What all summaries of sampled runs begin with."""
    found = sorted({(r.task, r.item) for r in records if isinstance(r, SampleRecord)})
    counts = {task: len(list(group)) for task, group in groupby(found, key=lambda pair: pair[0])}
    failed = [r for r in records if isinstance(r, SampleRecord) and r.finish == "failed"]
    return {
        "schema": run.schema, "kind": run.kind, "k": k, "pass_at": list(pass_at), "tasks": list(run.budgets),
        "budgets": run.budgets, "items": counts, "sampling": msgspec.to_builtins(run.sampling),
        "seed": run.provenance.seed, "interval": stats.INTERVALS,
        "batch": max((r.batch for r in records if isinstance(r, ThroughputRecord)), default=None),
        "variants": msgspec.to_builtins(run.variants),
        "failures": [
            {"variant": r.variant, "task": r.task, "item": r.item, "sample": r.sample, "error": r.error}
            for r in failed[:20]
        ],
    }  # fmt: skip


def summarise(
    run: Run, records: Sequence[Record], *, k: int, pass_at: Sequence[int], references: Sequence[str] = ()
) -> Row:
    """The summary of a compare or eval run; see the module's docstring for its parts."""
    names = [v.name for v in run.variants]
    pairs = [(v, ref) for ref in references for v in names if v != ref]
    gaps = differences(run, records, pairs, pass_at)
    compared.correct(gaps, run.budgets)
    return {
        **head_of(run, records, k, pass_at),
        "references": list(references),
        "rows": [row for v in run.variants for row in rows_of(run, v, records, pass_at)],
        "differences": gaps,
        **costs.spending(run, records, pairs, max(pass_at)),
    }
