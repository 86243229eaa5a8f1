"""A report on 100,000 records stays small, quick and within memory: measured on the whole command, as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.record import SampleRecord
from pipo.engine.types import Draft
from tests.unit.html_runs import Parsed, made_run, sample
from tests.unit.reports_runs import METHODS, TASKS

RECORDS, SAMPLES = 100_000, 4
# The command, which writes its own peak of memory in KiB at its end; what the system counts for a child (ru_maxrss)
# begins with the size of the process that started it.
COMMAND = """
import atexit, re, sys
from pathlib import Path
peak = Path(sys.argv.pop(1))
atexit.register(lambda: peak.write_text(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
from pipo.cli import main
main()
"""


def records(n: int) -> Iterator[bytes]:
    """Lines of about 2 KB, as the lab's comparisons have them."""
    for i in range(n):
        at, variant = divmod(i, len(METHODS))
        at, number = divmod(at, SAMPLES)
        name = list(METHODS)[variant]
        yield msgspec.json.encode(one(name, TASKS[at % 3], f"item-{at}", number, i % 3 == 0)) + b"\n"


def one(name: str, task: str, item: str, number: int, correct: bool) -> SampleRecord:
    tokens = list(range(24, 90))
    pairs, drafts = name.startswith("pipo"), [Draft(33, True, 0.9887654321)] * 40
    places = [x for t in tokens[:40] for x in (t, 33)] if pairs else tokens
    times = [1.5703965 + 0.0026123 * i for i in range(len(places))]
    return sample(
        item, name, number, task=task, places=places, slots=40 if pairs else 66, tokens=len(places), correct=correct,
        drafts=drafts if pairs else [], token_times_s=times, text="then next c 3 + 1 = 4 " * 9,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_report_on_100_000_records_is_small_quick_and_fits_into_memory(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", [])
    with open(run / "records.jsonl", "wb") as f:
        f.writelines(records(RECORDS))
    assert (run / "records.jsonl").stat().st_size > 130e6
    command = [
        sys.executable,
        "-c",
        COMMAND,
        str(tmp_path / "peak"),
        "report",
        str(run),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds, peak = used.ru_utime + used.ru_stime, 1024 * int((tmp_path / "peak").read_text())
    size = (tmp_path / "out" / "report.html").stat().st_size
    print(f"{seconds:.1f} s of CPU, {peak / 2**20:.0f} MiB, report.html {size / 1e6:.1f} MB")
    assert seconds < 20 and peak < 2**30 and size < 15e6
    (tasks,) = [r["tasks"] for r in Parsed((tmp_path / "out" / "report.html").read_text()).data("traces")["runs"]]
    assert [len(t["items"]) for t in tasks] == [60, 60, 60]
    assert sum(t["of"] for t in tasks) == -(-RECORDS // (len(METHODS) * SAMPLES))
