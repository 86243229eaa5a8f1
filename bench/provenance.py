"""Where a run came from: settings hash, git commit, versions, device, threads; and the run folder it is written to."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from bench import record
from bench.record import Provenance, Run
from pipo.errors import BadInput

PACKAGES = ("pipo", "torch", "transformers", "safetensors", "numpy", "msgspec", "sglang")


def settings_hash(spec: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of a resolved spec as sorted JSON."""
    return hashlib.sha256(msgspec.json.encode(spec, order="deterministic")).hexdigest()[:16]


def git_state(folder: Path | None = None) -> tuple[str, bool]:
    """Commit of the checkout that our code lies in and whether it has changes; ("unknown", False) outside of one."""
    folder = folder or Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():  # an installed package may lie inside somebody else's checkout
        return "unknown", False
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions of what decides results."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def collect(
    spec: dict[str, Any], *, seed: int, engine: str, device: str, threads: int, models: dict[str, str],
    warnings: Sequence[str] = (),
) -> Provenance:  # fmt: skip
    """Provenance of a run that starts now. ``models``: name as given -> fingerprint."""
    commit, dirty = git_state()
    return Provenance(
        settings_hash=settings_hash(spec), git_commit=commit, git_dirty=dirty, versions=versions(), device=device,
        cpu_count=os.cpu_count() or 1, threads=threads, seed=seed, engine=engine,
        started=datetime.now(UTC).isoformat(timespec="seconds"), models=models,
        warnings=list(warnings),
    )  # fmt: skip


def check_folder(folder: Path) -> None:
    """Make a folder and write to it on trial. Raises BadInput where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise BadInput(f"cannot write to {folder} ({e.strerror}); choose a folder that can be written") from e


def open_run(folder: Path, run: Run) -> Run:
    """Write run.json, or find the same settings there and go on with that run; returns what the folder holds.

    Raises:
        BadInput: the folder cannot be written, or holds a run with other settings.
    """
    try:
        if (folder / "run.json").exists():
            found = record.read_run(folder)
            if found.provenance.settings_hash != run.provenance.settings_hash:
                was, now = found.provenance.settings_hash, run.provenance.settings_hash
                raise BadInput(f"{folder} holds a run with other settings ({was}, not {now}); name an empty folder")
            return found
        record.write_json(folder / "run.json", run)
        with open(folder / "records.jsonl", "ab"):
            pass
    except OSError as e:
        raise BadInput(f"cannot write to {folder} ({e.strerror}); choose a folder that can be written") from e
    return run
