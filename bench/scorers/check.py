"""The job ``check-scorers``: known solutions of real benchmarks must score as right, mutated ones as wrong.

All MATH-500 gold solutions, all GSM8K golds, all HumanEval canonical solutions. A mutated answer is another one by
construction: a digit or a word changed, a body taken away. Torch-free.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.scorers.judge import Answer, Judge
from bench.scorers.reading import last_boxed
from bench.scorers.verdict import Verdict
from pipo.data import benchmarks
from pipo.data.benchmarks.sources import rows
from pipo.data.lines import write_json
from pipo.errors import BadInput, BadRecord
from pipo.jobs import JobContext

WHAT = "known solutions for checking the scorers"
NAMES = ("math500", "gsm8k", "humaneval")
BATCH = 100
EMPTY_BODIES = ("    return None\n", "    import os\n    os._exit(0)\n")  # the second ends before its tests


class CheckSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings. ``data``: folder of the benchmarks, default PIPO_DATA; ``unsafe``: see bench/sandbox/probe.py."""

    data: str | None = None
    unsafe: bool = False


class Known(msgspec.Struct, frozen=True):
    """An answer of which it is known whether it is right."""

    item: str
    answer: Answer
    right: bool


def math500(row: dict[str, Any], name: str) -> list[Known]:
    """The published solution as it stands; a solution that boxes a mutated answer."""
    gold, solution = str(row["answer"]), str(row["solution"])
    changed = Answer(f"So it is $\\boxed{{{mutated(gold)}}}$.", gold)
    return [Known(name, Answer(solution, gold), True), Known(name, changed, False)]


def gsm8k(row: dict[str, Any], name: str) -> list[Known]:
    """The published solution, its last line boxed as prompts ask for; the same with a mutated answer."""
    solution, _, gold = str(row["answer"]).rpartition("####")
    gold = gold.strip()
    return [
        Known(name, Answer(f"{solution}\\boxed{{{given}}}", gold.replace(",", "")), right)
        for given, right in ((gold, True), (f"\\${gold}.00", True), (mutated(gold), False))
    ]


def humaneval(row: dict[str, Any], name: str) -> list[Known]:
    """The canonical solution, bare and in a fenced block; bodies that do nothing."""
    program = benchmarks.Program(
        form="check", stub=row["prompt"], entry_point=row["entry_point"], test=row["test"]
    )  # fmt: skip
    body = str(row["canonical_solution"])
    given = [(body, True), (f"Here it is:\n```python\n{row['prompt']}{body}```\n", True)]
    given += [(empty, False) for empty in EMPTY_BODIES]
    return [Known(name, Answer(text, "", program), right) for text, right in given]


READ: dict[str, Callable[[dict[str, Any], str], list[Known]]] = {
    "math500": math500, "gsm8k": gsm8k, "humaneval": humaneval,
}  # fmt: skip


def mutated(gold: str) -> str:
    """Another answer: the first number's last digit changed; without numbers the word turned round, or one added."""
    if (digits := re.search(r"\d+", gold)) is not None:
        at = digits.end() - 1
        return f"{gold[:at]}{(int(gold[at]) + 1) % 10}{gold[at + 1 :]}"
    if (word := re.search(r"\\text\{(.*)\}", gold)) is not None:
        letters = re.sub(r"[^A-Za-z]", "", word[1])
        return chr(ord("A") + (ord(letters) - ord("A") + 1) % 5) if len(letters) == 1 else letters[::-1]
    return f"{gold}+1"


def load(name: str, data: Path | None) -> list[Known]:
    """Known answers of a benchmark. Raises BadInput where it is not here, BadRecord for a row without a solution."""
    of = benchmarks.shipped(name)
    found: list[Known] = []
    for path in benchmarks.find(of, data):
        for number, (where, row) in enumerate(rows(path, WHAT), 1):
            item = str(row.get("unique_id") or row.get("task_id") or number)
            try:
                found += READ[name](row, item)
            except KeyError as e:
                raise BadRecord(f"{where}: no field {e}; {WHAT} need the file as it was published") from e
    return found


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Score all known answers of the benchmarks that are here.

    Returns:
        per benchmark: known right and wrong answers, how many scored as they should, by which means; every exception
        with what was said; ``missing``: benchmarks that are not here; ``good``: no exception, nothing missing.

    Raises:
        BadInput: unknown settings, none of the benchmarks here, or no way to shut code in. BadRecord: a torn file.
    """
    try:
        settings = msgspec.convert(spec, CheckSpec)
    except msgspec.ValidationError as e:
        raise BadInput(f"settings of check-scorers: {e}") from e
    data = Path(settings.data) if settings.data else None
    here = [name for name in NAMES if benchmarks.look(benchmarks.shipped(name), data).files]
    if not here:
        benchmarks.find(benchmarks.shipped(NAMES[0]), data)
    known = {name: load(name, data) for name in here}
    total, done = sum(map(len, known.values())), 0
    rows_: dict[str, Any] = {}
    with Judge(unsafe=settings.unsafe) as judge:
        for name, answers in known.items():
            verdicts: list[Verdict] = []
            for start in range(0, len(answers), BATCH):
                ctx.check()
                part = answers[start : start + BATCH]
                verdicts += judge.score(benchmarks.shipped(name).scorer, [k.answer for k in part])
                done += len(part)
                ctx.emit("progress", done=done, total=total, note=name)
            rows_[name] = summarise(answers, verdicts)
    missing = [name for name in NAMES if name not in here]
    good = not missing and all(not row["exceptions"] for row in rows_.values())
    summary = {"kind": "check-scorers", "benchmarks": rows_, "missing": missing, "good": good}
    write_json(ctx.folder / "summary.json", summary)
    return summary


def summarise(answers: Sequence[Known], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Counts of a benchmark, and every answer that was scored otherwise than it is."""
    pairs = list(zip(answers, verdicts, strict=True))
    return {
        "items": len({k.item for k in answers}),
        "right": sum(k.right for k in answers),
        "scored_right": sum(k.right and v.right for k, v in pairs),
        "wrong": sum(not k.right for k in answers),
        "scored_wrong": sum(not k.right and not v.right for k, v in pairs),
        "by": dict(Counter(v.by for v in verdicts)),
        "exceptions": [
            {
                "item": k.item, "is_right": k.right, "reason": v.reason, "by": v.by,
                "gold": k.answer.gold, "answer": (last_boxed(k.answer.text) or k.answer.text)[-200:],
            }
            for k, v in pairs
            if k.right != v.right
        ],
    }  # fmt: skip
