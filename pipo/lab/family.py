"""The lab's models on disk: where they are, and the levels and budgets that were fixed when they were built.

A family is a folder with ``manifest.json`` and one model folder a name. The one shipped with the package is the
default; ``pipo lab build`` makes others. Torch-free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pipo.config import paths
from pipo.errors import BadInput, BadModel
from pipo.lab.tasks import LabItem, Split, draw_many, task_named

SHIPPED = Path(__file__).parent / "models"
MADE = {"smollm2": "python -m pipo.model.sources smollm2"}  # models by name, and what makes them


class TaskSettings(msgspec.Struct, frozen=True):
    """Levels of a task's test items, and its slot budgets ``tight`` and ``loose``."""

    levels: list[int]
    budgets: dict[str, int]


class Manifest(msgspec.Struct, frozen=True):
    """What a build made. ``models``: name -> folder, relative to the family's. ``build``: the log of its stages."""

    size: str
    seed: int
    models: dict[str, str]
    tasks: dict[str, TaskSettings]
    build: list[dict[str, Any]] = []


def family_folder(family: str | Path | None = None) -> Path:
    """The folder of a family; None is the shipped one."""
    return SHIPPED if family is None else Path(family)


def lab_manifest(family: str | Path | None = None) -> Manifest:
    """The manifest of a family. Raises BadModel where there is none."""
    path = family_folder(family) / "manifest.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as e:
        raise BadModel(f"{path} does not exist; `pipo lab build` makes a family of lab models") from e
    except msgspec.DecodeError as e:
        raise BadModel(f"{path} is no manifest of a lab family ({e}); build it again with `pipo lab build`") from e


def resolve_model(name: str, family: str | Path | None = None) -> Path:
    """The folder of a model: ``lab/NAME`` from a family, a path, or a name under ``models`` in PIPO_HOME.

    Raises:
        BadModel: no such lab model (the known ones are listed), or no such folder.
    """
    if name.startswith("lab/"):
        models = lab_manifest(family).models
        short = name.removeprefix("lab/")
        if short not in models:
            raise BadModel(f"unknown lab model {name!r}; known: {', '.join('lab/' + m for m in models)}")
        return family_folder(family) / models[short]
    path = Path(name).expanduser()
    kept = paths().models / name
    if not path.is_dir() and (kept / "config.json").is_file():
        return kept
    if not path.is_dir() and name in MADE:
        raise BadModel(f"model {name!r} is not here yet: no {kept}; `{MADE[name]}` makes it, once")
    if not path.is_dir():
        raise BadModel(f"model {name!r} is neither a folder nor a lab model such as lab/base; `pipo models` lists them")
    return path.absolute()


def items(
    task: str,
    split: Split = "test",
    count: int = 240,
    levels: list[int] | None = None,
    seed: int = 0,
    family: str | Path | None = None,
) -> list[LabItem]:
    """Items of a task at the family's levels (or ``levels``), levels in turn. Raises BadInput on an unknown task."""
    task_named(task)
    if levels is None:
        tasks = lab_manifest(family).tasks
        if task not in tasks:
            raise BadInput(f"the lab family was built without {task!r}; it has {', '.join(tasks)}")
        levels = tasks[task].levels
    return draw_many(task, split, count, levels, seed)
