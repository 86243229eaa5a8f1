"""The sandbox: programs that try to get out, to stay or to take too much each end as they should."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from bench.sandbox import probe
from bench.sandbox.limits import MB, Limits, Outcome
from bench.sandbox.run import run
from bench.sandbox.view import python_argv
from pipo.errors import BadInput

CASES = tomllib.loads((Path(__file__).parent.parent / "hostile" / "programs.toml").read_text())["case"]
LIMITS = Limits(cpu_s=1, wall_s=2, memory=256 * MB, disk=8 * MB, output=2**16, processes=16)
WALLS = probe.why_not("namespaces")
needs_walls = pytest.mark.skipif(WALLS is not None, reason=f"no namespaces of our own here: {WALLS}")


def python(code: str, *, stdin: bytes = b"", limits: Limits = LIMITS) -> Outcome:
    files = {"a.py": (code.encode(), False)}
    return run(python_argv("a.py", "namespaces"), files=files, stdin=stdin, limits=limits, way="namespaces")


@needs_walls
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_hostile_program_ends_within_its_limits(case: dict) -> None:
    outcome = python(case["code"])
    assert b"ESCAPED" not in outcome.stdout, outcome
    assert outcome.ended in case.get("ends", ["exit"]), outcome
    if "ends" not in case:
        assert outcome.code == 1, f"it should have been refused what it tried: {outcome}"
    assert len(outcome.stdout) <= LIMITS.output and len(outcome.stderr) <= LIMITS.output
    assert outcome.tries > 1 or outcome.wall_s < LIMITS.backstop_s + 3, outcome
    assert outcome.why(LIMITS)


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
    code = f"import os, sys\nopen('{name}', 'w').write('x')\nif os.fork() == 0:\n    os.setsid()\n"
    code += f"    os.execv(sys.executable, ['{name}', '-I', '-S', '-c', 'import time; time.sleep(99)'])"
    assert python(code).good
    assert list(tmp_path.iterdir()) == []
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert name not in found


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
    assert left.good and left.wall_s < 1.5


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(BadInput, match="cpu_s 0"):
        Limits(cpu_s=0)
