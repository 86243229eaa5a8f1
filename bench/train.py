"""Trainings as runs: the jobs ``train-*``, with a header that says where they came from and a summary for reports.

The work is that of ``pipo.train`` (this process) or ``pipo.swift`` (ms-swift's processes). The run folder holds what
they write (metrics.jsonl, calibration.json, samples.jsonl, checkpoints), run.json before it and summary.json after.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from bench import loading, provenance, record
from bench.record import SCHEMA, Run
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.train.jobs import train_opd, train_sft
from pipo.train.settings import OPDSettings, SFTSettings, TrainSettings, convert

Work = Callable[[Any, Path, JobContext], dict[str, Any]]


def run_sft(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-sft``."""
    return _run("train-sft", convert(spec, SFTSettings), train_sft, ctx)


def run_opd(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-opd``."""
    return _run("train-opd", convert(spec, OPDSettings), train_opd, ctx)


def run_sft_swift(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-sft-swift``."""
    from pipo.swift.launch import run

    settings = convert({**spec, "backend": "swift"}, SFTSettings)
    return _run("train-sft", settings, lambda s, folder, c: run("sft", s, folder, c), ctx)


def run_opd_swift(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``train-opd-swift``."""
    from pipo.swift.launch import run

    settings = convert({**spec, "backend": "swift"}, OPDSettings)
    return _run("train-opd", settings, lambda s, folder, c: run("opd", s, folder, c), ctx)


def _run(kind: str, s: TrainSettings, work: Work, ctx: JobContext) -> dict[str, Any]:
    """Header, work, summary; the job's result is the work's."""
    provenance.check_folder(ctx.folder)
    names = [s.model, *([s.teacher] if isinstance(s, OPDSettings) else [])]
    spec = msgspec.to_builtins(s)
    source = provenance.collect(
        spec, seed=s.seed, engine=s.backend, device="cuda" if torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads(), models={n: loading.fingerprint(resolve_model(n)) for n in names},
    )  # fmt: skip
    provenance.open_run(ctx.folder, Run(kind=kind, spec=spec, provenance=source))
    result = work(s, ctx.folder, ctx)
    record.write_json(ctx.folder / "summary.json", summary(kind, s, ctx.folder, result))
    return result


def summary(kind: str, s: TrainSettings, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """``rows``: logged steps. ``calibration``: see pipo.train.calibrate. ``result``: what the job returned."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    calibrated = folder / "calibration.json"
    return {
        "schema": SCHEMA, "kind": kind, "model": s.model, "data": Path(s.data).name, "rows": rows,
        "calibration": json.loads(calibrated.read_text()) if calibrated.exists() else None, "result": result,
    }  # fmt: skip
