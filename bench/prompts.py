"""Items as one model sees them: through its tokenizer's chat template where it has one, else as plain text. Torch-free.

Variants of one run may have different templates, so this is done for each variant, before its items are generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bench.tasks import Item
from pipo.data import chat


def prepare(items: Sequence[Item], tokenizer: Any, thinking: bool | None, task: str) -> list[Item]:
    """Items whose ``prompt`` is what the model is given. ``thinking``: the template's ``enable_thinking``.

    Raises:
        BadRecord: the template refuses an item's messages.
    """
    if not has_template(tokenizer):
        return list(items)
    return [
        item
        if item.messages is None
        else msgspec.structs.replace(
            item, prompt=chat.render(tokenizer, item.messages, True, thinking, f"{task}/{item.id}")
        )
        for item in items
    ]


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def remark(items: Sequence[Item], tokenizer: Any, thinking: bool | None, model: str) -> str | None:
    """What a person should hear about how a model is asked; None where there is nothing."""
    templated = has_template(tokenizer)
    if not templated and any(i.messages is not None for i in items):
        return f"{model} has no chat template: it gets the questions as plain text"
    if thinking is None:
        return None
    word = "on" if thinking else "off"
    if not templated or all(i.messages is None for i in items):
        return f"thinking {word} has no effect on {model}: its prompts go through no chat template"
    if "enable_thinking" not in str(tokenizer.chat_template):
        return f"thinking {word} has no effect on {model}: its chat template knows no such switch"
    return None
