"""A PAD of its own for a backbone that has none: which id it takes, the tokenizer's token, the rows of the weights.

PIPO writes PAD into sequences as the second half of a pair, so it must be a token that no text has and that ends
nothing. Most published tokenizers name no PAD, or name EOS. In this order one is found: the tokenizer's PAD where it is
a token of its own; a special token made for padding; a row of the embedding that the tokenizer does not use; a reserved
special token; one row more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipo.errors import BadModel

TOKEN = "<|pad|>"
FOR_PADDING = re.compile(r"[<\[]?\|?_?(finetune_right_)?pad(_id|_token)?_?\|?[>\]]?", re.IGNORECASE)
RESERVED = re.compile(r"reserved|unused|extra_id", re.IGNORECASE)
TABLES = ("backbone.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class Pad:
    """PAD's id, and the vocabulary that the model needs for it.

    ``rows``: size of the vocabulary with PAD. ``known``: ids from 0 on that the tokenizer had, over which the mean
    embedding is taken. ``fresh``: whether PAD's row is to be set to it. ``ends``: ids that end a text, PAD not among
    them. ``notes``: what was done, a line each; empty where nothing was.
    """

    id: int
    rows: int
    known: int
    fresh: bool
    ends: list[int]
    notes: list[str] = field(default_factory=list)


def choose_pad(tokenizer: Any, pad: int | None, ends: list[int], rows: int, folder: Path) -> Pad:
    """Find or make PAD, and let ``tokenizer`` know it.

    Args:
        pad: what config.json names as PAD, if anything.
        ends: what config.json and generation_config.json name as EOS; the tokenizer's own is added.
        rows: the vocabulary of config.json.

    Raises:
        BadModel: the tokenizer knows ids that the model has no row for.
    """
    vocab: dict[str, int] = tokenizer.get_vocab()
    known = max(vocab.values()) + 1
    if known > rows:
        raise BadModel(
            f"{folder / 'tokenizer.json'} knows ids up to {known - 1}, the model's vocabulary ends at {rows - 1}; "
            "it is the tokenizer of another model"
        )
    own = tokenizer.eos_token_id
    all_ends = ends + [own] if own is not None and own not in ends else ends
    named, its_token = tokenizer.pad_token_id, tokenizer.pad_token
    if named is not None and named not in (own, tokenizer.bos_token_id, tokenizer.unk_token_id):
        # the tokenizer tells PAD and EOS apart; a config that calls PAD an end as well is out of step with it
        found, fresh, notes = int(named), False, _named(tokenizer, pad, ends)
    else:
        found, fresh, how = _make(tokenizer, pad, all_ends, rows, known)
        why = "the tokenizer names no PAD" if named is None else f"{its_token!r} has another meaning"
        notes = [f"PAD is {tokenizer.pad_token!r}, id {found}: {why}; {how}"]
    if found in all_ends:
        all_ends = [e for e in all_ends if e != found]
    return Pad(found, max(rows, found + 1), known, fresh, all_ends, notes)


def _named(tokenizer: Any, pad: int | None, ends: list[int]) -> list[str]:
    found, token = tokenizer.pad_token_id, tokenizer.pad_token
    if found in ends:
        return [f"PAD is {token!r}, id {found}, as the tokenizer says; it ends no text, though the config says so"]
    return [] if pad == found else [f"PAD is {token!r}, id {found}, as the tokenizer says; config.json says {pad}"]


def _make(tokenizer: Any, pad: int | None, ends: list[int], rows: int, known: int) -> tuple[int, bool, str]:
    """Id of PAD, whether its row is fresh, and how it was found. Names it to the tokenizer."""
    taken = {*ends, tokenizer.bos_token_id, tokenizer.unk_token_id}
    template = tokenizer.chat_template or ""
    special = {
        i: str(t)
        for i, t in sorted(tokenizer.added_tokens_decoder.items())
        if t.special and i not in taken and str(t) not in str(template)
    }
    if pad is not None and pad in special:
        tokenizer.pad_token = special[pad]
        return pad, False, "config.json names it"
    for i, token in special.items():
        if FOR_PADDING.fullmatch(token):
            tokenizer.pad_token = token
            return i, False, "a token that was made for it"
    reserved = [i for i, token in special.items() if RESERVED.search(token)]
    if known == rows and reserved:
        tokenizer.pad_token = special[reserved[-1]]
        return reserved[-1], True, "a reserved token, its row set to the mean embedding"
    tokenizer.add_special_tokens({"pad_token": TOKEN})
    where = "in an unused row" if known < rows else f"in one row more ({rows + 1:,})"
    return int(tokenizer.pad_token_id), True, f"added {where}, set to the mean embedding"


@torch.no_grad()
def make_rows(tensors: dict[str, torch.Tensor], pad: Pad, rows: int) -> None:
    """Give PAD its row in the embedding and in a head of its own, in place; ``rows``: the vocabulary before.

    Tensors of another height are left as they are, for the check that comes later to name.
    """
    for name in TABLES:
        table = tensors.get(name)
        if table is None or len(table) != rows or not pad.fresh:
            continue
        mean = table[: pad.known].float().mean(0, keepdim=True).to(table.dtype)
        table = torch.cat([table, mean.expand(pad.rows - rows, -1)])
        table[pad.id] = mean[0]
        tensors[name] = table
