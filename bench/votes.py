"""Shares of one variant on one task with intervals that hold near 0 and 1: avg, cut, pass@k for every k, maj@k.

Torch-free. What is right or cut within a budget is bench/scoring.py's to say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import stats
from bench.record import SampleRecord
from bench.scoring import Items, cut, right
from bench.stats import Estimate
from bench.stats_votes import maj_at_k, pass_table


def shares(items: Items, budget: int, pass_at: Sequence[int]) -> dict[str, Estimate | None]:
    """Estimates by name: ``avg``, ``truncated``, ``pass@k`` and ``maj@k`` at ``pass_at``, ``all@k`` for every k.

    ``maj@k`` is None where a right sample has no answer to be counted.
    """
    groups = list(items.values())
    sizes = np.array([len(g) for g in groups])
    verdicts = [[right(r, budget) for r in g] for g in groups]
    counts = np.array([sum(v) for v in verdicts])
    ended = np.array([sum(cut(r, budget) for r in g) for g in groups])
    total, least = float(sizes.sum()), int(sizes.min())
    out: dict[str, Estimate | None] = {
        "avg": stats.share(counts / sizes, sizes, most=total),
        "truncated": stats.share(ended / sizes, sizes, most=total),
    }
    rows = [pass_table(int(n))[c] for n, c in zip(sizes, counts, strict=True)]
    for k in range(1, least + 1):
        out[f"all@{k}"] = stats.share([r[k - 1] for r in rows], most=_draws(sizes, k))
    out |= {f"pass@{k}": stats.share([r[k - 1] for r in rows], most=_draws(sizes, k)) for k in pass_at}
    ballots = [[answer_of(r, budget) for r in g] for g in groups]
    counted = all(a is not None for b, v in zip(ballots, verdicts, strict=True) for a, ok in zip(b, v) if ok)
    for k in pass_at:
        values = [maj_at_k(b, v, k) for b, v in zip(ballots, verdicts, strict=True)] if counted else []
        out[f"maj@{k}"] = stats.share(values, most=_draws(sizes, k)) if counted else None
    return out


def answer_of(r: SampleRecord, budget: int) -> str | None:
    """The vote of a sample: its answer without outer blanks; none of a sample that the budget cut or that failed."""
    if r.answer is None or cut(r, budget) or r.finish == "failed":
        return None
    return r.answer.strip()


def _draws(sizes: np.ndarray, k: int) -> float:
    """Groups of k samples that do not overlap, over all items: the most that pass@k can be worth."""
    return float((sizes // k).sum())
