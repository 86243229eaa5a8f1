"""Whether two tokenizers mean the same by an id, which distillation from one model to another needs."""

from __future__ import annotations

from typing import Any


def same_vocabulary(one: Any, other: Any, names: tuple[str, str] = ("the first", "the second")) -> str | None:
    """None where each id stands for the same token in both tokenizers, else a line that names the lowest that does not.

    A PAD that only one of them has is no difference, as long as its id is free in the other: PADs are stripped before
    the other model sees a text. How text is split is not compared: ids are handed over, not text.
    """
    a, b = ({i: token for token, i in t.get_vocab().items()} for t in (one, other))
    for mine, own, theirs in ((a, one, b), (b, other, a)):
        pad = own.pad_token_id
        if pad is not None and pad not in theirs and own.pad_token not in theirs.values():
            del mine[pad]
    for i in sorted(a.keys() | b.keys()):
        if a.get(i) != b.get(i):
            told = [f"{token!r}" if (token := v.get(i)) is not None else "nothing" for v in (a, b)]
            return (
                f"id {i} is {told[0]} in {names[0]} and {told[1]} in {names[1]} "
                f"({len(a):,} and {len(b):,} tokens); both must share one vocabulary"
            )
    return None
