"""The job ``draft-vocab``: the N most frequent tokens of a corpus, stored with a model as its draft vocabulary."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench import loading, record
from bench.record import SampleRecord
from pipo.errors import BadInput, BadModel, BadRecord
from pipo.jobs import JobContext
from pipo.lab import TASKS, resolve_model
from pipo.lab.tasks import draw_many, task_named

FIELDS = ("text", "prompt", "question", "problem", "solution", "response", "completion", "answer")
LAB_ITEMS = 1000  # a task: its solutions, which is what a lab model writes
TEXT_CHARS = 1 << 16  # lines of a .txt file that are tokenised together, so that any file fits in memory
BATCH = 64


class DraftVocabSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``draft-vocab``.

    ``size``: N. ``corpus``: .txt files, .jsonl files (string fields of ``FIELDS``) and run folders (the tokens of their
    samples); lab models need none. ``out``: the new model folder; one with a draft vocabulary is replaced.
    """

    model: str
    size: int
    out: str
    corpus: list[str] = []
    family: str | None = None


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Count, choose and write; EOS is always chosen and PAD never, ties go to the lower id.

    Returns:
        folder, size, vocabulary (of the model), tokens (counted), coverage (share of those that are inside).

    Raises:
        BadInput: a size out of range, an ``out`` that holds something else, a corpus that is empty or unreadable.
        BadModel: a model folder that cannot be used.
    """
    import torch

    from pipo.model import load_tokenizer
    from pipo.model.checkpoint import read_config
    from pipo.model.draft_vocab import LEAST, check_draft_ids, eos_ids

    settings = loading.read_spec(spec, DraftVocabSpec, "draft-vocab")
    folder, out = Path(resolve_model(settings.model, settings.family)).absolute(), Path(settings.out).absolute()
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    pad, eos, most = config.pad_token_id, eos_ids(config), config.vocab_size - 1
    least = max(LEAST, len(eos))
    if not least <= settings.size <= most:
        raise BadInput(
            f"size {settings.size} must lie in [{least}, {most}]: all EOS ids are in it, PAD is not, and the model's "
            f"vocabulary has {config.vocab_size}"
        )
    check_out(out, folder)
    counts: Counter[int] = Counter()
    for tokens in _tokens(settings.corpus, tokenizer, config, ctx):
        counts.update(tokens)
    counts.pop(pad, None)
    total = counts.total()
    if not total:
        raise BadInput(f"the corpus {', '.join(settings.corpus)} has no token; name files with text in them")
    ids = choose(counts, settings.size, config.vocab_size, pad, eos)
    checked = check_draft_ids(torch.tensor(sorted(ids)), config, "draft vocabulary")
    publish(folder, out, checked)
    return {
        "folder": str(out), "size": len(ids), "vocabulary": config.vocab_size, "tokens": total,
        "coverage": sum(counts[i] for i in ids) / total,
    }  # fmt: skip


def choose(counts: Counter[int], size: int, vocab: int, pad: int, eos: list[int]) -> list[int]:
    """The ``size`` most frequent ids, EOS first of all, PAD never; those of equal count by id."""
    others = sorted((i for i in range(vocab) if i != pad and i not in eos), key=lambda i: (-counts[i], i))
    return [*eos, *others[: size - len(eos)]]


def _tokens(corpus: list[str], tokenizer: Any, config: Any, ctx: JobContext) -> Iterator[list[int]]:
    """Token lists of the whole corpus, or of the lab's training split where none is named."""
    for number, name in enumerate(corpus):
        ctx.emit("progress", done=number, total=len(corpus), note=f"counting {Path(name).name}")
        path = Path(name)
        if path.is_dir():
            yield from _generated(path, config)
        else:
            yield from _encoded(_texts(path), tokenizer, config, name, ctx)
    if not corpus:
        yield from _encoded(_lab_texts(tokenizer), tokenizer, config, "the lab's training split", ctx)


def _encoded(texts: Iterable[str], tokenizer: Any, config: Any, name: str, ctx: JobContext) -> Iterator[list[int]]:
    batch: list[str] = []

    def flush() -> Iterator[list[int]]:
        ctx.check()
        rows: list[list[int]] = tokenizer(batch, add_special_tokens=False)["input_ids"] if batch else []
        for row in rows:
            if row and max(row) >= config.vocab_size:
                raise BadInput(f"{name} has token {max(row)}, the model's vocabulary ends at {config.vocab_size - 1}")
            yield row
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield from flush()
    yield from flush()


def _texts(path: Path) -> Iterator[str]:
    """The texts of a .txt or .jsonl file. Raises BadInput naming the file, and the line where one is bad."""
    if path.suffix not in (".txt", ".jsonl"):
        raise BadInput(f"{path} is neither a .txt or .jsonl file nor a run folder; a corpus is made of these")
    try:
        with open(path, encoding="utf-8") as lines:
            yield from _chunks(lines) if path.suffix == ".txt" else _fields(lines, path)
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise BadInput(f"{path} cannot be read ({why}); name a readable text file with --corpus") from e


def _chunks(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= TEXT_CHARS:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


def _fields(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            raise BadInput(f"{path}:{number} is not JSON ({e}); a corpus has one object a line") from e
        texts = [row[f] for f in FIELDS if isinstance(row.get(f), str)] if isinstance(row, dict) else []
        if not texts:
            raise BadInput(f"{path}:{number} has no text; give it a string in one of {', '.join(FIELDS)}")
        yield from texts


def _generated(folder: Path, config: Any) -> Iterator[list[int]]:
    """The tokens of a run's samples; those of another tokenizer are refused as far as they can be told."""
    try:
        records = record.read(folder / "records.jsonl")
    except BadRecord as e:
        raise BadInput(f"{folder} is no run folder to count tokens in: {e}") from e
    for r in records:
        if isinstance(r, SampleRecord):
            if r.pad_id != config.pad_token_id or any(not 0 <= t < config.vocab_size for t in r.places):
                raise BadInput(
                    f"{folder}: sample {r.item}/{r.sample} of {r.variant} has PAD {r.pad_id} and ids up to "
                    f"{max(r.places, default=-1)}, this model PAD {config.pad_token_id} and {config.vocab_size} ids; "
                    "name a run of models with this tokenizer"
                )
            yield r.places


def _lab_texts(tokenizer: Any) -> Iterator[str]:
    from pipo.lab.tokenizer import lab_tokenizer

    if tokenizer.get_vocab() != lab_tokenizer().get_vocab():
        raise BadInput("no corpus: only lab models have one of their own; name texts or run folders with --corpus")
    for task in TASKS:
        low, high = task_named(task).train_levels
        for item in draw_many(task, "train", LAB_ITEMS, list(range(low, high + 1))):
            yield item.solution


def check_out(out: Path, model: Path) -> None:
    """Raise BadInput unless ``out`` is new, empty, or a model folder with a draft vocabulary, and not the model's."""
    from pipo.model.draft_vocab import FILE

    if out.resolve() == model.resolve():
        raise BadInput(f"{out} is the model's own folder; name another one, the model stays as it is")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())) or (out / FILE).is_file():
        return
    raise BadInput(f"{out} exists and is no model folder with a draft vocabulary; name a new folder with --out")


def publish(model: Path, out: Path, ids: Any) -> None:
    """Make ``out``: the model's weights (hard links where the file system has them), its other files, the ids.

    The folder appears by rename, whole or not at all. Raises BadInput where it cannot be written, BadModel where the
    model has no weights.
    """
    from pipo.model.draft_vocab import FILE, write_draft_vocab

    if not any(f.name != FILE for f in model.glob("*.safetensors")):
        raise BadModel(f"{model} has no safetensors weights; a model folder holds config.json and model.safetensors")
    tmp, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    try:
        for folder in (tmp, old):
            shutil.rmtree(folder, ignore_errors=True)
        tmp.mkdir(parents=True)
        for file in sorted(model.iterdir()):
            if file.is_file() and file.suffix in (".json", ".safetensors", ".txt", ".jinja") and file.name != FILE:
                _copy(file.resolve(), tmp / file.name)
        write_draft_vocab(ids, tmp)
        if out.exists():
            out.rename(old)
        tmp.rename(out)
    except OSError as e:
        shutil.rmtree(tmp, ignore_errors=True)
        raise BadInput(f"cannot write {out} ({e.strerror}); choose another folder with --out") from e
    shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """Weights by hard link (they are replaced by rename, never changed in place), all else by copy."""
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(source, target)
