"""Published data sets to our questions: DAPO-Math, Codeforces, GSM8K, and plain math or chats. Torch-free.

A loader turns one published row into a question, or says why it is left out; what is not a row of that set at all is
an error that names its place. Schemas: BytedTsinghua-SIA/DAPO-Math-17k (each question stands in it about a hundred
times), open-r1/codeforces, openai/grade-school-math.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipo.data.codeforces import codeforces
from pipo.data.lines import objects, short, write_json, write_lines
from pipo.data.questions import Question
from pipo.data.sets import BadRow, Skip, dapo_math, gsm8k, math, messages
from pipo.errors import BadInput, BadRecord

Loader = Callable[[dict[str, Any], str], Question | Skip]
LOADERS: dict[str, Loader] = {
    "dapo-math": dapo_math, "codeforces": codeforces, "gsm8k": gsm8k, "math": math, "messages": messages,
}  # fmt: skip
SUFFIXES = (".jsonl", ".parquet")
FEW = 20
REPORT = ".report.json"
WHAT = "a published set is JSONL or parquet"


def import_questions(
    kind: str, paths: Sequence[Path], out: Path, *, plain: bool = False, split: str | None = None, seed: int = 0,
    limit: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the questions of a published set to ``out``; with ``split`` to ``OUT-sft.jsonl`` and ``OUT-opd.jsonl``.

    ``plain``: prompts instead of messages, for models without a chat template. ``split``: ``90/10``, shares of
    questions, drawn by ``seed``. ``limit``: the first so many questions. A question that came before is left out.

    Returns:
        The report, which lies in ``OUT.report.json`` too.

    Raises:
        BadInput: an unknown kind, a split of another form, a file that cannot be read as it is, no question at all.
        BadRecord: a row that is none of that set; the message names file and row.
    """
    if kind not in LOADERS:
        raise BadInput(f"unknown set {kind!r}; known are {', '.join(LOADERS)}")
    if limit is not None and limit < 1:
        raise BadInput(f"limit {limit} must be at least 1; leave it out for all questions")
    share = parse_split(split)
    left_out: dict[str, dict[str, Any]] = {}
    found: dict[bytes, Question] = {}
    ids: set[str] = set()
    rows = 0
    for where, row in source_rows(paths):
        if limit is not None and len(found) == limit:
            break
        rows += 1
        question = _load(kind, row, where)
        reason = question.reason if isinstance(question, Skip) else _repeated(question, found)
        if reason is not None:
            note = left_out.setdefault(reason, {"count": 0, "rows": []})
            note["count"] += 1
            note["rows"] += [where] * (len(note["rows"]) < FEW)
        elif isinstance(question, Question):
            if str(question.id) in ids:  # a file a split, say, each with numbers of its own
                question = msgspec.structs.replace(question, id=f"{question.id}-{len(found)}")
            ids.add(str(question.id))
            found[_key(question)] = question
    if not found:
        said = ", ".join(f"{reason}: {n['count']}" for reason, n in left_out.items()) or "no rows at all"
        raise BadInput(f"{', '.join(map(str, paths))} gave no question ({said})")
    questions = [as_plain(q) if plain else q for q in found.values()]
    files = {str(path): write_lines(path, part) for path, part in parts(questions, out, share, seed)}
    report = {
        "kind": kind, "sources": [str(p) for p in paths], "rows": rows, "questions": len(found), "files": files,
        "left_out": left_out, "plain": plain, "split": split, "seed": seed,
    }  # fmt: skip
    write_json(out.with_name(out.name + REPORT), report)
    return report


def _load(kind: str, row: Any, where: str) -> Question | Skip:
    if not isinstance(row, dict):
        raise BadRecord(f"{where}: {short(row)} is no JSON object; name a file of {kind}")
    try:
        return LOADERS[kind](row, where)
    except BadRow as e:
        raise BadRecord(f"{where}: {e}; a row of {kind} has other fields, name the set that this file is of") from e


def _key(question: Question) -> bytes:
    """What makes two questions one: their text, whatever its blanks; as a hash, since statements are long."""
    text = question.prompt or "\x1f".join(m["content"] for m in question.messages or ())
    return hashlib.sha256(" ".join(text.split()).encode()).digest()


def _repeated(question: Question, found: dict[bytes, Question]) -> str | None:
    before = found.get(_key(question))
    if before is None:
        return None
    same = (before.answer, before.tests) == (question.answer, question.tests)
    return "came before" if same else "came before with another answer"


def as_plain(question: Question) -> Question:
    """A question of one message as a prompt; of several, their texts one after the other."""
    if question.messages is None:
        return question
    prompt = "\n\n".join(m["content"] for m in question.messages)
    return msgspec.structs.replace(question, prompt=prompt, messages=None)


def parse_split(text: str | None) -> float | None:
    """``90/10`` as 0.9. Raises BadInput for another form."""
    if text is None:
        return None
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) > 0 and int(second) > 0):
        raise BadInput(f"split {text!r} must read SFT/OPD, two whole numbers above 0, e.g. 90/10")
    return int(first) / (int(first) + int(second))


def parts(
    questions: Sequence[Question], out: Path, share: float | None, seed: int
) -> Iterator[tuple[Path, list[Question]]]:
    """Files and their questions. Both parts keep the order of the set, and neither is empty.

    Raises:
        BadInput: fewer than two questions to split.
    """
    if share is None:
        yield out, list(questions)
        return
    n = len(questions)
    if n < 2:
        raise BadInput(f"{n} question cannot be split in two; leave --split out")
    first = min(max(round(share * n), 1), n - 1)
    chosen = set(random.Random(f"split/{seed}").sample(range(n), first))
    for name, inside in (("sft", True), ("opd", False)):
        yield (
            out.with_name(f"{out.stem}-{name}{out.suffix or '.jsonl'}"),
            [q for i, q in enumerate(questions) if (i in chosen) == inside],
        )


def source_rows(paths: Iterable[Path]) -> Iterator[tuple[str, Any]]:
    """(place, row) of all files; of a folder those with a known suffix, in order of their names, no hidden ones."""
    for path in paths:
        if path.is_dir():
            found = (p for p in path.rglob("*") if p.suffix in SUFFIXES)
            inside = sorted(p for p in found if not any(s.startswith(".") for s in p.relative_to(path).parts))
            if not inside:
                raise BadInput(f"{path} holds no {' or '.join(SUFFIXES)} file; name the files of the set")
            for file in inside:
                yield from _rows(file)
        else:
            yield from _rows(path)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise BadInput(f"{path} is not a file; {WHAT}, see `pipo data pull`")
    if path.suffix == ".parquet":
        yield from ((f"{path}: row {n}", row) for n, row in enumerate(_parquet(path)))
        return
    yield from ((f"{path}:{number}", row) for number, row in objects(path, WHAT))


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pandas

    try:
        table = pandas.read_parquet(path)
    except ImportError as e:
        raise BadInput(
            f"{path}: reading parquet needs pyarrow (`pip install pyarrow`); or give the set as JSONL"
        ) from e
    except (OSError, ValueError) as e:
        raise BadInput(f"{path} is no parquet file that can be read ({e}); fetch it again") from e
    names = list(table.columns)
    for values in table.itertuples(index=False, name=None):
        yield {name: _as_json(value) for name, value in zip(names, values, strict=True)}


def _as_json(value: Any) -> Any:
    """Arrays and numpy scalars of a table as lists and plain values."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_json(v) for v in value]
    if isinstance(value, dict):
        return {k: _as_json(v) for k, v in value.items()}
    return None if isinstance(value, float) and value != value else value
