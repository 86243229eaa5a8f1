"""Training files to rows of token ids: what is shown, what is supervised, and what was left out. Torch-free.

Two shapes, told apart row by row: ``{"prompt", "response"}``, texts that are taken as they are, and ms-swift's
``{"messages": [{"role", "content"}, ...]}`` (with ``system`` beside them or not), which go through the tokenizer's chat
template. Of a chat only the last answer is supervised, from behind the generation prompt and the thinking prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipo.data import chat
from pipo.data.lines import Noted, objects, short
from pipo.errors import BadInput, BadRecord

ROWS = "training data is JSONL with 'prompt' and 'response', or with 'messages'"
PROMPTS = "prompts are JSONL with 'prompt', or with 'messages'"


class Row(NamedTuple):
    """One training sequence: unsupervised prompt ids and supervised response ids (EOS included).

    ``source``: ``file.jsonl:12``, for messages; empty for rows that were made on the spot.
    """

    prompt: list[int]
    response: list[int]
    source: str = ""


@dataclass
class Report:
    """What reading a file left out (``over_long``, ``torn``) or noticed (``no_eos``: answers that do not end)."""

    rows: int = 0
    tokens: int = 0
    over_long: Noted = field(default_factory=Noted)
    torn: Noted = field(default_factory=Noted)
    no_eos: Noted = field(default_factory=Noted)

    def __str__(self) -> str:
        parts = [f"{self.rows} rows, {self.tokens} tokens"]
        names = {"over_long": "over-long and left out", "torn": "torn and left out", "no_eos": "without EOS at the end"}
        parts += [f"{name}: {noted}" for key, name in names.items() if (noted := getattr(self, key)).count]
        return "; ".join(parts)


@dataclass
class Rows:
    """Rows of a file in its order, and what was left out."""

    rows: Sequence[Row]
    report: Report


class Prompts(list[list[int]]):
    """Prompts of a file in its order; ``report`` says what was left out."""

    report: Report


def read_rows(
    path: Path, tokenizer: Any, *, max_length: int | None = None, thinking: bool | None = None
) -> Rows:  # fmt: skip
    """Read and tokenise a training file.

    ``max_length``: rows with more tokens, prompt and response together, are left out and counted. ``thinking``: the
    chat template's ``enable_thinking``; None leaves it to the template.

    Raises:
        BadInput: rows of messages and a tokenizer without a chat template; max_length below 2.
        BadRecord: no such file, no row that can be used, a row that is none (the message names file and line).
    """
    check_length(max_length)
    report = Report()
    rows: list[Row] = []
    for number, item in objects(path, ROWS, report.torn.add):
        where = f"{path}:{number}"
        prompt, response = row_ids(item, tokenizer, thinking, where)
        if max_length is not None and len(prompt) + len(response) > max_length:
            report.over_long.add(number)
            continue
        if tokenizer.eos_token_id is not None and response[-1] != tokenizer.eos_token_id:
            report.no_eos.add(number)
        report.rows, report.tokens = report.rows + 1, report.tokens + len(prompt) + len(response)
        rows.append(Row(prompt, response, f"{path.name}:{number}"))
    check_any(path, report, max_length, ROWS)
    return Rows(rows, report)


def read_prompts(
    path: Path, tokenizer: Any, *, max_length: int | None = None, thinking: bool | None = None
) -> Prompts:  # fmt: skip
    """Prompts of a file as ids, with the thinking prefix where the chat template has one; answers are left out.

    ``max_length``: longer prompts are left out and counted. Raises as ``read_rows``.
    """
    check_length(max_length)
    report = Report()
    prompts = Prompts()
    for number, item in objects(path, PROMPTS, report.torn.add):
        ids = prompt_ids(item, tokenizer, thinking, f"{path}:{number}")
        if max_length is not None and len(ids) > max_length:
            report.over_long.add(number)
            continue
        report.rows, report.tokens = report.rows + 1, report.tokens + len(ids)
        prompts.append(ids)
    check_any(path, report, max_length, PROMPTS)
    prompts.report = report
    return prompts


def check_length(max_length: int | None) -> None:
    """Raise BadInput for a max_length that no row could keep to."""
    if max_length is not None and max_length < 2:
        raise BadInput(f"max_length {max_length} must be at least 2, a token of prompt and one of response")


def check_any(path: Path, report: Report, max_length: int | None, what: str) -> None:
    """Raise BadRecord where a file gave no row."""
    if report.rows:
        return
    if report.over_long.count:
        raise BadRecord(
            f"{path}: all {report.over_long.count} rows are longer than max_length {max_length}; raise it, or name a "
            "file with shorter rows"
        )
    raise BadRecord(f"{path} holds no whole line; {what}")


def row_ids(item: Any, tokenizer: Any, thinking: bool | None, where: str) -> tuple[list[int], list[int]]:
    """Prompt and response ids of one row. Raises as ``read_rows``."""
    prompt, response, is_chat = row_texts(item, tokenizer, thinking, where)
    if not is_chat:
        return ids_of(prompt, tokenizer, "prompt", where), ids_of(response, tokenizer, "response", where)
    head, whole = ids_of(prompt, tokenizer, "prompt", where), ids_of(response, tokenizer, "chat", where)
    return _cut(head, whole, tokenizer, where)


def row_texts(item: Any, tokenizer: Any, thinking: bool | None, where: str) -> tuple[str, str, bool]:
    """(prompt, response, False) of a row of texts; (prompt, prompt and response together, True) of a chat."""
    if shape_of(item, where) == "messages":
        messages = chat.check_messages(item, where)
        before = chat.split_answer(messages, where)
        prompt = chat.render(tokenizer, before, True, thinking, where)
        return prompt, chat.render(tokenizer, messages, False, thinking, where), True
    if "response" not in item:
        raise BadRecord(f"{where}: {short(item)} has a prompt and no response; {ROWS}")
    return _text(item, "prompt", where), _text(item, "response", where), False


def prompt_ids(item: Any, tokenizer: Any, thinking: bool | None, where: str) -> list[int]:
    """The ids of one prompt. Raises as ``read_rows``."""
    return ids_of(prompt_text(item, tokenizer, thinking, where), tokenizer, "prompt", where)


def prompt_text(item: Any, tokenizer: Any, thinking: bool | None, where: str) -> str:
    """The prompt of one row as the model sees it: a text as it is, or messages without their last answer."""
    if shape_of(item, where) == "prompt":
        return _text(item, "prompt", where)
    messages = chat.check_messages(item, where)
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return chat.render(tokenizer, messages, True, thinking, where)


def shape_of(item: Any, where: str) -> str:
    """``messages`` or ``prompt``. Raises BadRecord for a row that is neither or both."""
    if not isinstance(item, dict):
        raise BadRecord(f"{where}: {short(item)} is no JSON object; {ROWS}")
    found = [key for key in ("prompt", "messages") if key in item]
    if len(found) == 2:
        raise BadRecord(f"{where}: a row has 'prompt' or 'messages', not both; leave one out")
    if not found:
        raise BadRecord(f"{where}: keys {short(sorted(item))} have neither 'prompt' nor 'messages'; {ROWS}")
    return found[0]


def _text(item: dict[str, Any], key: str, where: str) -> str:
    text = item[key]
    if not isinstance(text, str):
        raise BadRecord(f"{where}: {key} {short(text)} is no text; write it as one string")
    if not text.strip():
        raise BadRecord(f"{where}: the {key} {short(text)} is empty; take the row out")
    return text


def ids_of(text: str, tokenizer: Any, name: str, where: str) -> list[int]:
    """Token ids of a text, none added.

    Raises:
        BadRecord: no token, a PAD among them (its places mean something else), or mostly unknown words.
    """
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return check_ids(ids, tokenizer, name, where)


def check_ids(ids: list[int], tokenizer: Any, name: str, where: str) -> list[int]:
    """The ids, checked as ``ids_of`` does."""
    if not ids:
        raise BadRecord(f"{where}: the {name} has no token that the tokenizer knows; take the row out")
    pad = tokenizer.pad_token_id
    if pad is not None and pad != tokenizer.eos_token_id and pad in ids:
        raise BadRecord(
            f"{where}: the {name} has the PAD token {tokenizer.pad_token!r} (id {pad}) at place {ids.index(pad)}; PADs "
            "come in by training alone, take it out of the text"
        )
    unknown = ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
    if 2 * unknown > len(ids):
        raise BadRecord(
            f"{where}: {unknown} of {len(ids)} tokens of the {name} are unknown to the tokenizer; name the file's model"
        )
    return ids


def _cut(head: list[int], whole: list[int], tokenizer: Any, where: str) -> tuple[list[int], list[int]]:
    """A chat's ids cut behind the generation prompt and the thinking prefix, what follows EOS left out."""
    if whole[: len(head)] != head:
        place = next((i for i, (a, b) in enumerate(zip(head, whole, strict=False)) if a != b), len(whole))
        raise BadRecord(
            f"{where}: the chat template writes the generation prompt and the answer differently from token {place} on "
            f"({short(tokenizer.decode(head[place:]))} against {short(tokenizer.decode(whole[place : place + 8]))}); "
            "an answer without thinking needs thinking off, one with it needs thinking on"
        )
    start = len(head)
    prefix = tokenizer.encode(chat.THINKING_PREFIX, add_special_tokens=False)
    if whole[start : start + len(prefix)] == prefix:
        start += len(prefix)
    response = _to_eos(whole[start:], tokenizer)
    if not response or response == [tokenizer.eos_token_id]:
        raise BadRecord(f"{where}: nothing of the answer is left behind the generation prompt; take the row out")
    return whole[:start], response


def _to_eos(response: list[int], tokenizer: Any) -> list[int]:
    """Without what the template writes behind the answer's EOS (a line break), where that is blank."""
    eos = tokenizer.eos_token_id
    if eos is None or eos not in response:
        return response
    last = len(response) - response[::-1].index(eos)
    blank = not tokenizer.decode(response[last:]).strip()
    return response[:last] if blank else response
