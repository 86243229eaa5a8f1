"""The house rules, held by tests: who imports whom, what loads torch, how long things are, what may not be written."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipo", "pipod", "bench", "ablations", "reports")
MAX_FILE = 300
MAX_FUNCTION = 60

# Longer than the habit allows, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

# The one place that may catch everything: a job's end, which turns any error into the job's state.
JOB_BOUNDARY = {"pipod/worker.py"}
ENVIRONMENT_READER = {"pipo/config.py"}
STUBS = ROOT / "pipo" / "sglang" / "rig" / "stubs"  # for SGLang's processes, in no package of ours

HEAVY = ("torch", "transformers", "sglang", "swift", "matplotlib")
LIGHT_MODULES = (
    "pipo.cli",
    "pipo.config",
    "pipo.data.rows",
    "pipo.engine.types",
    "pipo.errors",
    "pipo.jobs",
    "pipo.lab",
    "pipo.lab.tasks",
    "pipo.sglang",
    "pipo.sglang.rig",
    "pipo.swift.command",
    "pipod",
    "pipod.client",
    "pipod.daemon",
    "bench.record",
    "bench.stats",
    "bench.variants",
    "reports",
)


def sources(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py") if "__pycache__" not in p.parts)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sources(*folders):
        yield name(path), ast.parse(path.read_text(), str(path))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the packages in ``folder``, with a cache of its own."""
    code = "import sys; from importlinter.cli import lint_imports as run; sys.exit(run(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)


# Who may import whom


def test_import_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTS = {
    "the method imports measuring": ("pipo/model/planted.py", "import bench.record\n"),
    "measuring imports the daemon": ("bench/planted.py", "from pipod import client\n"),
    "reports import the engine": ("reports/planted.py", "import pipo.engine\n"),
    "reports import measuring": ("reports/planted.py", "import bench.compare\n"),
    "the command line imports the engine": ("pipo/cli/planted.py", "def f():\n    import pipo.engine\n"),
    "the command line imports the journal": ("pipo/cli/planted.py", "import pipod.planted\n"),
    "the daemon imports measuring": ("pipod/planted.py", "def f():\n    import bench.record\n"),
    "the model imports the engine": ("pipo/model/planted.py", "import pipo.engine\n"),
    "the engine imports training": ("pipo/engine/planted.py", "import pipo.train\n"),
    "a front room imports torch": ("pipod/planted.py", "import torch\n"),
    "the data room imports a model": ("pipo/data/planted.py", "def f():\n    import pipo.model\n"),
    "a stranger imports sglang": ("bench/planted.py", "import sglang\n"),
    "the command line imports sglang": ("pipo/cli/planted.py", "def f():\n    import sglang\n"),
    "the command line imports the runtime": ("pipo/cli/planted.py", "import pipo.sglang.plugin\n"),
    "the daemon imports the runtime": ("pipod/planted.py", "import pipo.sglang\n"),
    "the runtime imports the engine": ("pipo/sglang/planted.py", "def f():\n    import pipo.engine.delta\n"),
    "the rig imports torch": ("pipo/sglang/rig/planted.py", "import torch\n"),
    "a stranger imports ms-swift": ("pipo/train/planted.py", "import swift\n"),
    "a stranger imports a stub": ("pipo/model/planted.py", "import torchvision\n"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_violation_fails_the_contracts(plant: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bench" / "compare.py").touch()
    (tmp_path / "pipod" / "planted.py").touch()
    where, line = PLANTS[plant]
    (tmp_path / where).write_text(line)
    done = lint_imports(tmp_path)
    assert done.returncode != 0, f"{plant}: {where} passed the contracts\n{done.stdout}"
    module = where.removesuffix(".py").replace("/", ".")
    assert f"{module} ->" in done.stdout, f"failed for another reason than the plant:\n{done.stdout}{done.stderr}"


def test_contract_names_every_room_of_pipo() -> None:
    contracts = {c["id"]: c for c in project()["tool"]["importlinter"]["contracts"]}
    listed = set(contracts["pipo-knows-no-tools"]["source_modules"])
    rooms = {f"pipo.{p.stem}" for p in (ROOT / "pipo").glob("*.py") if p.stem not in ("__init__", "__main__")}
    rooms |= {f"pipo.{p.parent.name}" for p in (ROOT / "pipo").glob("*/__init__.py")}
    assert listed == rooms - {"pipo.cli"}


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_front_rooms_load_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"import {module} loads {done.stdout.strip()}"


def test_imported_libraries_are_declared() -> None:
    """A third-party import in our packages needs a row in the dependencies; sglang and swift live in extras."""
    metadata = project()["project"]
    rows = metadata["dependencies"] + [r for rows in metadata["optional-dependencies"].values() for r in rows]
    declared = {re.split(r"[<>=!~\[; ]", r)[0].lower() for r in rows}
    known_as = {"zmq": "pyzmq", "swift": "ms-swift", "fla": "flash-linear-attention", "sgl_kernel": "sglang",
                "markdown_it": "markdown-it-py"}  # fmt: skip
    for file, tree in parsed(*PACKAGES):
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [node.module]
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in PACKAGES or (ROOT / file).is_relative_to(STUBS):
                    continue
                package = known_as.get(top, top.replace("_", "-"))
                assert package in declared, f"{file}:{node.lineno} imports {top}, which pyproject.toml does not declare"


# Packaging


def test_packages_in_pyproject_are_the_tree() -> None:
    listed = project()["tool"]["setuptools"]["packages"]
    inits = [p for f in PACKAGES for p in (ROOT / f).rglob("__init__.py") if not p.is_relative_to(STUBS)]
    assert sorted(listed) == sorted(name(p.parent).replace("/", ".") for p in inits)


def test_no_code_lies_outside_a_listed_package() -> None:
    listed = {p.replace(".", "/") for p in project()["tool"]["setuptools"]["packages"]}
    lost = [name(p) for p in sources(*PACKAGES) if name(p.parent) not in listed and not p.is_relative_to(STUBS)]
    assert lost == [], "folders with code but without __init__.py are left out of the wheel"


def test_constraints_pin_every_direct_dependency_exactly() -> None:
    lines = [s for s in (ROOT / "constraints-cpu.txt").read_text().splitlines() if s and not s.startswith("#")]
    pattern = re.compile(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)")
    bad = [s for s in lines if not pattern.fullmatch(s)]
    assert bad == [], "names and exact versions only, no addresses, no local versions such as +cpu"
    pinned = {re.sub(r"[-_.]+", "-", s.split("==")[0]).lower() for s in lines}
    metadata, extras = project()["project"], ("dev", "rig", "sglang", "swift", "swift-cpu")
    wanted = sum((metadata["optional-dependencies"][e] for e in extras), metadata["dependencies"])
    names = {re.split(r"[<>=!~\[; ]", r)[0].lower() for r in wanted}
    assert names <= pinned, f"not pinned: {sorted(names - pinned)}"


# Size


def too_long() -> tuple[dict[str, int], dict[str, int]]:
    files, functions = {}, {}
    for path in sources(*PACKAGES, "tests"):
        text = path.read_text()
        lines = text.count("\n")
        if lines > MAX_FILE:
            files[name(path)] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    functions[f"{name(path)}:{node.name}"] = length
    return files, functions


def test_long_files_and_functions_are_listed_with_a_reason() -> None:
    files, functions = too_long()
    unlisted = {k: n for k, n in (files | functions).items() if k not in LONG_FILES | LONG_FUNCTIONS}
    assert unlisted == {}, "split them, or list them with a reason"
    stale = (LONG_FILES.keys() - files.keys()) | (LONG_FUNCTIONS.keys() - functions.keys())
    assert stale == set(), "no longer too long: take the row out"
    assert all(LONG_FILES.values()) and all(LONG_FUNCTIONS.values())


# What may not be written


def test_only_config_reads_the_environment() -> None:
    readers = set()
    for file, tree in parsed(*PACKAGES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
                readers.add(file)
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                readers |= {file for a in node.names if a.name in ("environ", "environb", "getenv")}
    assert readers <= ENVIRONMENT_READER, "ask pipo.config.paths(); settings come with the request"


def test_broad_excepts_stand_at_the_job_boundary_only() -> None:
    """Elsewhere a broad handler may only tidy up: its last statement is a bare ``raise``."""

    def broad(kind: ast.expr | None) -> bool:
        if isinstance(kind, ast.Tuple):
            return any(broad(e) for e in kind.elts)
        return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))

    def raises_again(handler: ast.ExceptHandler) -> bool:
        last = handler.body[-1]
        return isinstance(last, ast.Raise) and last.exc is None

    found = [
        f"{file}:{node.lineno}"
        for file, tree in parsed(*PACKAGES)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and broad(node.type) and not raises_again(node)
    ]
    assert {f.split(":")[0] for f in found} <= JOB_BOUNDARY, found


def test_no_pickle_is_loaded() -> None:
    """``torch.load`` only with weights_only=True; pickle not at all: a model folder must not run code."""
    for file, tree in parsed(*PACKAGES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                bad = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & {
                    m.split(".")[0] for m in modules
                }
                assert not bad, f"{file}:{node.lineno} imports {bad}"
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "torch":
                safe = any(
                    k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                    for k in node.keywords
                )
                assert safe, f"{file}:{node.lineno} calls torch.load without weights_only=True"


def committed_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git clone: what is committed is not known")
    return [ROOT / f for f in done.stdout.split("\0") if f and (ROOT / f).is_file()]


def test_no_registry_addresses_or_workplace_paths() -> None:
    # Written in halves, so that this file passes its own test.
    words = [a + b for a, b in (("pypi", ".org"), ("pythonhosted", ".org"), ("download.pytorch", ".org"))]
    words += [a + b for a, b in (("registry.npm", "js.org"), ("deb.debian", ".org"), ("extra-index", "-url"))]
    words += [a + b for a, b in (("/wo", "rk/"), ("/tm", "p/contracts"), ("/opt/", "wheels"), ("/root", "/"))]
    found = []
    for path in committed_files():
        data = path.read_bytes()
        if b"\0" in data[:8192] or path.suffix in (".safetensors", ".png"):
            continue
        text = data.decode(errors="replace")
        found += [f"{name(path)}: {w}" for w in words if w in text]
    assert found == []


@pytest.mark.parametrize("module", ["pipo", "pipo.model.modules", "pipod.client", "bench.record", "reports"])
def test_warnings_raised_from_our_packages_are_errors(module: str) -> None:
    with pytest.raises(UserWarning):
        warnings.warn_explicit("planted", UserWarning, "planted.py", 1, module=module)


def test_every_module_says_what_it_is_for() -> None:
    silent = [file for file, tree in parsed(*PACKAGES, "tests") if tree.body and not ast.get_docstring(tree)]
    assert silent == [], "a module docstring says what the room is for"
