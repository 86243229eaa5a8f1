"""The job ``ablate-training``: what each way of training buys, on the same items, over training seeds.

The study is a graph of stages (pipo.lab.graph): the teacher's roll-outs, then a stage a row and seed, which trains and
measures (ablations/training_stage.py). It may be cancelled and given again at any time. summary.json is written anew
after every stage (ablations/training_summary.py), so that what is done can be read; it names what is missing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from ablations.study import load_study
from ablations.training_spec import SMOKE, TrainingSpec, needs, variants
from ablations.training_summary import summarise
from bench import loading, provenance, record
from bench.loading import read_spec
from bench.record import Run
from bench.tasks import load_tasks
from pipo.errors import JobFailed
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.lab.graph import Graph


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Run the study or go on with it; returns the summary (schema in ablations/training_summary.py).

    ``smoke`` in the spec takes the sizes of tests. Raises JobFailed where a stage failed; what did not need it is done.
    """
    settings = read_spec(merged(spec), TrainingSpec, "ablate-training")
    stages = ctx.folder / "stages"
    provenance.check_folder(stages)
    header = open_study(settings, ctx.folder)
    record.write_json(stages / "study.json", settings)

    def write(stage: str) -> None:
        record.write_json(ctx.folder / "summary.json", summarise(settings, header, stages, failed))

    def command(stage: str) -> list[str]:
        return [sys.executable, "-m", "ablations.training_stage", str(stages), stage]

    failed: dict[str, str] = {}
    until = None if settings.minutes is None else time.monotonic() + 60 * settings.minutes
    graph = Graph(
        stages, needs(settings), command, settings.workers, ctx, noun="stage", keep_going=True, until=until,
        again="run the study again, it goes on from the last checkpoint", on_done=write,
    )  # fmt: skip
    failed = graph.failed
    graph.run()
    summary = summarise(settings, header, stages, failed)
    record.write_json(ctx.folder / "summary.json", summary)
    if failed:
        names = ", ".join(failed)
        raise JobFailed(f"{next(iter(failed.values()))} (failed: {names}); the rest is done and in the summary")
    return summary


def merged(spec: dict[str, Any]) -> dict[str, Any]:
    """The study's file with a job's settings on top; those of sft, opd and regular go key by key."""
    given = dict(spec)
    out = load_study("training")
    for layer in (SMOKE if given.pop("smoke", False) else {}, given):
        for key, value in layer.items():
            inner = key in ("sft", "opd", "regular") and isinstance(value, dict)
            out[key] = {**out[key], **value} if inner else value
    return out


def open_study(spec: TrainingSpec, folder: Path) -> Run:
    """Write run.json, or go on with the run there; refuses a folder with a study of other settings."""
    marks = {m: loading.fingerprint(resolve_model(m, spec.family)) for m in (spec.model, spec.teacher)}
    given = msgspec.to_builtins(spec)
    for key in ("workers", "minutes"):  # they change no result
        del given[key]
    found = [
        v
        for name, (row, seed) in spec.stages().items()
        for v in variants(spec, row, seed, Path("stages") / name / "model")
    ]
    tasks = load_tasks(spec.tasks, limit=spec.limit, slots=None, family=spec.family)
    settings = {
        "kind": "ablate-training", **given,
        "items": {t.name: provenance.settings_hash(msgspec.to_builtins({"items": t.items})) for t in tasks},
        "fingerprints": marks,
    }  # fmt: skip
    source = provenance.collect(
        settings, seed=spec.seed, engine="torch", device=loading.device_name(), threads=1, models=marks
    )
    run = Run(kind="ablate-training", spec=settings, provenance=source, variants=found,
              budgets={t.name: t.budgets for t in tasks}, sampling=spec.sampling().sampling)  # fmt: skip
    return provenance.open_run(folder, run)
