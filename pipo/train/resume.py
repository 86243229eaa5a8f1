"""Going on with an earlier training: its state comes over if it was made with the same settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec

from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.train.settings import TrainSettings

FILES = ("state.pt", "metrics.jsonl", "samples.jsonl")
FREE = ("out", "resume", "save_every", "log_every", "sample_every", "device", "processes")  # may differ on resuming
SETTINGS = "settings.json"


def take_over(s: TrainSettings, folder: Path, ctx: JobContext) -> None:
    """Note the settings in ``folder``, after copying what ``s.resume`` left there, if that is asked for.

    Raises BadInput where the earlier training has no checkpoint, or other settings (the first that differs is named).
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = msgspec.to_builtins(s)
    if s.resume is not None and not (folder / "state.pt").exists():
        old = Path(s.resume).expanduser()
        if not (old / "state.pt").is_file():
            raise BadInput(f"{old} holds no checkpoint (state.pt) to resume from; leave --resume out to start anew")
        compare(mine, _settings_of(old), old)
        for name in FILES[1:]:
            if (old / name).exists():
                shutil.copyfile(old / name, folder / name)
        shutil.copyfile(old / "state.pt", folder / "state.part")
        (folder / "state.part").rename(folder / "state.pt")
        ctx.emit("log", text=f"resumes {old}")
    (folder / SETTINGS).write_text(json.dumps(mine, indent=1) + "\n")


def _settings_of(old: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((old / SETTINGS).read_text()))
    except (OSError, json.JSONDecodeError) as e:
        raise BadInput(f"{old / SETTINGS} cannot be read ({e}); the settings of that training are not known") from e


def compare(mine: dict[str, Any], theirs: dict[str, Any], old: Path) -> None:
    """Raise BadInput where the training in ``old`` had other settings; the first that differs is named."""
    for key in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get(key), theirs.get(key)
        if key not in FREE and a != b:
            raise BadInput(
                f"{old} was trained with {key} {b!r}, not {a!r}; a resumed training has the settings of the one before"
            )
