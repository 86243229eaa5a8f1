"""One row of a training file: its shape, its texts, and its ids with the border of what is supervised. Torch-free."""

from __future__ import annotations

from typing import Any

from pipo.data import chat
from pipo.data.lines import short
from pipo.errors import BadRecord

ROWS = "training data is JSONL with 'prompt' and 'response', or with 'messages'"
PROMPTS = "prompts are JSONL with 'prompt', or with 'messages'"


def encode_all(given: list[str], tokenizer: Any) -> list[list[int]]:
    """Ids of each text, none added; a text alone gives the same."""
    found: list[list[int]] = tokenizer(
        given, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return found


def border(
    head: list[int], rest: list[int], is_chat: bool, tokenizer: Any, where: str
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Prompt and response ids from those of ``row_texts``. Raises BadRecord naming what is wrong with the row."""
    check_ids(head, tokenizer, "prompt", where)
    check_ids(rest, tokenizer, "chat" if is_chat else "response", where)
    prompt, response = _cut(head, rest, tokenizer, where) if is_chat else (head, rest)
    if not response or response == [tokenizer.eos_token_id]:
        raise BadRecord(f"{where}: nothing is left of the response but its end; take the row out")
    return prompt, response


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


def check_ids(ids: list[int], tokenizer: Any, name: str, where: str) -> list[int]:
    """The ids of a text.

    Raises:
        BadRecord: no token, a PAD among them (its places mean something else), or mostly unknown words.
    """
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
    return whole[:start], _to_eos(whole[start:], tokenizer)


def _to_eos(response: list[int], tokenizer: Any) -> list[int]:
    """Without what the template writes behind the answer's EOS (a line break), where that is blank."""
    eos = tokenizer.eos_token_id
    if eos is None or eos not in response:
        return response
    last = len(response) - response[::-1].index(eos)
    blank = not tokenizer.decode(response[last:]).strip()
    return response[:last] if blank else response
