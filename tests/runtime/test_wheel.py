"""What a newcomer installs: the built wheel holds every package and the lab, and runs away from the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipo", "pipod", "bench", "ablations", "reports")
DATA = (".toml", ".md", ".json", ".jsonl", ".safetensors", ".log", ".txt", ".html", ".css", ".js")


def run(*args: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(args, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(args)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build from: neither leftovers of an earlier build get in, nor do new ones stay in the clone."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(source), cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The wheel in a folder of its own, and an environment that sees it and a fresh PIPO_HOME."""
    with tempfile.TemporaryDirectory(
        prefix="pipo-w", ignore_cleanup_errors=True
    ) as short:  # sockets dislike long paths
        target, home = Path(short, "site"), Path(short, "home")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        run(*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=Path(short))
        env = os.environ | {"PYTHONPATH": str(target), "PIPO_HOME": str(home), "OMP_NUM_THREADS": "1"}
        yield target, env
        subprocess.run([target / "bin" / "pipo", "down"], cwd=short, env=env, capture_output=True, timeout=60)


def test_wheel_holds_every_package_and_file(source: Path, wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in tomllib.loads((source / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in inside
    ours = [p for f in PACKAGES for p in (source / f).rglob("*") if p.is_file()]
    wanted = {p.relative_to(source).as_posix() for p in ours if p.suffix in (".py", *DATA)}
    assert wanted - inside == set()


def test_wheel_holds_the_lab(wheel: Path) -> None:
    names = [n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("pipo/lab/models/")]
    assert "pipo/lab/models/manifest.json" in names
    for model in ("base", "control", "teacher", "pipo-sft", "pipo-opd"):
        for file in ("config.json", "tokenizer.json"):
            assert any(n.endswith(f"{model}/{file}") for n in names), f"{model}: {file} is not in the wheel"
        assert any(f"/{model}/" in n and n.endswith(".safetensors") for n in names), f"{model} has no weights"


def test_installed_wheel_runs_from_anywhere(installed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    target, env = installed
    where = run(sys.executable, "-c", "import pipo, pipod; print(pipo.__file__)", cwd=tmp_path, env=env)
    assert Path(where.strip()).is_relative_to(target), "the clone was imported, not the wheel"
    pipo = str(target / "bin" / "pipo")
    assert "generate" in run(pipo, "--help", cwd=tmp_path, env=env)
    models = run(pipo, "models", "--json", cwd=tmp_path, env=env)
    json.loads(models)
    assert "lab/pipo-opd" in models


def test_installed_wheel_generates(installed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    target, env = installed
    code = "from pipo.lab import items; print(items('lab-chain', 'test', 1)[0].prompt)"
    prompt = run(sys.executable, "-c", code, cwd=tmp_path, env=env).strip()
    pipo = str(target / "bin" / "pipo")
    out = run(pipo, "generate", "lab/pipo-opd", prompt, "--json", cwd=tmp_path, env=env)
    assert out.strip(), "generation printed nothing"
