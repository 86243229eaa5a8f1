"""Studies: one TOML each under studies/, with the settings that a job starts from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pipo.errors import BadInput

FOLDER = Path(__file__).resolve().parent / "studies"


def names() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def load_study(name: str) -> dict[str, Any]:
    """Settings of a study. Raises BadInput that lists the known ones."""
    if name not in names():
        raise BadInput(f"unknown study {name!r}; studies are {', '.join(names())}")
    return tomllib.loads((FOLDER / f"{name}.toml").read_text())
