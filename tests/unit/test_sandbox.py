"""The sandbox: programs that try to get out, to stay or to take too much each end as they should."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench.sandbox import probe
from bench.sandbox.limits import MB, Limits, Outcome
from bench.sandbox.run import run
from bench.sandbox.view import python_argv
from pipo.errors import BadInput, JobFailed

CASES = tomllib.loads((Path(__file__).parent.parent / "hostile" / "programs.toml").read_text())["case"]
LIMITS = Limits(cpu_s=1, wall_s=30, memory=256 * MB, disk=8 * MB, output=2**16, processes=16)
ASLEEP = msgspec.structs.replace(LIMITS, wall_s=1.0)  # for those that wait until the backstop comes down
WALLS = probe.why_not("namespaces")
needs_walls = pytest.mark.skipif(WALLS is not None, reason=f"no namespaces of our own here: {WALLS}")


def python(code: str, *, stdin: bytes = b"", limits: Limits = LIMITS) -> Outcome:
    files = {"a.py": (code.encode(), False)}
    return run(python_argv("a.py", "namespaces"), files=files, stdin=stdin, limits=limits, way="namespaces")


@needs_walls
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_hostile_program_ends_within_its_limits(case: dict) -> None:
    limits = ASLEEP if case.get("ends") == ["wall"] else LIMITS
    outcome = python(case["code"], limits=limits)
    assert b"ESCAPED" not in outcome.stdout, outcome
    assert outcome.ended in case.get("ends", ["exit"]), outcome
    if "ends" not in case:
        assert outcome.code == 1, f"it should have been refused what it tried: {outcome}"
    assert len(outcome.stdout) <= LIMITS.output and len(outcome.stderr) <= LIMITS.output
    assert outcome.wall_s < limits.backstop_s + 5, outcome
    assert outcome.why(limits)


@needs_walls
def test_program_gets_its_input_and_says_its_output() -> None:
    outcome = python("import sys\nprint(sys.stdin.read()[::-1])", stdin=b"abc" * 10_000)
    assert outcome.good and outcome.stdout == b"cba" * 10_000 + b"\n"


@needs_walls
def test_input_that_nobody_reads_holds_nothing_up() -> None:
    assert python("print(1)", stdin=b"x" * 2**22).good


@needs_walls
def test_exit_status_and_signal_are_told_apart() -> None:
    assert (python("raise SystemExit(7)").ended, python("raise SystemExit(7)").code) == ("exit", 7)
    assert (python("import os\nos.kill(os.getpid(), 11)").ended) == "signal"


@needs_walls
def test_cpu_time_is_counted_over_children() -> None:
    code = (
        "import os, time\nif os.fork() == 0:\n    t = time.process_time()\n    while time.process_time() < t + 0.3:\n"
    )
    outcome = python(code + "        pass\n    os._exit(0)\nos.wait()")
    assert outcome.good and 0.3 <= outcome.cpu_s < 0.9, outcome


@needs_walls
def test_nothing_is_left_of_a_program_and_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = f"left{os.getpid()}"
    waiting = "import time; print(1, flush=True); time.sleep(60)"
    code = f"import os, sys, time\nopen('{name}', 'w').write('x')\nif os.fork() == 0:\n    os.setsid()\n"
    code += f"    os.execv(sys.executable, [sys.executable, '-c', '{waiting}', '{name}'])\ntime.sleep(0.5)"
    outcome = python(code)
    assert outcome.good and outcome.stdout == b"1\n", outcome
    assert list(tmp_path.iterdir()) == []
    assert name not in processes()


@needs_walls
def test_sleeping_program_is_not_run_again() -> None:
    assert python("import time\ntime.sleep(9)", limits=Limits(wall_s=0.5)).tries == 1


@needs_walls
def test_program_that_waits_for_a_busy_machine_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sandbox.run.BUSY", -1.0)  # any machine is busy enough
    outcome = python("import time\ntime.sleep(9)", limits=Limits(wall_s=0.5))
    assert (outcome.ended, outcome.tries) == ("wall", 2)


@needs_walls
def test_probe_names_what_a_program_could_do() -> None:
    stdout = b'{"has a network": true, "is root": false}'
    assert probe.judge(Outcome(ended="exit", stdout=stdout)) == "a program inside has a network"
    assert "exit status 1" in str(probe.judge(Outcome(ended="exit", code=1)))


def test_without_walls_code_is_refused_unless_somebody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "why_not", lambda way: "switched off")
    with pytest.raises(BadInput, match=r"--unsafe-code-execution"):
        probe.find_way()
    assert probe.find_way(unsafe=True) == "none"


def test_without_walls_limits_hold_and_the_tree_is_killed() -> None:
    def go(code: str) -> Outcome:
        files = {"a.py": (code.encode(), False)}
        return run(python_argv("a.py", "none"), files=files, limits=LIMITS, way="none")

    assert go("print(1)").stdout == b"1\n"
    assert go("while True:\n    pass").ended == "cpu"
    assert go("while True:\n    print('x' * 99)").ended == "output"
    left = go("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(99)")
    assert left.good and left.wall_s < 15


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(BadInput, match="cpu_s 0"):
        Limits(cpu_s=0)


@needs_walls
def test_program_dies_with_whoever_started_it(tmp_path: Path) -> None:
    name = f"orphan{os.getpid()}"
    inner = f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', '{name}'])"
    code = f"""
from bench.sandbox.limits import Limits
from bench.sandbox.run import run
from bench.sandbox.view import python_argv
files = {{"a.py": ({inner!r}.encode(), False)}}
run(python_argv("a.py", "namespaces"), files=files, limits=Limits(), way="namespaces")
"""
    owner = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_for(lambda: name in processes(), "the program to start")
    owner.kill()
    owner.wait()
    wait_for(lambda: name not in processes(), "the program to end with its owner")


@needs_walls
def test_sandbox_that_cannot_be_made_is_no_verdict_on_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sandbox.view.LIBRARIES", ("/lib", "/lib64", "/usr/lib"))
    monkeypatch.setattr("bench.sandbox.view.DEVICES", ("null", "nothing-of-that-name"))
    with pytest.raises(JobFailed, match="could not be made"):
        python("print(1)")


def processes() -> list[str]:
    """Last words of all command lines."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout
    return [line.split()[-1] for line in listed.splitlines() if line.strip()]


def wait_for(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, f"waited 20 s for {what}"
        time.sleep(0.05)
