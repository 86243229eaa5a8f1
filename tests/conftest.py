"""What all tests share: one thread a process, where real data lies, and nothing of the user's own ~/.pipo."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: two cores, several test processes
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("house", deadline=None, print_blob=True)  # a busy machine is no failure of a property
settings.load_profile("house")


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder ``shared`` beside the clone (golden tensors, real benchmark items); skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder 'shared' beside {ROOT.name}: golden tensors and real items are not at hand")
    return folder


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point PIPO_HOME away from the user's folder, so that no test can reach a daemon that somebody works with."""
    monkeypatch.setenv("PIPO_HOME", str(tmp_path_factory.getbasetemp() / "pipo-home"))
