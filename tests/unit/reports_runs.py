"""Hand-made run folders for the tests of reports: small, fixed numbers in the schema of bench/summary.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import record
from pipo.engine.types import Method

TASKS = ("lab-chain", "lab-choice", "lab-recall")
METHODS = {
    "regular": ("lab/base", Method("regular")),
    "control": ("lab/control", Method("regular")),
    "mtp": ("lab/base", Method("mtp")),
    "eagle": ("lab/base", Method("eagle")),
    "pipo-sft": ("lab/pipo-sft", Method("pipo")),
    "pipo-opd": ("lab/pipo-opd", Method("pipo")),
}
# variant: (avg tight, pass tight, avg loose, pass loose, slots tight, kept, tokens/s)
QUALITY = {
    "regular": (0.336, 0.508, 0.373, 0.602, 68.0, None, 400.0),
    "control": (0.484, 0.688, 0.584, 0.906, 66.0, None, 400.0),
    "mtp": (0.380, 0.610, 0.443, 0.734, 64.0, 1.0, 610.0),
    "eagle": (0.336, 0.508, 0.373, 0.602, 68.0, 0.55, 520.0),
    "pipo-sft": (0.463, 0.740, 0.475, 0.852, 45.0, 0.75, 560.0),
    "pipo-opd": (0.523, 0.800, 0.533, 0.867, 44.0, 0.81, 590.0),
}


def estimate(value: float, half: float = 0.04, n: int = 200) -> dict[str, Any]:
    return {"value": value, "se": half / 1.96, "low": value - half, "high": value + half, "n": n}


def head(kind: str) -> dict[str, Any]:
    return {
        "schema": 1, "kind": kind, "k": 4, "pass_at": [1, 2, 4], "tasks": list(TASKS), "seed": 0, "batch": 64,
        "budgets": {task: {"tight": 74, "loose": 160} for task in TASKS}, "items": dict.fromkeys(TASKS, 200),
        "sampling": {"temperature": 1.0}, "interval": "95%: Student t", "references": ["regular", "control"],
    }  # fmt: skip


def row(variant: str, task: str, budget: str, shift: float = 0.0) -> dict[str, Any]:
    avg_t, pass_t, avg_l, pass_l, slots, kept, speed = QUALITY[variant]
    avg, best = (avg_t, pass_t) if budget == "tight" else (avg_l, pass_l)
    model, method = METHODS[variant]
    overall = task == "overall"
    return {
        "variant": variant, "model": model, "method": {"name": method.name, "threshold": 0.95}, "task": task,
        "budget": budget, "budget_slots": None if overall else 74 if budget == "tight" else 160,
        "items": 600 if overall else 200, "samples": 2400 if overall else 800, "failed": 1 if variant == "mtp" else 0,
        "batch": 64, "avg": estimate(avg + shift, 0.03 if overall else 0.05),
        "pass": {"1": estimate(avg + shift), "4": estimate(best + shift, 0.035 if overall else 0.06)},
        "truncated": estimate(0.31 if budget == "tight" else 0.02, 0.02), "slots": estimate(slots, 1.4),
        "tokens": estimate(slots * (1 + (kept or 0)), 2.0), "tokens_per_slot": estimate(1 + (kept or 0), 0.01),
        "kept_share": estimate(kept, 0.01) if kept is not None else None, "acceptance": estimate(1 + (kept or 0), 0.01),
        "ttft_s": {"p50": 0.021, "p90": 0.03, "low": 0.020, "high": 0.022}, "first_pair_s": None, "tpot16_s": None,
        "tpot_s": {"p50": 64 / speed, "p90": 0.3, "low": 63 / speed, "high": 66 / speed},
        "throughput": {"tokens_s": speed, "low": speed * 0.97, "high": speed * 1.03, "tokens": 9000, "wall_s": 20.0},
    }  # fmt: skip


def difference(variant: str, reference: str, task: str, budget: str, metric: str) -> dict[str, Any]:
    place = (0 if metric == "avg" else 1) + (0 if budget == "tight" else 2)
    gap = QUALITY[variant][place] - QUALITY[reference][place]
    names = {"variant": variant, "reference": reference, "task": task, "budget": budget, "metric": metric}
    return names | estimate(gap, 0.05)


def compare_summary() -> dict[str, Any]:
    shifts = {"lab-chain": 0.0, "lab-choice": 0.08, "lab-recall": -0.08, "overall": 0.0}
    return head("compare") | {
        "rows": [row(v, t, b, s) for t, s in shifts.items() for b in ("tight", "loose") for v in QUALITY],
        "differences": [
            difference(v, r, t, b, m)
            for v in QUALITY for r in ("regular", "control") if v != r
            for t in shifts for b in ("tight", "loose") for m in ("avg", "pass@4")
        ],
        "failures": [{"variant": "mtp", "task": "lab-chain", "item": "i7", "sample": 2, "error": "out of | memory"}],
    }  # fmt: skip


def latency_summary(lengths: tuple[int, ...] = (512, 2048, 8192)) -> dict[str, Any]:
    arms = [
        ("regular", None, 1.0, 1.0), ("mtp", None, 0.98, 1.7), ("eagle", None, 0.97, 1.3),
        ("pipo-opd", None, 2.02, 1.58), ("pipo-opd", 1.0, 2.0, 1.7), ("pipo-opd", 0.8, 2.01, 1.55),
    ]  # fmt: skip
    rows, ratios, floor = [], [], []
    for i, n in enumerate(lengths):
        for variant, keep, first, per in arms:
            first = first if variant != "pipo-opd" else first * (1 + 0.08 * i)
            ttft, tpot = n / 30000 / first, (0.006 + n * 2e-7) / per
            times = {
                "ttft_s": ttft, "first_pair_s": ttft + tpot, "tpot16_s": tpot * 1.02, "tpot_s": tpot,
            }  # fmt: skip
            kept = QUALITY[variant][5] if keep is None else keep
            rows.append(
                {"variant": variant, "model": "m", "method": {}, "keep": keep, "input_tokens": n, "trials": 5}
                | {name: {"p50": t, "p90": t * 1.1} for name, t in times.items()}
                | {"tokens_per_slot": 1 + (kept or 0), "kept_share": kept, "tokens_per_step": 1 + (kept or 0)}
            )
            if variant == "regular":
                continue
            for metric, value in {"ttft": first, "first_pair": first, "tpot16": per, "tpot": per}.items():
                ratio = {"variant": variant, "keep": keep, "reference": "regular", "input_tokens": n, "metric": metric}
                ratios.append(ratio | {"value": value, "low": value * 0.94, "high": value * 1.05})
            allowed = {"tpot_bytes_ratio": 1.69, "tpot_flops_ratio": 1.8, "ttft_flops_ratio": 2.1}
            floor.append(
                {"variant": variant, "keep": keep, "input_tokens": n, "tpot_measured": per, "ttft_measured": first}
                | allowed
            )
    return {
        "schema": 1, "kind": "latency", "batch": 1, "tokens": 32, "trials": 5, "input_lengths": list(lengths),
        "reference": "regular", "threads": 1, "variants": [], "rows": rows, "ratios": ratios, "floor": floor,
    }  # fmt: skip


def threshold_summary() -> dict[str, Any]:
    kept = {0.0: 1.0, 0.5: 0.84, 0.8: 0.81, 0.9: 0.78, 0.95: 0.75, 0.98: 0.68, 1.0: 0.0}
    points, differences = [], []
    for budget, base in (("tight", 0.50), ("loose", 0.53)):
        for tau, share in kept.items():
            hill = 0.10 * (1 - abs(share - 0.8) / 0.8)
            for gate, value in (("confidence", base + hill), ("random", base + (hill if share in (0, 1) else -0.08))):
                point = row("pipo-opd", "overall", budget) | {"threshold": tau, "gate": gate, "keep_rate": share}
                point |= {"avg": estimate(value, 0.03), "pass": {"4": estimate(value + 0.3, 0.035)}}
                point |= {"pad_ratio": estimate(1 - share, 0.005), "reused": gate == "random" and share in (0, 1)}
                points.append(point)
            if share not in (0, 1):
                at = {"threshold": tau, "task": "overall", "budget": budget, "metric": "pass@4"}
                differences.append(at | estimate(hill + 0.08, 0.05))
    rest = {"model": "lab/pipo-opd", "thresholds": list(kept), "matched": "per task"}
    return head("ablate-threshold") | rest | {"points": points, "differences": differences}


def write_run(folder: Path, summary: dict[str, Any]) -> Path:
    """A run folder as a finished job leaves it: run.json, one record, summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    provenance = record.Provenance(
        settings_hash="5f1c09", git_commit="0123abcd", git_dirty=True, versions={"torch": "2.8", "pipo": "0.1.0"},
        device="cpu", cpu_count=2, threads=1, seed=0, engine="torch", started="2026-01-02T03:04:05Z",
        models={"lab/base": "sha256:77aa"},
    )  # fmt: skip
    variants = [record.Variant(name, model, method) for name, (model, method) in METHODS.items()]
    run = record.Run(
        kind=summary["kind"], spec={"k": 4}, provenance=provenance, variants=variants,
        budgets=summary.get("budgets", {}),
    )  # fmt: skip
    record.write_json(folder / "run.json", run)
    if summary["kind"] == "latency":
        row: record.Record = record.LatencyRecord(
            variant="regular", input_tokens=512, trial=0, ttft_s=0.1, first_pair_s=0.1, tpot16_s=0.01, tpot_s=0.01,
            tokens=32, slots=32, steps=32,
        )  # fmt: skip
    else:
        row = record.SampleRecord(variant="regular", task="lab-chain", item="i0", sample=0, seed=1)
    record.append(folder / "records.jsonl", [row])
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
