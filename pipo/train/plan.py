"""The whole order of a training in advance: which rows each step trains on, in which micro-batches. Torch-free.

A plan follows from the rows' lengths, a few settings and the seed alone, so a resumed run and every process of a
distributed one know it without asking: process r of w takes the micro-batches r::w of each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

POOL = 256  # rows among which those of like length are put together


@dataclass(frozen=True)
class Plan:
    """``steps``: each a list of micro-batches, each a list of row indices. ``left_over``: rows of no full step."""

    steps: list[list[list[int]]]
    left_over: int


def make_plan(
    lengths: Sequence[int], *, micro_rows: int | None = 1, micro_tokens: int | None = None, accumulate: int = 1,
    epochs: float = 1.0, tokens: int | None = None, seed: int = 0,
) -> Plan:  # fmt: skip
    """Plan training on rows of these lengths (real tokens).

    Every epoch has its own order. ``tokens`` (real tokens) goes before ``epochs``: the plan ends with the step that
    reaches it. Otherwise the last rows are left out where they do not fill a step, unless they are all there is.
    """
    steps: list[list[list[int]]] = []
    step: list[list[int]] = []
    spent = 0
    for micro in _micro_batches(lengths, micro_rows, micro_tokens, None if tokens else epochs, seed):
        step.append(micro)
        spent += sum(lengths[i] for i in micro)
        if len(step) == accumulate:
            steps.append(step)
            step = []
            if tokens is not None and spent >= tokens:
                break
    if step and not steps:
        steps, step = [step], []
    return Plan(steps, sum(map(len, step)))


def _order(n: int, epochs: float | None, seed: int) -> Iterator[list[int]]:
    """Row indices of one epoch after another, for ever without ``epochs``; the last epoch may be a part."""
    epoch = 0
    while epochs is None or epoch < epochs:
        order = list(range(n))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield order if epochs is None or epochs - epoch >= 1 else order[: round((epochs - epoch) * n)]
        epoch += 1


def _micro_batches(
    lengths: Sequence[int], micro_rows: int | None, micro_tokens: int | None, epochs: float | None, seed: int
) -> Iterator[list[int]]:
    for epoch, order in enumerate(_order(len(lengths), epochs, seed)):
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            if micro_rows == 1:
                yield from ([i] for i in pool)
                continue
            groups = groups_of(sorted(pool, key=lambda i: lengths[i]), lengths, micro_rows, micro_tokens)
            random.Random(f"{seed}/{epoch}/{start}").shuffle(groups)
            yield from groups


def groups_of(
    pool: list[int], lengths: Sequence[int], micro_rows: int | None, micro_tokens: int | None
) -> list[list[int]]:
    """Neighbours together, as long as they are few enough and their padded rectangle small enough."""
    groups: list[list[int]] = [[]]
    for i in pool:
        size = len(groups[-1]) + 1
        full = (micro_rows is not None and size > micro_rows) or (
            micro_tokens is not None and size * lengths[i] > micro_tokens
        )
        if groups[-1] and full:
            groups.append([])
        groups[-1].append(i)
    return [g for g in groups if g]
