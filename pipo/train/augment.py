"""PADs: where training puts them and how they are taken out again. Pure functions on lists of token ids.

Invariants: every length is even; PAD stands only at odd places; an odd prompt gets one PAD after its last token.
"""

from __future__ import annotations

import random
from typing import Literal

from pipo.errors import BadInput

Augmentation = Literal["split", "shift"]


def pad_prompt(prompt: list[int], pad: int) -> list[int]:
    """The prompt with one PAD after its last token where its length is odd."""
    return prompt + [pad] * (len(prompt) % 2)


def draw_rho(rng: random.Random, rho_max: float, all_pad: float = 0.0) -> float:
    """A sequence's share of split pairs: U(0, rho_max), or 1 with probability ``all_pad``."""
    if not (0 <= rho_max <= 1 and 0 <= all_pad <= 1):
        raise BadInput(f"rho_max {rho_max} and all_pad {all_pad} must lie in [0, 1]")
    return 1.0 if rng.random() < all_pad else rng.random() * rho_max


def augment(response: list[int], rho: float, kind: Augmentation, pad: int, rng: random.Random) -> list[int]:
    """Pair up a response, with PADs as a rejected draft would leave them.

    ``split``: each pair (a, b) becomes (a, PAD), (b, PAD) with probability rho, so PADs come two by two (the
    paper's). ``shift``: (a, PAD) with probability rho, and pairing goes on from b, as serving does. rho 0 adds no PAD
    but the one that an odd length needs at its end.
    """
    if kind not in ("split", "shift"):
        raise BadInput(f"augmentation {kind!r} must be 'split' or 'shift'")
    out: list[int] = []
    i = 0
    while i < len(response):
        a = response[i]
        if i + 1 == len(response):
            out += [a, pad]
            i += 1
        elif rng.random() < rho:
            out += [a, pad]
            i += 1
            if kind == "split":
                out += [response[i], pad]
                i += 1
        else:
            out += [a, response[i + 1]]
            i += 2
    return out


def compact(ids: list[int], pad: int) -> tuple[list[int], list[int]]:
    """Strip PADs for a teacher that has never seen them.

    Returns the real tokens, and for every place the index of its token among them; a PAD place inherits the index of
    the real token before it (-1 before the first).
    """
    real: list[int] = []
    index: list[int] = []
    for token in ids:
        if token != pad:
            real.append(token)
        index.append(len(real) - 1)
    return real, index
