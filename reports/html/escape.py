"""Hostile text made harmless: signs that cannot be seen are spelled out, JSON may stand inside a script element."""

from __future__ import annotations

import html
import json
import re
from typing import Any, overload

LABEL = 300  # characters of a name or an answer

# Signs that turn the direction of text or that nobody sees. Joiners (200C, 200D) stay: scripts and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with control signs spelled out: ``␛`` for escape, ``⟨U+202E⟩`` for what turns text round.

    Newlines and tabs stay; a carriage return becomes a newline, as a browser would read it.
    """
    return _UNSEEN.sub(_spelled, text.replace("\r\n", "\n").replace("\r", "\n"))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


@overload
def label(text: str) -> str: ...
@overload
def label(text: None) -> None: ...
def label(text: str | None) -> str | None:
    """``visible`` for names and answers, however long they are; None stays None."""
    if text is None or len(text) <= LABEL:
        return None if text is None else visible(text)
    return visible(f"{text[:LABEL]} … ({len(text):,} characters)")


def attribute(text: str) -> str:
    """Text for between tags or for an attribute in quotes."""
    return html.escape(text, quote=True)


def script_json(value: Any) -> str:
    """JSON that no HTML parser takes for markup, whatever strings it holds: no ``<``, ``>`` or ``&`` is left."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
