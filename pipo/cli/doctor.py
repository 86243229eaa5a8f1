"""``pipo doctor``: what is wrong with this installation and its home, and the way out. Torch-free, changes nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipo.cli import options as o

if TYPE_CHECKING:
    from pipod.checkup import Finding

PROBE_S = 20.0
TORCH = """
import json, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or torch.version.hip,
    "threads": torch.get_num_threads(), "gpus": [f"{g.name} {g.total_memory / 2**30:.0f} GiB" for g in gpus]}))
"""
SANDBOX = """
import json
from bench.sandbox.probe import find_way
from pipo.errors import BadInput
try:
    print(json.dumps({"way": find_way(), "why": ""}))
except BadInput as e:
    print(json.dumps({"way": "", "why": str(e)}))
"""


def register(app: typer.Typer) -> None:
    app.command("doctor")(run)


def run(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what needs other processes: torch, sandbox.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Say what is wrong here and the way out; exit code 1: problems."""
    from pipo.cli.output import note, print_json
    from pipo.config import paths
    from pipod.checkup import check_home

    probes = [] if quick else [_start(TORCH), _start(SANDBOX)]
    findings = [*_versions(), *_guests(), *check_home(paths().home), *_data(paths().data), _completion()]
    if probes:
        findings += [_torch(*_answer(probes[0])), _sandbox(*_answer(probes[1]))]
    problems = sum(f.state == "problem" for f in findings)
    if json:
        print_json({"problems": problems, "findings": findings})
    else:
        for f in findings:
            print(f"{f.state:<8} {f.check}: {f.found}" + (f"\n         -> {f.fix}" if f.fix else ""))
        note(f"{problems} problem{'s' if problems != 1 else ''}" if problems else "no problem found")
    if problems:
        raise typer.Exit(1)


def _versions() -> Iterator[Finding]:
    """Python, pipo, what pipo needs, and the pinned versions where a clone's list is at hand."""
    from importlib.metadata import requires

    from pipod.checkup import Finding

    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    have = _installed()
    if "pipo" not in have:
        yield Finding("pipo", "note", "not installed, run from the source tree", "pip install -e .")
    else:
        needed = [_plain(re.split(r"[^\w.-]", r)[0]) for r in requires("pipo") or [] if "extra ==" not in r]
        missing = sorted(set(needed) - have.keys())
        if missing:
            yield Finding("pipo", "problem", f"without {', '.join(missing)}", "pip install -e . -c constraints-cpu.txt")
        else:
            yield Finding("pipo", "ok", f"{have['pipo']}, with all {len(needed)} packages that it needs")
    pins = Path(__file__).resolve().parents[2] / "constraints-cpu.txt"
    if not pins.is_file():
        return
    pairs = (line.strip().split("==") for line in pins.read_text().splitlines() if "==" in line and line[0] != "#")
    other = [
        f"{name} {found} for {want}"
        for name, want in pairs
        if (found := have.get(_plain(name))) is not None and found.split("+")[0] != want.split("+")[0]
    ]
    if other:
        yield Finding("versions", "note", f"other than tested: {', '.join(other)}", f"pip install -e . -c {pins}")
    else:
        yield Finding("versions", "ok", "as in constraints-cpu.txt")


def _installed() -> dict[str, str]:
    """Versions by name, out of the folders' names: reading each package's metadata takes ten times as long."""
    have: dict[str, str] = {}
    for folder in sys.path:
        for entry in Path(folder).glob("*.dist-info"):
            name, _, version = entry.stem.partition("-")
            have.setdefault(_plain(name), version)
    return have


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _guests() -> Iterator[Finding]:
    from pipo.sglang.launch import ServerSettings, unusable
    from pipo.sglang.machine import installed
    from pipo.sglang.table import HOOKS
    from pipod.checkup import Finding

    why, rig = unusable(ServerSettings()), unusable(ServerSettings(cpu_rig=True))
    if why is None:
        yield Finding("sglang", "ok", f"{installed('sglang')}, {len(HOOKS)} hooks (`pipo engines --hooks`)")
    else:
        yield Finding("sglang", "note", why, "" if rig else "--cpu-rig works here")
    swift = installed("ms-swift")
    if swift:
        yield Finding("ms-swift", "ok", swift)
    else:
        yield Finding("ms-swift", "note", "not installed; needed to train on several GPUs", "pip install 'pipo[swift]'")
    if shutil.which("g++"):
        yield Finding("g++", "ok", "found")
    else:
        yield Finding("g++", "note", "not found; C++ programs of Codeforces are not judged", "install g++")


def _data(data: Path | None) -> Iterator[Finding]:
    from pipod.checkup import Finding

    if data is None:
        yield Finding(
            "benchmarks", "note", "PIPO_DATA is not set", "set it to a folder of benchmarks (docs/BENCHMARKS.md)"
        )
        return
    try:
        files = [f for f in data.iterdir() if f.name.endswith((".jsonl", ".jsonl.gz", ".parquet", ".csv"))]
    except OSError as e:
        yield Finding("benchmarks", "problem", f"PIPO_DATA {data}: {e.strerror}", "set it to a folder that can be read")
        return
    yield Finding("benchmarks", "ok" if files else "note", f"{len(files)} data files in {data}",
                  "" if files else "docs/BENCHMARKS.md says what belongs there")  # fmt: skip


def _completion() -> Finding:
    from pipod.checkup import Finding

    try:
        user = Path.home()
    except RuntimeError:
        return Finding("completion", "note", "this user has no folder of its own")
    for place in (".bash_completions/pipo.sh", ".zfunc/_pipo", ".config/fish/completions/pipo.fish"):
        if (user / place).exists():
            return Finding("completion", "ok", f"~/{place}")
    return Finding("completion", "note", "not installed", "pipo --install-completion")


# Other processes -----------------------------------------------------------------------------------------------


def _start(code: str) -> subprocess.Popen[str]:
    from pipo.config import child_environment

    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment(),
    )  # fmt: skip


def _answer(process: subprocess.Popen[str]) -> tuple[dict, str]:
    """What a probe said; empty with a reason where it failed or took too long."""
    import json

    try:
        out, err = process.communicate(timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {}, f"no answer in {PROBE_S:.0f} s"
    try:
        return json.loads(out.strip().splitlines()[-1]), ""
    except (ValueError, IndexError):
        return {}, (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]


def _torch(said: dict, why: str) -> Finding:
    from pipo.sglang.machine import has_gpu
    from pipod.checkup import Finding

    if not said:
        return Finding("torch", "problem", f"it does not load: {why}", "install it again (docs/DEPENDENCIES.md)")
    build = f"CUDA {said['cuda']}" if said["cuda"] else "CPU build"
    found = f"{said['version']}, {build}, {said['threads']} threads, {', '.join(said['gpus']) or 'no GPU'}"
    if has_gpu() and not said["gpus"]:
        fix = "update the driver" if said["cuda"] else "install a build of torch for CUDA"
        return Finding("torch", "problem", f"{found}, though a driver is here", fix)
    return Finding("torch", "ok", found)


def _sandbox(said: dict, why: str) -> Finding:
    from pipod.checkup import Finding

    if said.get("way"):
        return Finding("sandbox", "ok", f"code is shut in by {said['way']}")
    return Finding("sandbox", "note", said.get("why") or why, "allow user namespaces or install bubblewrap")
