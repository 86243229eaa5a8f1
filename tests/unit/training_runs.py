"""Hand-made stages of a training study, as ablations/training_stage.py leaves them, for tests of summary and report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations import training
from ablations.training_spec import TrainingSpec
from ablations.training_summary import summarise
from bench import record
from bench.loading import read_spec
from bench.record import Provenance, Run, SampleRecord

ITEMS = [f"lab-chain/{c}" for c in "abcd"]
KEPT = {0.0: 1.0, 0.95: 0.5, 1.0: 0.0}  # threshold -> kept share


def study(**more: Any) -> TrainingSpec:
    """The study's settings with three thresholds."""
    return read_spec(training.merged({"thresholds": list(KEPT), **more}), TrainingSpec, "ablate-training")


def stage(folder: Path, name: str, scores: Sequence[float], coins: dict[float, float] | None = None) -> None:
    """A finished stage. ``scores``: one (regular), or one a threshold; ``coins``: kept share -> score.

    Questions score 0.1 above and below in turn.
    """
    found = {name: (scores[0], 0, 0)}
    if len(scores) > 1:
        gates = zip(KEPT.items(), scores, strict=False)
        found = {f"{name} tau={t:g}": (score, round(10 * kept), 10) for (t, kept), score in gates}
    found |= {f"{name} coin={c:g}": (score, round(10 * c), 10) for c, score in (coins or {}).items()}
    values = {}
    for variant, (score, kept, offered) in found.items():
        metrics = {m: {i: score for i in ITEMS} for m in ("pass@1", "pass@2", "pass@4", "slots", "tokens")}
        metrics["avg"] = {item: score + (0.1 if i % 2 else -0.1) for i, item in enumerate(ITEMS)}
        values[variant] = {"values": {"tight": metrics, "loose": metrics}, "kept": {i: [kept, offered] for i in ITEMS}}
    (folder / name).mkdir(parents=True)
    record.write_json(folder / name / "values.json", values)
    trained = {"tokens": 100, "steps": 2, "rows": 7, "wall_s": 1}
    record.write_json(folder / name / "done.json", {"trained": trained, "failed": 0, "failures": []})
    header = Run(kind="ablate-training", spec={}, provenance=PROVENANCE)
    record.write_json(folder / name / "run.json", header)
    sample = SampleRecord(variant=name, task="lab-chain", item="a", sample=0, seed=1)
    record.append(folder / name / "records.jsonl", [sample])


PROVENANCE = Provenance(
    settings_hash="5f1c09", git_commit="0123abcd", git_dirty=False, versions={"torch": "2.8"}, device="cpu",
    cpu_count=2, threads=1, seed=0, engine="torch", started="2026-01-02T03:04:05Z",
)  # fmt: skip


def finish(spec: TrainingSpec, folder: Path, failed: dict[str, str] | None = None) -> dict[str, Any]:
    """Write run.json and summary.json of a study whose stages lie in ``folder/stages``; returns the summary."""
    budgets = {"lab-chain": {"tight": 9, "loose": 12}}
    run = Run(kind="ablate-training", spec={}, provenance=PROVENANCE, budgets=budgets)
    record.write_json(folder / "run.json", run)
    found = summarise(spec, run, folder / "stages", failed or {})
    record.write_json(folder / "summary.json", found)
    return found
