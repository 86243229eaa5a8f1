"""Rows of published benchmarks as entries, one reader a schema. What a set's fields mean is said where it is read."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipo.data.benchmarks.definitions import PLAIN, Definition
from pipo.data.benchmarks.items import Case, Entry, Program
from pipo.data.codeforces import codeforces, statement_of, tests_of
from pipo.data.lines import short
from pipo.data.sets import BadRow, Skip, gsm8k_pair, math_pair, name_of, text_of

LETTERS = string.ascii_uppercase


def prompt(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``prompt``, which goes to the model as it is, and ``answer``; if there ``id``, ``level``."""
    answer = row.get("answer")
    gold = str(answer) if isinstance(answer, int | float) else text_of(row, "answer")
    return Entry(id=name_of(row, where, "id"), fields={PLAIN: _said(text_of(row, PLAIN), PLAIN)},
                 gold=_said(gold, "answer"), level=_level(row))  # fmt: skip


def math(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``problem`` or ``question``, ``expected_answer`` or ``answer``, if there ``id`` (``unique_id``), ``level``."""
    question, answer = math_pair(row)
    return Entry(
        id=name_of(row, where), fields={"question": _said(question, "question").strip()}, gold=_said(answer, "answer"),
        level=_level(row),
    )  # fmt: skip


def gsm8k(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``question``, and ``answer``: a solution whose last line is ``#### 1,234``. The number of the row is its id."""
    question, answer = gsm8k_pair(row)
    return Entry(id=name_of(row, where, "id"), fields={"question": _said(question, "question").strip()},
                 gold=_said(answer, "answer"))  # fmt: skip


def mmlu(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``question``, ``choices`` [texts], ``answer``: the number of the right one from 0, or its letter."""
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
        raise BadRow(f"field 'choices' is {short(choices)}, not a list of texts")
    right = LETTERS.find(answer) if isinstance(answer, str) and len(answer) == 1 else answer
    if not isinstance(right, int) or isinstance(right, bool):
        raise BadRow(f"no gold: field 'answer' is {short(answer)}, neither a number nor a letter")
    return _choice(name_of(row, where, "id"), text_of(row, "question"), choices, right, of)


def gpqa(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``Question``, ``Correct Answer``, ``Incorrect Answer 1`` to ``3``, ``Record ID`` (Idavidrein/gpqa, CSV)."""
    wrong = [text_of(row, f"Incorrect Answer {n}") for n in (1, 2, 3)]
    choices = [c.strip() for c in (text_of(row, "Correct Answer"), *wrong)]
    return _choice(name_of(row, where, "Record ID"), text_of(row, "Question"), choices, 0, of)


def longbench(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``_id``, ``question``, ``choice_A`` to ``choice_D``, ``answer``: a letter, ``context`` (LongBench v2)."""
    choices = [text_of(row, f"choice_{letter}") for letter in "ABCD"]
    answer = text_of(row, "answer").strip()
    if answer not in tuple("ABCD"):
        raise BadRow(f"no gold: field 'answer' is {short(answer)}, not one of A, B, C, D")
    found = _choice(name_of(row, where, "_id"), text_of(row, "question"), choices, LETTERS.index(answer), of)
    context = _said(text_of(row, "context"), "context")
    return msgspec.structs.replace(found, fields={**found.fields, "context": context.strip()})


def humaneval(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``task_id``, ``prompt``: the begin of a function, ``entry_point``, ``test``: defines ``check(candidate)``."""
    stub, test = text_of(row, "prompt"), _said(text_of(row, "test"), "test")
    entry_point = _said(text_of(row, "entry_point"), "entry_point")
    return Entry(
        id=name_of(row, where, "task_id"), fields={"stub": _said(stub, "prompt")},
        program=Program(form="check", stub=stub, entry_point=entry_point, test=test),
    )  # fmt: skip


def livecodebench(row: dict[str, Any], where: str, of: Definition) -> Entry:
    """``question_id``, ``question_title``, ``question_content``, ``starter_code`` (empty: a program over standard
    input), ``public_test_cases`` (JSON text), ``private_test_cases`` (packed), ``metadata`` (JSON text, ``func_name``).
    """
    stub = row.get("starter_code") or ""
    try:
        public = msgspec.json.decode(text_of(row, "public_test_cases"), type=list[Case])
        more: dict[str, Any] = msgspec.json.decode(row.get("metadata") or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, TypeError) as e:
        raise BadRow(f"fields 'public_test_cases' and 'metadata' must be JSON in a text ({e})") from e
    packed = text_of(row, "private_test_cases") or None
    if not (public or packed):
        raise BadRow("no gold: neither public nor private tests")
    if stub and not isinstance(more.get("func_name"), str):
        raise BadRow(f"field 'metadata' {short(more)} has no 'func_name', but there is starter code")
    pieces = [str(row.get("question_title") or ""), _said(text_of(row, "question_content"), "question_content")]
    return Entry(
        id=name_of(row, where, "question_id"),
        fields={"question": "\n\n".join(p.strip() for p in pieces if p.strip()), "stub": stub.rstrip()},
        program=Program(form="function" if stub else "stdin", stub=stub, tests=public, packed=packed,
                        entry_point=more["func_name"] if stub else ""),
    )  # fmt: skip


def contest(row: dict[str, Any], where: str, of: Definition) -> Entry | Skip:
    """open-r1/codeforces, as it is imported for training (pipo/data/codeforces.py)."""
    found = codeforces(row, where)
    if isinstance(found, Skip):
        return found
    return Entry(
        id=str(found.id), fields={"question": statement_of(row, tests_of(row, "examples"))}, level=found.level,
        program=Program(form="stdin", language=of.language, tests=[Case(**t) for t in found.tests or ()],
                        checker=found.checker, time_limit=found.time_limit, memory_limit=found.memory_limit),
    )  # fmt: skip


READERS: dict[str, Callable[[dict[str, Any], str, Definition], Entry | Skip]] = {
    PLAIN: prompt, "math": math, "gsm8k": gsm8k, "mmlu": mmlu, "gpqa": gpqa, "longbench": longbench,
    "humaneval": humaneval, "livecodebench": livecodebench, "codeforces": contest,
}  # fmt: skip


def _level(row: dict[str, Any]) -> int:
    level = row.get("level")
    return level if isinstance(level, int) else 0


def _said(text: str, field: str) -> str:
    """A text that is not empty. Raises BadRow."""
    if not text.strip():
        raise BadRow(f"{'no gold: ' if field in ('answer', 'test') else ''}field {field!r} is empty")
    return text


def order(count: int, seed: int, name: str) -> list[int]:
    """In which order the choices of an item stand: sorted by a hash of seed, item and place; version 1.

    It depends on the item alone, so that neither a part of a benchmark nor its order changes it.
    """

    def key(place: int) -> bytes:
        return hashlib.blake2b(f"choices-1\x1f{seed}\x1f{name}\x1f{place}".encode(), digest_size=16).digest()

    return sorted(range(count), key=key)


def _choice(name: str, question: str, choices: Sequence[str], right: int, of: Definition) -> Entry:
    """An entry of one question with lettered choices. Raises BadRow."""
    if not 2 <= len(choices) <= len(LETTERS):
        raise BadRow(f"{len(choices)} choices; there must be 2 to {len(LETTERS)}")
    if not 0 <= right < len(choices):
        raise BadRow(f"no gold: choice {right} of {len(choices)} does not exist")
    for letter, choice in zip(LETTERS, choices, strict=False):
        _said(choice, f"choice {letter}")
    places = list(range(len(choices))) if of.shuffle is None else order(len(choices), of.shuffle, name)
    lines = [f"{letter}) {choices[place].strip()}" for letter, place in zip(LETTERS, places, strict=False)]
    letters = LETTERS[: len(choices)]
    fields = {
        "question": _said(question, "question").strip(),
        "choices": "\n".join(lines),
        "letters": f"{', '.join(letters[:-1])} or {letters[-1]}",
    }
    return Entry(id=name, fields=fields, gold=LETTERS[places.index(right)])
