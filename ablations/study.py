"""Studies: one TOML each under studies/, with the settings that a job starts from. Torch-free.

A file that asks a ``question`` is a grid (ablations/grid_spec.py); the others belong to a job of their own.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pipo.errors import BadInput

FOLDER = Path(__file__).resolve().parent / "studies"


def names() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def grids() -> list[str]:
    """Names of the shipped studies that are grids."""
    return [name for name in names() if "question" in load_study(name)]


def load_study(name: str) -> dict[str, Any]:
    """Settings of a study. Raises BadInput that lists the known ones."""
    if name not in names():
        raise BadInput(f"unknown study {name!r}; studies are {', '.join(names())}")
    return tomllib.loads((FOLDER / f"{name}.toml").read_text())


def read_study(path: Path) -> dict[str, Any]:
    """Settings of a study of one's own. Raises BadInput where the file cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as e:
        raise BadInput(f"study {path} cannot be read ({e.strerror}); name a TOML file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadInput(f"study {path} is no TOML ({e}); docs/ABLATIONS.md shows one") from e


def about(name: str) -> str:
    """What a shipped study asks: its question, or the first sentence of its file's comment."""
    text = (FOLDER / f"{name}.toml").read_text()
    if question := tomllib.loads(text).get("question"):
        return str(question)
    comment = [line.lstrip("# ") for line in text.split("\n\n")[0].splitlines() if line.startswith("#")]
    return " ".join(comment).partition(". ")[0].rstrip(".") + "."
