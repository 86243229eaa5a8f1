"""The very responses that were timed, scored: lab tasks by their own check, others by their scorers. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.load.records import RequestRecord
from bench.load.workload import Ask
from bench.scorers.judge import Answer, Judge
from bench.tasks import Task, is_right


def score(
    task: Task | None, asks: Sequence[Ask], records: Sequence[RequestRecord], decode: Callable[[list[int]], str]
) -> None:
    """Write task, text, answer and verdict into the records of items; only what ended by itself can be right.

    Raises:
        BadInput: code that cannot be shut in here.
    """
    if task is None:
        return
    items = {a.number: a.item for a in asks}
    asked = [(r, item) for r in records if (item := items[r.index]) is not None]
    for r, _ in asked:
        r.task = task.name
        r.text = r.text or (decode(r.ids) if r.ids else "")
        r.answer = task.extract(r.text)
    if task.scorer == "exact":
        for r, item in asked:
            r.correct = r.finish == "eos" and is_right(r.answer, item.gold)
        return
    with Judge() as judge:
        verdicts = judge.score(task.scorer, [Answer(r.text, item.gold, item.program) for r, item in asked])
    for (r, _), verdict in zip(asked, verdicts, strict=True):
        r.correct = r.finish == "eos" and verdict.right
