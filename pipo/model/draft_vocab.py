"""A draft vocabulary: the few tokens onto which the MTP head projects when it drafts, stored beside the weights.

Reading the whole head a second time for a draft costs as much as reading a fifth of a small model. Over the N most
frequent tokens it costs next to nothing; what the head cannot draft, verification or the backbone still says. The
training forward never uses it. The file ``draft_vocab.safetensors`` has one tensor, ``ids``: int64 [N].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipo.errors import BadModel

FILE = "draft_vocab.safetensors"
LEAST = 2


def eos_ids(config: Any) -> list[int]:
    """The end-of-sequence ids of a model's config, which may name one, several or none."""
    eos = config.eos_token_id
    return [] if eos is None else list(eos) if isinstance(eos, list | tuple) else [eos]


def check_draft_ids(ids: torch.Tensor, config: Any, where: str) -> torch.Tensor:
    """The ids [N] int64 in ascending order. Raises BadModel, its message beginning with ``where``, for any others."""
    vocab, pad = config.vocab_size, config.pad_token_id
    if ids.dtype != torch.int64 or ids.ndim != 1:
        kind = str(ids.dtype).removeprefix("torch.")
        raise BadModel(f"{where}: ids are {kind} {list(ids.shape)}; they must be int64 of one dimension")
    if len(ids) < LEAST:
        raise BadModel(f"{where}: {len(ids)} ids are no vocabulary; it needs at least {LEAST}")
    if bad := [i for i in ids.tolist() if not 0 <= i < vocab]:
        raise BadModel(f"{where}: id {bad[0]} is outside the model's vocabulary of {vocab}; build it from this model")
    ordered, counts = ids.unique(return_counts=True)
    if len(ordered) < len(ids):
        raise BadModel(f"{where}: id {ordered[counts > 1][0]} stands there twice; each token must be there once")
    if (ordered == pad).any():
        raise BadModel(f"{where}: PAD ({pad}) is in it, which is never drafted; leave it out")
    if lost := sorted(set(eos_ids(config)) - set(ordered.tolist())):
        raise BadModel(f"{where}: a draft vocabulary without EOS ({lost[0]}) could never draft the end; put it in")
    return ordered


def read_draft_vocab(folder: Path, config: Any) -> torch.Tensor | None:
    """The draft vocabulary of a model folder, int64 [N] ascending; None where it has none. Raises BadModel."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as e:
        raise BadModel(f"{path} cannot be read as safetensors ({e}); build it again or take it away") from e
    if set(tensors) != {"ids"}:
        names = ", ".join(sorted(tensors)) or "nothing"
        raise BadModel(f"{path} holds {names}; a draft vocabulary is one tensor named ids")
    return check_draft_ids(tensors["ids"], config, str(path))


def write_draft_vocab(ids: torch.Tensor | None, folder: Path) -> None:
    """Write a draft vocabulary into a model folder, by rename; None takes away the one that is there."""
    if ids is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    tmp = folder / (FILE + ".tmp")
    save_file({"ids": ids.detach().to("cpu").contiguous()}, tmp)
    tmp.replace(folder / FILE)
