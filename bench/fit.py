"""Rows of an engine fitted to what a task asks for: fewer and longer ones where its memory plan's would be too short.

By default an engine has 64 rows that share its memory. Budgets of benchmarks need rows of thousands of places, so that
without this every request would be refused on a small machine. SGLang shares its memory out by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.runner import Engine, Tokenizer
from bench.tasks import Item


def fit(engine: Engine, tokenizer: Tokenizer, items: Sequence[Item], slots: int, max_batch: int) -> str | None:
    """Make rows long enough for every item and a budget of ``slots``, as many as memory holds, at most ``max_batch``.

    Returns:
        What a person should know: how many requests run at once now; None where it is as many as were asked for.
        Where not even one row is long enough it stays as it is, and the samples that do not fit say so.
    """
    plan: Any = getattr(engine, "plan", None)
    positions = engine.model.config.max_position_embeddings
    if plan is None or (plan.context >= positions and engine.max_batch >= max_batch):
        return None
    longest = max(len(tokenizer.encode(i.prompt, add_special_tokens=False)) for i in items)
    need = min(longest + slots, positions)
    if plan.context >= need and engine.max_batch >= max_batch:
        return None
    row = plan.state_bytes + (need + plan.places - plan.context) * plan.place_bytes
    rows = max(1, min(max_batch, plan.bytes // row))
    if rows != engine.max_batch:
        engine.resize(max_batch=rows)
    while engine.plan.context < need and rows > 1:  # type: ignore[attr-defined]  # memory may have shrunk meanwhile
        rows = max(1, rows * 3 // 4)
        engine.resize(max_batch=rows)
    if rows >= max_batch:
        return None
    return f"rows of {need:,} places (prompt and {slots:,} slots): {rows} requests at once, not {max_batch}"
