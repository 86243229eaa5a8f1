"""What a benchmark is: one TOML each, those beside this file and any that a user writes."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from string import Template

import msgspec

from pipo.errors import BadInput

HERE = Path(__file__).resolve().parent
DEFAULT_BUDGETS = {"tight": 1024, "loose": 2048}
SCORERS = ("exact", "math", "choice", "code")
PLAIN = "prompt"  # the schema whose rows hold the whole prompt and the answer
SHAPE = "it has name, file, and if wanted schema, prompt, scorer, shuffle, fields, only, since and [budgets]"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Slots a sample: ``tight`` is read off the run under ``loose``."""

    tight: int = DEFAULT_BUDGETS["tight"]
    loose: int = DEFAULT_BUDGETS["loose"]


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a prompt: ``$field`` stands for what the schema gives.

    ``plain``: for models without a chat template, where that should be another text. ``function``: for programs that
    are functions.
    """

    text: str
    plain: str | None = None
    function: str | None = None


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A benchmark.

    ``files``: patterns of its file in a folder of the user's, ``hub_files`` in the folder that was fetched from
    ``hub``; the first pattern that finds something counts. ``file``: a user's own, beside his TOML. ``schema``: how a
    row is read (readers.py). ``prompt``: a version in prompts.toml. ``shuffle``: seed of the order of choices; left
    out, they stand as published. ``fields``: new name -> name in the file. ``only``: field -> the value that rows must
    have. ``since``, ``until``: first day of the window, first day after it. ``items``: how many there should be.
    ``paper_items``: how many the paper counts. ``language``: of programs.
    ``hidden``: its authors ask that items are not shown in plain text; runs do not copy them.
    """

    name: str
    about: str = ""
    file: str | None = None
    files: list[str] = []
    hub: str | None = None
    hub_files: list[str] = []
    schema: str = PLAIN
    prompt: str | None = None
    scorer: str = "exact"
    shuffle: int | None = None
    fields: dict[str, str] = {}
    only: dict[str, str] = {}
    since: str | None = None
    until: str | None = None
    items: int | None = None
    paper_items: int | None = None
    language: str = "python"
    source: str = ""
    licence: str = ""
    hidden: bool = False
    budgets: Budgets = Budgets()


NAMES = tuple(sorted(p.stem for p in HERE.glob("*.toml") if p.stem != "prompts"))


@cache
def prompts() -> dict[str, Prompt]:
    """All versions of prompts by name. A version is never changed once results were made with it; add another."""
    return msgspec.convert(tomllib.loads((HERE / "prompts.toml").read_text(encoding="utf-8")), dict[str, Prompt])


@cache
def shipped(name: str) -> Definition:
    """The definition of a benchmark that is known by name. Raises BadInput that lists them."""
    if name not in NAMES:
        raise BadInput(f"unknown benchmark {name!r}; known are {', '.join(NAMES)}")
    return read_definition(HERE / f"{name}.toml")


def read_definition(path: Path) -> Definition:
    """The definition in a TOML file.

    Raises:
        BadInput: it cannot be read, has unknown keys, or names a schema, prompt or scorer that does not exist.
    """
    from pipo.data.benchmarks.readers import READERS

    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Definition)
    except OSError as e:
        raise BadInput(f"{path} cannot be read ({e.strerror}); name an existing task file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
        raise BadInput(f"{path} is no task file ({e}); {SHAPE}") from e
    budgets = msgspec.to_builtins(found.budgets)
    if not 1 <= budgets["tight"] <= budgets["loose"]:
        raise BadInput(f"{path}: budgets {budgets} must have 1 <= tight <= loose")
    for key, value, known in (("schema", found.schema, tuple(READERS)), ("scorer", found.scorer, SCORERS),
                              ("prompt", found.prompt, (None, *prompts()))):  # fmt: skip
        if value not in known:
            raise BadInput(f"{path}: {key} {value!r} is none of {', '.join(k for k in known if k)}")
    if (found.schema == PLAIN) != (found.prompt is None):
        raise BadInput(f"{path}: schema {found.schema!r} and prompt {found.prompt!r}: rows of the schema "
                       f"{PLAIN!r} bring their prompts, all others need one of prompts.toml")  # fmt: skip
    if path.parent != HERE and found.file is None:
        raise BadInput(f"{path} names no file; {SHAPE}")
    for key in ("since", "until"):
        day = getattr(found, key)
        if day is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
            raise BadInput(f"{path}: {key} {day!r} must be a day such as 2025-02-01")
    return found


def fill(text: str, fields: dict[str, str]) -> str:
    """A prompt's text with its fields put in; what they hold is not looked into again."""
    return Template(text).substitute(fields)
