"""Chats to texts: rows with ``messages`` checked, and put through the tokenizer's chat template. Torch-free."""

from __future__ import annotations

from typing import Any

import jinja2

from pipo.data.lines import short
from pipo.errors import BadInput, BadRecord

THINKING_PREFIX = "<think>\n"  # begin of thinking, two tokens on Qwen3.5; it belongs to the prompt (the paper, SFT)
ROLES = ("system", "user", "assistant", "tool")
MEDIA = ("images", "videos", "audios", "tools")
CONTENT_KEYS = ("role", "content", "reasoning_content")


def check_messages(row: dict[str, Any], where: str) -> list[dict[str, str]]:
    """The messages of a row, a ``system`` beside them put in front.

    Raises:
        BadRecord: no list of messages, a role or a content that is not text, things beside text.
    """
    for key in MEDIA:
        if row.get(key):
            raise BadRecord(f"{where}: {key!r} {short(row[key])}: only text can be trained on; take such rows out")
    given = row["messages"]
    if not isinstance(given, list) or not given:
        raise BadRecord(f"{where}: messages {short(given)} must be a list of {{'role', 'content'}}, not an empty one")
    messages = [_message(m, where) for m in given]
    if row.get("system") is not None:
        if messages[0]["role"] == "system":
            raise BadRecord(f"{where}: 'system' stands beside a message of that role; leave one of the two out")
        messages.insert(0, _message({"role": "system", "content": row["system"]}, where))
    if all(m["role"] != "user" for m in messages):
        raise BadRecord(f"{where}: no message of the role 'user'; a chat begins with a question")
    return messages


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise BadRecord(f"{where}: message {short(message)} must have a role of {', '.join(ROLES)}, and a content")
    kept = {key: message[key] for key in CONTENT_KEYS if message.get(key) is not None}
    for key, value in kept.items():
        if not isinstance(value, str):
            raise BadRecord(
                f"{where}: {key} {short(value)} of the {message['role']} is no text; write it as one string"
            )
    if "content" not in kept:
        raise BadRecord(f"{where}: a message of the {message['role']} has no content; write it as one string")
    return kept


def split_answer(messages: list[dict[str, str]], where: str) -> list[dict[str, str]]:
    """The messages before the answer, which is the last one.

    Raises:
        BadRecord: the last message is not the assistant's, or is empty.
    """
    last = messages[-1]
    if last["role"] != "assistant":
        raise BadRecord(f"{where}: the last message is the {last['role']}'s; a row to train on ends with an answer")
    if not (last["content"].strip() or last.get("reasoning_content", "").strip()):
        raise BadRecord(f"{where}: the answer {short(last['content'])} is empty; take the row out")
    return messages[:-1]


def check_template(tokenizer: Any, where: str) -> None:
    """Raise BadInput where the tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            f"{where}: a row with 'messages' needs a chat template, and the tokenizer has none; use a model folder "
            "with chat_template.jinja, or write the row as 'prompt' and 'response' texts"
        )


def render(tokenizer: Any, messages: list[dict[str, str]], generate: bool, thinking: bool | None, where: str) -> str:
    """Messages as the text that the model sees. ``generate``: with the generation prompt at its end.

    ``thinking``: the template's ``enable_thinking``; None leaves it to the template.

    Raises:
        BadInput: no template. BadRecord: the template refuses these messages.
    """
    check_template(tokenizer, where)
    switch = {} if thinking is None else {"enable_thinking": thinking}
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **switch)
    except jinja2.TemplateError as e:
        raise BadRecord(f"{where}: the chat template refuses these messages ({e}); change or leave out the row") from e
    return str(text)
