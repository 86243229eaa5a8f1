"""Runs for the tests of diffs: simulated verdicts as sides, and as run folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import record
from bench.diff_runs import Side
from bench.record import LatencyRecord, Provenance, Run, SampleRecord, Variant
from pipo.engine.types import Method

Verdicts = Mapping[tuple[str, str], NDArray[np.bool_]]  # (variant, task) -> [questions, samples]


def origin(**rest: Any) -> Provenance:
    usual: dict[str, Any] = {
        "settings_hash": "0", "git_commit": "c0ffee", "git_dirty": False, "versions": {"torch": "2.13"},
        "device": "cpu", "cpu_count": 2, "threads": 1, "seed": 0, "engine": "torch", "started": "now",
        "models": {"m": "abc"},
    }  # fmt: skip
    return Provenance(**(usual | rest))


def samples(right: Verdicts, *, seed: int = 0, prefix: str = "i", slots: int = 10) -> list[SampleRecord]:
    """A record for every verdict; sample j of question i has a seed of its own, the same for all variants."""
    return [
        SampleRecord(
            variant=variant, task=task, item=f"{prefix}{i}", sample=j, seed=1000 * seed + 16 * i + j, gold=f"g{i}",
            correct=bool(table[i, j]), slots=slots, tokens=slots, steps=slots,
        )
        for (variant, task), table in right.items()
        for i in range(table.shape[0])
        for j in range(table.shape[1])
    ]  # fmt: skip


def header(right: Verdicts, spec: dict[str, Any] | None = None, kind: str = "compare", **rest: Any) -> Run:
    tasks = list(dict.fromkeys(task for _, task in right))
    k = next(iter(right.values())).shape[1]
    settings = {"kind": kind, "k": k, "pass_at": [k], "tasks": dict.fromkeys(tasks, "f0"), **(spec or {})}
    variants = [Variant(name, "m", Method("regular")) for name in dict.fromkeys(name for name, _ in right)]
    budgets = {task: {"tight": 64, "loose": 64} for task in tasks}
    return Run(kind=kind, spec=settings, provenance=origin(**rest), variants=variants, budgets=budgets)


def side(right: Verdicts, **how: Any) -> Side:
    """A run in memory, as ``diff_runs.read`` gives it."""
    found: dict[tuple[str, str], dict[str, list[SampleRecord]]] = {}
    for r in samples(right, **how):
        found.setdefault((r.variant, r.task), {}).setdefault(r.item, []).append(r)
    return Side(Path("run"), header(right), found)


def folder(
    path: Path, right: Verdicts, spec: dict[str, Any] | None = None, *, kind: str = "compare",
    budgets: dict[str, dict[str, int]] | None = None, provenance: dict[str, Any] | None = None, **how: Any,
) -> Path:  # fmt: skip
    """A finished run folder."""
    run = header(right, spec, kind, **(provenance or {}))
    if budgets:
        run.budgets = budgets
    return write(path, run, samples(right, **how))


def write(path: Path, run: Run, records: list[Any]) -> Path:
    path.mkdir(parents=True)
    record.write_json(path / "run.json", run)
    record.append(path / "records.jsonl", records)
    record.write_json(path / "summary.json", {"schema": 1, "kind": run.kind})
    return path


def latency(path: Path, seconds: Mapping[tuple[str, int], list[float]], spec: dict[str, Any] | None = None,
            **rest: Any) -> Path:  # fmt: skip
    """A latency run: first tokens of (arm, input length); the time per token is a hundredth of it."""
    variants = [Variant(name, "m", Method("regular")) for name in dict.fromkeys(n for n, _ in seconds)]
    settings = {"kind": "latency", **(spec or {})}
    run = Run(kind="latency", spec=settings, provenance=origin(**rest), variants=variants)
    records = [
        LatencyRecord(
            variant=name, input_tokens=length, trial=i, ttft_s=t, first_pair_s=t, tpot16_s=t / 100, tpot_s=t / 100,
            tokens=32, slots=32, steps=32,
        )
        for (name, length), times in seconds.items() for i, t in enumerate(times)
    ]  # fmt: skip
    return write(path, run, records)


def chances(rng: np.random.Generator, questions: int, mean: float = 0.4, alike: float = 0.3) -> NDArray[np.float64]:
    """Each question's chance to be solved: Beta with that mean and intraclass correlation."""
    s = 1 / alike - 1
    return rng.beta(mean * s, (1 - mean) * s, questions)


def drawn(rng: np.random.Generator, p: NDArray[np.float64], k: int = 4) -> NDArray[np.bool_]:
    """Verdicts of k samples of each question, [questions, k]."""
    return rng.random((p.size, k)) < p[:, None]
