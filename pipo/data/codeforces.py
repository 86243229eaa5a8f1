"""Rows of open-r1/codeforces as questions: the statement put together, with the tests that a program must pass."""

from __future__ import annotations

from typing import Any

from pipo.data.lines import short
from pipo.data.questions import Question
from pipo.data.sets import BadRow, Skip, text_of

CLOSING = (
    "Write a Python program that reads from standard input and writes to standard output. Put the whole program into "
    "one block that begins with ```python and ends with ```."
)


def codeforces(row: dict[str, Any], where: str) -> Question | Skip:
    """``id``, ``title``, ``description``, ``input_format``, ``output_format``, ``note``, ``time_limit`` (s),
    ``memory_limit`` (MB), ``examples`` and ``official_tests`` [{input, output}], ``generated_checker``.

    Interactive problems, those that read files, and those without a statement or tests are left out. Where there are
    no official tests the examples are the tests.
    """
    name = text_of(row, "id")
    statement = row.get("description")
    if not isinstance(statement, str) or not statement.strip():
        return Skip("no statement")
    if row.get("interaction_format"):
        return Skip("interactive")
    if row.get("input_mode") not in (None, "stdio"):
        return Skip("reads files")
    examples, tests = tests_of(row, "examples"), tests_of(row, "official_tests")
    if not (tests or examples):
        return Skip("no tests")
    level, statement = row.get("rating"), f"{statement_of(row, examples)}\n\n{CLOSING}"
    return Question(
        id=name, task="codeforces", messages=[{"role": "user", "content": statement}],
        tests=tests or examples, checker=row.get("generated_checker") or None,
        level=int(level) if isinstance(level, int | float) else 0,
        time_limit=_number(row, "time_limit"), memory_limit=_number(row, "memory_limit"),
    )  # fmt: skip


def tests_of(row: dict[str, Any], field: str) -> list[dict[str, str]]:
    """The tests of a field, ``{"input", "output"}`` each; none where it is absent. Raises BadRow."""
    given = row.get(field) or []
    if not isinstance(given, list) or not all(isinstance(t, dict) for t in given):
        raise BadRow(f"field {field!r} is {short(given)}, not a list of tests")
    return [{"input": text_of(t, "input"), "output": text_of(t, "output")} for t in given]


def _number(row: dict[str, Any], field: str) -> float | None:
    value = row.get(field)
    if value is not None and not isinstance(value, int | float):
        raise BadRow(f"field {field!r} is {short(value)}, no number")
    return None if value is None else float(value)


def statement_of(row: dict[str, Any], examples: list[dict[str, str]]) -> str:
    """The problem as a contestant sees it: limits, statement, formats, examples, note. Raises BadRow."""
    limits = [
        f"{word} limit: {value:g} {unit}"
        for word, field, unit in (("Time", "time_limit", "seconds"), ("Memory", "memory_limit", "megabytes"))
        if (value := _number(row, field)) is not None
    ]
    pieces = [str(row.get("title") or ""), "\n".join(limits), str(row["description"])]
    for heading, field in (("Input", "input_format"), ("Output", "output_format")):
        if row.get(field):
            pieces.append(f"{heading}\n{text_of(row, field)}")
    for number, test in enumerate(examples, 1):
        pieces.append(f"Example {number}\nInput:\n{test['input'].rstrip()}\nOutput:\n{test['output'].rstrip()}")
    if row.get("note"):
        pieces.append(f"Note\n{text_of(row, 'note')}")
    return "\n\n".join(p.strip() for p in pieces if p.strip())
