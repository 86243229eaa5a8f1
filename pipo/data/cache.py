"""Tokenised training files, kept: one safetensors file for each file, tokenizer and setting. Torch-free, no pickle.

A cache is named by a fingerprint of all it follows from, so a change makes another one and an old one is never wrong.
Its ids are mapped, not read. A file that is not whole is made anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors.numpy import save

from pipo.data.lines import replace
from pipo.data.packed import Packed
from pipo.errors import BadRecord

FORMAT = 1  # raise it when the same file gives other rows than before
DTYPES = {"I32": np.int32, "I64": np.int64}
CHUNK = 1 << 22


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content. Raises BadRecord where it cannot be read."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            while block := f.read(CHUNK):
                found.update(block)
    except OSError as e:
        raise BadRecord(f"{path} cannot be read ({e.strerror}); name a training file that can be") from e
    return found.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of what decides ids: the tokenizer.json, the chat template, and which ids are PAD, EOS and unknown."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    ends = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    parts = [body, json.dumps(getattr(tokenizer, "chat_template", None), sort_keys=True), json.dumps(ends)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def fingerprint(path: Path, tokenizer: Any, thinking: bool | None) -> str:
    """16 hex digits of all that a file's rows follow from."""
    parts = [str(FORMAT), path.name, file_hash(path), tokenizer_hash(tokenizer), str(thinking)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def cache_file(folder: Path, path: Path, tokenizer: Any, thinking: bool | None) -> Path:
    """Where the rows of a file are kept, or would be."""
    return folder / f"{path.stem}-{fingerprint(path, tokenizer, thinking)}.safetensors"


def store(file: Path, packed: Packed, torn: list[int]) -> None:
    """Write a cache file, by rename. Raises BadInput where it cannot be written."""
    about = json.dumps({"fingerprint": _mark(file), "torn": torn})  # one value: the order of several is not fixed

    def fill(f: IO[bytes]) -> int:
        return f.write(save(packed.arrays(), {"about": about}))

    replace(file, fill)


def load(file: Path) -> tuple[Packed, list[int]] | None:
    """The rows and torn lines of a cache file, ids mapped; None where it is absent, cut or another one's."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as f:
            start = 8 + int.from_bytes(f.read(8), "little")
            if start > size:
                return None
            header = json.loads(f.read(start - 8))
        about = json.loads(header.pop("__metadata__")["about"])
        if about["fingerprint"] != _mark(file) or start + max(t["data_offsets"][1] for t in header.values()) != size:
            return None
        arrays = {
            name: np.memmap(file, DTYPES[t["dtype"]], "r", start + t["data_offsets"][0], tuple(t["shape"]))
            for name, t in header.items()
        }
        packed = Packed(**arrays)
        return (packed, about["torn"]) if packed.is_whole() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mark(file: Path) -> str:
    """The fingerprint in a cache file's name."""
    return file.stem.rpartition("-")[2]
