"""CPU time of ``pipo --help`` and of importing the command line: ``python -m bench.cli_speed [--runs 7]``. Torch-free.

CPU time (user and system) of a fresh process, median over runs; the house's limit is 0.3 s for ``pipo --help``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

LIMIT_S = 0.3
COMMANDS = {
    "python": "pass",
    "import pipo.cli": "import pipo.cli",
    "pipo --help": "from pipo.cli import main; main(['--help'])",
    "pipo bench compare --help": "from pipo.cli import main; main(['bench', 'compare', '--help'])",
}


def cpu_s(code: str) -> float:
    """User and system seconds of one fresh process that runs ``code``; of it alone, not of its children."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{code!r} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(runs: int) -> dict[str, float]:
    """Median CPU seconds of each command; commands take turns, one unmeasured run first (byte code, disk cache)."""
    for code in COMMANDS.values():
        cpu_s(code)
    times = [{name: cpu_s(code) for name, code in COMMANDS.items()} for _ in range(runs)]
    return {name: statistics.median(t[name] for t in times) for name in COMMANDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    result = measure(parser.parse_args().runs)
    print(json.dumps({name: round(seconds, 4) for name, seconds in result.items()}, indent=2))
    if result["pipo --help"] > LIMIT_S:
        raise SystemExit(f"pipo --help takes {result['pipo --help']:.3f} s of CPU; the limit is {LIMIT_S} s")


if __name__ == "__main__":
    main()
