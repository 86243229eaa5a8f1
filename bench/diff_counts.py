"""What the two runs of a diff lost: samples that were cut or failed, and drafts that became PADs. Torch-free.

A difference of quality may be a difference of what was cut, so these counts stand beside every diff of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.diff_runs import Side
from bench.scoring import cut

Row = dict[str, Any]


def counts(old: Side, new: Side, names: Mapping[str, str], tasks: Sequence[str]) -> list[Row]:
    """A row for each variant and budget, over the tasks that both runs have of it; pairs are [old, new]::

        variant, was, budget ("tight" | "loose"), samples [n, n], cut [n, n], failed [n, n] (engine errors),
        offered [n, n], kept [n, n]: drafts of whole runs, both budgets alike (bench/summary.py)

    ``names``: variants, new -> old. One budget where tight and loose are of as many slots.
    """
    out: list[Row] = []
    alike = all(new.run.budgets[t]["tight"] == new.run.budgets[t]["loose"] for t in tasks)
    for name, was in names.items():
        here = [t for t in tasks if (was, t) in old.samples and (name, t) in new.samples]
        for budget in ("tight", "loose")[alike:] if here else ():
            sides = [_side(side, variant, here, budget) for side, variant in ((old, was), (new, name))]
            pairs = {key: [side[key] for side in sides] for key in sides[0]}
            out.append({"variant": name, "was": was, "budget": budget, **pairs})
    return out


def _side(side: Side, variant: str, tasks: Sequence[str], budget: str) -> dict[str, int]:
    rows = [(r, side.run.budgets[t][budget]) for t in tasks for s in side.samples[variant, t].values() for r in s]
    drafts = [side.drafts.get((variant, t), (0, 0)) for t in tasks]
    return {
        "samples": len(rows), "cut": sum(cut(r, slots) for r, slots in rows),
        "failed": sum(r.finish == "failed" for r, _ in rows),
        "offered": sum(offered for offered, _ in drafts), "kept": sum(kept for _, kept in drafts),
    }  # fmt: skip
