"""Tasks that a lab model answers and that need a judge: golds that only algebra can tell, and functions to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import record
from bench.record import SampleRecord
from bench.sandbox import probe
from pipo.lab import items
from tests.unit.benchmark_rows import write_jsonl

LIMIT, K = 6, 2
TOML = 'name = "{0}"\nfile = "{0}.jsonl"\nschema = "{1}"\n{2}scorer = "{3}"\n[budgets]\ntight = 40\nloose = 120\n'
walls = pytest.mark.skipif(probe.why_not("namespaces") is not None, reason="no namespaces of our own here")


def make_tasks(folder: Path) -> dict[str, str]:
    """``algebra``: chains of the lab, golds spelled as differences. ``functions``: what the model writes goes on
    a comment's line, so that the tests decide: those of every other item pass."""
    found = items("lab-chain", "test", LIMIT)
    algebra = [{"id": i.id, "prompt": i.prompt, "answer": f"{int(i.answer) + 1}-1"} for i in found]
    functions = [
        {"task_id": f"f/{n}", "prompt": f"def f(): return {n % 2}\n# {i.prompt}", "entry_point": "f",
         "canonical_solution": "", "test": "def check(f): assert f() == 1, 'it is not 1'"}
        for n, i in enumerate(found)
    ]  # fmt: skip
    write_jsonl(folder / "algebra.jsonl", *algebra)
    write_jsonl(folder / "functions.jsonl", *functions)
    (folder / "algebra.toml").write_text(TOML.format("algebra", "prompt", "", "math"))
    (folder / "functions.toml").write_text(
        TOML.format("functions", "humaneval", 'prompt = "humaneval-1"\n', "code")
    )  # fmt: skip
    return {name: str(folder / f"{name}.toml") for name in ("algebra", "functions")}


def settings(tasks: dict[str, str], *names: str, **more: Any) -> dict[str, Any]:
    """Settings of ``eval``."""
    return {"model": "lab/base", "tasks": [tasks.get(n, n) for n in names], "k": K, "limit": LIMIT, "seed": 5, **more}


def samples(folder: Path) -> list[SampleRecord]:
    """Samples in a fixed order, without what time decides."""
    found = [r for r in record.read(folder / "records.jsonl") if isinstance(r, SampleRecord)]
    bare = [
        msgspec.structs.replace(
            r, ttft_s=0.0, first_pair_s=0.0, token_times_s=[], drafts=[],
            verdict=None if r.verdict is None
            else msgspec.structs.replace(r.verdict, cpu_s=0.0, wall_s=0.0, waited_s=None),
        )
        for r in found
    ]  # fmt: skip
    return sorted(bare, key=lambda r: (r.variant, r.task, r.item, r.sample))


def quality(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows without times."""
    times = ("ttft_s", "first_pair_s", "tpot16_s", "tpot_s", "throughput")
    return [{k: v for k, v in row.items() if k not in times} for row in summary["rows"]]
