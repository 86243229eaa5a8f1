"""What a program in the sandbox sees of the host, and the command that starts it there. Torch-free."""

from __future__ import annotations

import base64
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.sandbox.limits import MB, Limits

Way = Literal["namespaces", "bwrap", "none"]
Files = Mapping[str, tuple[bytes, bool]]  # name -> content, executable
STACK = 64 * MB
ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCH = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from bench.sandbox.jail import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
PYTHON = "/python/bin/python"
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
DEVICES = ("null", "zero", "full", "random", "urandom")
DISTRIBUTION = "/usr/lib/python3/dist-packages"  # where Debian installs packages for its own interpreter


def python_argv(script: str, way: Way) -> list[str]:
    """The command of a Python program: this interpreter, isolated and without installed packages."""
    return [sys.executable if way == "none" else PYTHON, "-I", "-S", "-B", script]


def exposed(compiler: bool) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """Of the host: (folders and files to bind read-only, links to make, folders to cover with an empty one).

    The interpreter with its library, without installed packages, and the system's libraries. With ``compiler`` instead
    all of /usr.
    """
    names = ("/bin", "/lib", "/lib64") if compiler else LIBRARIES
    binds = [("/usr", "/usr")] if compiler else []
    binds += [(n, n) for n in names if os.path.isdir(n) and not os.path.islink(n)]
    links = [(os.readlink(n), n) for n in names if os.path.islink(n)]
    if compiler:
        return binds, links, []
    binds.append((os.path.realpath(sys.executable), PYTHON))
    for name in sorted({"lib", sys.platlibdir}):
        folder = os.path.join(sys.base_prefix, name)
        if os.path.isdir(folder):
            binds.append((folder, f"/python/{name}"))
    library = os.path.relpath(sysconfig.get_path("stdlib"), sys.base_prefix)
    hidden = [(os.path.join(sys.base_prefix, library, "site-packages"), f"/python/{library}/site-packages")]
    hidden += [(DISTRIBUTION, DISTRIBUTION)]
    if sys.base_prefix == "/usr":
        hidden += [(DISTRIBUTION, "/python/lib/python3/dist-packages")]
    return binds, links, [target for source, target in hidden if os.path.isdir(source)]


def make_plan(argv: Sequence[str], files: Files, limits: Limits, root: str, way: Way, compiler: bool) -> dict[str, Any]:
    """What the jail is told (JSON); ``root``: an empty folder of the host that it may use."""
    binds, links, hidden = exposed(compiler)
    home = root if way == "none" else "/box"
    environment = {"PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    if way != "none" and not compiler:
        environment["LD_LIBRARY_PATH"] = "/python/lib"
    rlimits = {
        "RLIMIT_CPU": int(limits.cpu_s) + 2, "RLIMIT_AS": limits.memory, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 128,
        "RLIMIT_FSIZE": max(limits.disk, limits.output), "RLIMIT_NPROC": limits.processes + 1, "RLIMIT_MEMLOCK": 0,
        "RLIMIT_STACK": min(STACK, limits.memory), "RLIMIT_MSGQUEUE": 0,
    }  # fmt: skip
    if way == "none":
        del rlimits["RLIMIT_NPROC"]  # it would count all processes of this user
    encoded = {name: (base64.b64encode(data).decode(), runs) for name, (data, runs) in files.items()}
    return {
        "argv": list(argv), "files": encoded, "binds": binds, "links": links, "hidden": hidden, "devices": DEVICES,
        "root": root, "disk": limits.disk, "rlimits": rlimits, "environment": environment, "way": way,
    }  # fmt: skip


def launch_command(plan: Mapping[str, Any], plan_fd: int, report_fd: int, bwrap: str | None) -> list[str]:
    """The command that starts the jail: by itself, or as the first process of bubblewrap's (``bwrap``: its path)."""
    tail = ["-I", "-S", "-B", "-c", LAUNCH]
    if plan["way"] != "bwrap":
        return [sys.executable, *tail, str(ROOT), str(plan_fd), str(report_fd)]
    made = [str(bwrap), "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    made += ["--uid", "1000", "--gid", "1000", "--hostname", "box", "--clearenv"]
    made += ["--setenv", "LD_LIBRARY_PATH", "/python/lib"]
    binds = [tuple(pair) for pair in plan["binds"]]
    own = os.path.realpath(sys.executable)
    if (own, PYTHON) not in binds:  # the jail is a Python program, whatever runs in it
        binds += [(own, PYTHON), (os.path.join(sys.base_prefix, "lib"), "/python/lib")]
    binds += [(str(ROOT / part), f"/jail/{part}") for part in ("bench/__init__.py", "bench/sandbox")]
    for source, target in binds:
        made += ["--ro-bind", source, target]
    for source, target in plan["links"]:
        made += ["--symlink", source, target]
    for target in plan["hidden"]:
        made += ["--size", "4096", "--tmpfs", target, "--remount-ro", target]
    for name in plan["devices"]:
        made += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    made += ["--perms", "0777", "--size", str(plan["disk"]), "--tmpfs", "/box", "--symlink", "/box", "/tmp"]
    return [*made, "--remount-ro", "/", "--chdir", "/box", PYTHON, *tail, "/jail", str(plan_fd), str(report_fd)]
