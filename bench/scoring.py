"""What a sample, an item and a task are worth: right, cut, slots and tokens within a budget, values an item.

Torch-free. Runs are generated once under the loose budget. A smaller one is applied here, exactly: a sample with more
slots than the budget would have been cut there, so it counts as cut and wrong, with the slots and tokens until then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench import stats
from bench.record import Record, SampleRecord
from bench.stats import Estimate
from bench.timing import first_step_end
from pipo.engine.types import Method
from pipo.errors import BadInput

PASS_AT = (1, 2, 4)
Items = dict[str, list[SampleRecord]]  # item id -> its samples


def check_pass_at(asked: Sequence[int] | None, k: int) -> list[int]:
    """The k of pass@k to report: those asked for, or 1, 2, 4 as far as there are samples.

    Raises:
        BadInput: k below 1, or pass@k asked for more than the samples an item has.
    """
    if k < 1:
        raise BadInput(f"k {k} (samples an item) must be at least 1")
    for value in asked or ():
        stats.pass_at_k(k, 0, value)
    return sorted(set(asked)) if asked else [v for v in PASS_AT if v <= k]


def by_item(records: Iterable[Record]) -> dict[tuple[str, str], Items]:
    """(variant, task) -> item -> its samples in order."""
    out: dict[tuple[str, str], Items] = defaultdict(lambda: defaultdict(list))
    for r in records:
        if isinstance(r, SampleRecord):
            out[r.variant, r.task][r.item].append(r)
    for items in out.values():
        for samples in items.values():
            samples.sort(key=lambda r: r.sample)
    return out


def right(r: SampleRecord, budget: int) -> bool:
    """Whether a sample is right within a budget of slots: a run beyond it counts as cut, so as wrong.

    Raises:
        BadInput: nobody judged it yet.
    """
    if not r.judged:
        raise BadInput(
            f"{r.variant} on {r.task}/{r.item} is not judged yet; `pipo eval score RUN` judges the whole run"
        )
    return r.correct and r.slots <= budget


def cut(r: SampleRecord, budget: int) -> bool:
    """Whether the budget cut the sample before it ended."""
    return r.slots > budget or r.finish in ("slots", "tokens")


def slots_within(r: SampleRecord, budget: int) -> int:
    return min(r.slots, budget)


def tokens_within(r: SampleRecord, budget: int) -> int:
    """Real tokens that came out in the first ``budget`` slots."""
    if r.slots <= budget:
        return r.tokens
    pair = 2 if len(r.places) >= 2 * r.slots else 1
    return sum(place != r.pad_id for place in r.places[: pair * budget]) if pair == 2 else min(r.tokens, budget)


def item_values(items: Items, metric: str, budget: int) -> dict[str, float]:
    """One value an item: mean over its samples (avg, slots, tokens) or unbiased pass@k (``pass@4``)."""
    if metric.startswith("pass@"):
        k = int(metric.removeprefix("pass@"))
        return {i: stats.pass_at_k(len(s), sum(right(r, budget) for r in s), k) for i, s in items.items()}
    of: Callable[[SampleRecord, int], float] = {"avg": right, "slots": slots_within, "tokens": tokens_within}[metric]
    return {i: sum(of(r, budget) for r in s) / len(s) for i, s in items.items()}


def metrics(pass_at: Sequence[int]) -> list[str]:
    """The metrics that differences are taken of."""
    return ["avg", *(f"pass@{k}" for k in pass_at), "slots", "tokens"]


def task_parts(method: Method, items: Items, budget: int, pass_at: Sequence[int]) -> dict[str, Any]:
    """Estimates of one variant on one task under one budget, by the names of a row (bench/summary.py)."""
    groups = list(items.values())

    def clustered(of: Callable[[SampleRecord, int], float]) -> Estimate:
        return stats.clustered([[float(of(r, budget)) for r in s] for s in groups])

    def ratio(over: Callable[[SampleRecord], float], under: Callable[[SampleRecord], float]) -> Estimate | None:
        bottom = [sum(map(under, s)) for s in groups]
        return stats.ratio([sum(map(over, s)) for s in groups], bottom) if sum(bottom) else None

    return {
        "avg": clustered(right),
        **{f"pass@{k}": stats.mean(list(item_values(items, f"pass@{k}", budget).values())) for k in pass_at},
        "truncated": clustered(cut),
        "slots": clustered(slots_within),
        "tokens": clustered(tokens_within),
        "tokens_per_slot": ratio(lambda r: tokens_within(r, budget), lambda r: slots_within(r, budget)),
        "kept_share": ratio(lambda r: sum(d.kept for d in r.drafts), lambda r: len(r.drafts)),
        "acceptance": ratio(
            lambda r: sum(t > first_step_end(r, method) for t in r.token_times_s), lambda r: max(r.steps - 1, 0)
        ),
    }
