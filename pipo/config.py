"""Paths, the one place that reads the environment, and frozen settings shared by rooms. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Paths(msgspec.Struct, frozen=True):
    """Where things live. ``home`` holds the daemon's journal, jobs and models; ``data`` real benchmark items."""

    home: Path
    data: Path | None

    @property
    def jobs(self) -> Path:
        return self.home / "jobs"

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def datasets(self) -> Path:
        """Published data sets that were fetched."""
        return self.home / "data"

    @property
    def tokenised(self) -> Path:
        """Training files as token ids (pipo.data.cache); safe to delete."""
        return self.home / "cache" / "tokenised"

    @property
    def run(self) -> Path:
        """Folder of the socket, lock and logs; readable by the owner only."""
        return self.home / "run"


def paths() -> Paths:
    """Read PIPO_HOME (default ~/.pipo) and PIPO_DATA (default: none); no other code reads the environment."""
    home = os.environ.get("PIPO_HOME") or "~/.pipo"
    data = os.environ.get("PIPO_DATA")
    return Paths(Path(home).expanduser().absolute(), Path(data).expanduser().absolute() if data else None)


def child_environment(home: Path | None = None) -> dict[str, str]:
    """The environment for a process of ours: this one's, with PIPO_HOME set, and in a clone with our packages found."""
    child = dict(os.environ)
    clone = Path(__file__).resolve().parent.parent
    if (clone / "pyproject.toml").exists():
        child["PYTHONPATH"] = os.pathsep.join(filter(None, (str(clone), child.get("PYTHONPATH"))))
    if home is not None:
        child["PIPO_HOME"] = str(home)
    return child
