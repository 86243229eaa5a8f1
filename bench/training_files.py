"""The jobs ``data-cache`` and ``data-show``: training files tokenised once, and looked at before anything trains.

Jobs because tokenizers come with transformers, which the worker has loaded.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec

from bench import loading
from pipo.config import paths
from pipo.data.build import spread
from pipo.data.lines import objects
from pipo.data.rows import Report, Rows, read_prompts, read_rows
from pipo.data.texts import ROWS, shape_of
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab import resolve_model

BORDER = "│"
HEAD, TAIL = 240, 120  # characters of a text that are shown where it is longer


class FileSpec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of both jobs. ``model``: whose tokenizer; ``thinking``: the chat template's ``enable_thinking``."""

    file: str
    model: str
    thinking: bool | None = None
    max_length: int | None = None
    family: str | None = None


class ShowSpec(FileSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``data-show``. ``rows``: how many of the first rows are shown whole or in part."""

    rows: int = 3

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise BadInput(f"rows {self.rows} must be at least 0")


def run_cache(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Tokenise a training file into the cache, or find it there; returns its counts and the cache's path."""
    settings = loading.read_spec(spec, FileSpec, "data-cache")
    tokenizer = training_tokenizer(settings.model, settings.family)
    found = _read(Path(settings.file), tokenizer, settings, ctx, keep=True)
    assert found.cache is not None
    return {**_counts(found.report), "cache": str(found.cache), "bytes": found.cache.stat().st_size}


def run_show(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """What a training file holds for a model.

    Returns:
        kind (``rows`` or ``prompts``), headline, counts by reason, lengths {prompt, response, row: sum, mean, sd, min,
        quantiles, max}, first [{source, text (border marked), prompt_tokens, response_tokens, last (ids)}].
    """
    settings = loading.read_spec(spec, ShowSpec, "data-show")
    tokenizer, path = training_tokenizer(settings.model, settings.family), Path(settings.file)
    if is_prompts(path):
        return _show_prompts(path, tokenizer, settings)
    found = _read(path, tokenizer, settings, ctx, keep=False)
    lengths, responses = found.rows.lengths(), found.rows.response_lengths()
    return {
        "kind": "rows",
        "headline": headline(len(lengths), "rows", spread(lengths)),
        **_counts(found.report),
        "lengths": {
            "prompt": spread([a - b for a, b in zip(lengths, responses, strict=True)]),
            "response": spread(responses), "row": spread(lengths),
        },
        "first": [_first(row, tokenizer) for row in found.rows[: settings.rows]],
    }  # fmt: skip


def training_tokenizer(model: str, family: str | None = None) -> Any:
    """The tokenizer that training a model takes: a plain backbone's with the PAD that it gets."""
    from pipo.model import load_tokenizer
    from pipo.model.checkpoint import read_text
    from pipo.model.students import prepare_backbone

    folder = Path(resolve_model(model, family))
    if read_text(folder).get("compressor_type") is not None:
        return load_tokenizer(folder)
    return prepare_backbone(folder)[0]


def is_prompts(path: Path) -> bool:
    """Whether a file's first row has no answer to train on. Raises BadRecord for a file without rows."""
    for number, row in itertools.islice(objects(path, ROWS), 1):
        if shape_of(row, f"{path}:{number}") == "prompt":
            return "response" not in row
        messages = row["messages"]
        last = messages[-1] if isinstance(messages, list) and messages else None
        return isinstance(last, dict) and last.get("role") == "user"
    return False


def headline(count: int, what: str, of: dict[str, float]) -> str:
    """``95,969 rows (mean 24.9K tokens, median 21.6K, sd 14.9K)``."""
    return f"{count:,} {what} (mean {_k(of['mean'])} tokens, median {_k(of['median'])}, sd {_k(of['sd'])})"


def _k(value: float) -> str:
    return f"{value / 1000:.1f}K" if value >= 1000 else f"{value:.0f}"


def _read(path: Path, tokenizer: Any, settings: FileSpec, ctx: JobContext, keep: bool) -> Rows:
    total = _line_count(path) if path.is_file() else 0

    def tick(line: int) -> None:
        ctx.check()
        ctx.emit("progress", done=line, total=total, note=path.name)

    return read_rows(
        path, tokenizer, max_length=settings.max_length, thinking=settings.thinking,
        cache=paths().tokenised, keep=keep, tick=tick,
    )  # fmt: skip


def _line_count(path: Path) -> int:
    with open(path, "rb") as f:
        return sum(1 for _ in f)


def _show_prompts(path: Path, tokenizer: Any, settings: ShowSpec) -> dict[str, Any]:
    prompts = read_prompts(path, tokenizer, max_length=settings.max_length, thinking=settings.thinking)
    lengths = spread([len(p) for p in prompts])
    return {
        "kind": "prompts",
        "headline": headline(len(prompts), "prompts", lengths),
        **_counts(prompts.report),
        "lengths": {"prompt": lengths},
        "first": [
            {"source": "", "text": shortened(tokenizer.decode(p)) + BORDER, "prompt_tokens": len(p),
             "response_tokens": 0, "last": p[-2:]}
            for p in prompts[: settings.rows]
        ],
    }  # fmt: skip


def _first(row: Any, tokenizer: Any) -> dict[str, Any]:
    """A row as people read it: what is shown, the border, what is supervised."""
    text = shortened(tokenizer.decode(row.prompt)) + BORDER + shortened(tokenizer.decode(row.response))
    return {"source": row.source, "text": text, "prompt_tokens": len(row.prompt),
            "response_tokens": len(row.response), "last": row.response[-2:]}  # fmt: skip


def shortened(text: str) -> str:
    """A text with its middle left out where it is long."""
    if len(text) <= HEAD + TAIL:
        return text
    return f"{text[:HEAD]} [... {len(text) - HEAD - TAIL} characters ...] {text[-TAIL:]}"


def _counts(report: Report) -> dict[str, Any]:
    parts = {"over_long": report.over_long, "torn": report.torn, "no_eos": report.no_eos}
    return {"rows": report.rows, "tokens": report.tokens, **{k: msgspec.to_builtins(v) for k, v in parts.items()}}
