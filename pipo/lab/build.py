"""``pipo lab build``: the family's stages as a small graph of processes, resumable, with progress.

Each stage is ``python -m pipo.lab.stage`` in a process of its own (one torch thread each), up to ``workers`` at a
time; a finished stage is never done again, an interrupted one goes on from its checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from pipo.config import paths
from pipo.errors import BadInput
from pipo.jobs import JobContext
from pipo.lab.family import Manifest, TaskSettings
from pipo.lab.graph import Graph

MODELS = {"base": "base", "control": "control", "teacher": "teacher", "pipo-sft": "sft", "pipo-opd": "opd"}


class BuildSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a build. ``out``: the family's folder (None: PIPO_HOME/models/lab, with ``quick`` lab-quick).

    ``smoke``: the sizes of tests; every stage runs, nothing is learned well.
    """

    quick: bool = False
    smoke: bool = False
    workers: int = 2
    out: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 16:
            raise BadInput(f"workers {self.workers} must lie in [1, 16]")


def run(spec: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """The job ``lab-build``: build or go on building, then write the family."""
    try:
        s = msgspec.convert(spec, BuildSettings)
    except msgspec.ValidationError as e:
        raise BadInput(f"lab build settings: {e}") from e
    size = "smoke" if s.smoke else "quick" if s.quick else "full"
    out = Path(s.out).expanduser() if s.out else paths().models / ("lab" if size == "full" else f"lab-{size}")
    try:
        (out / "stages").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BadInput(f"{out} cannot be written ({e.strerror}); name another folder with --out") from e
    _graph(out / "stages", size, s, ctx).run()
    manifest = publish(out / "stages", out, size, s.seed)
    return {"family": str(out), "size": size, "tasks": msgspec.to_builtins(manifest.tasks), "stages": manifest.build}


def _graph(folder: Path, size: str, settings: BuildSettings, ctx: JobContext) -> Graph:
    from pipo.lab.stage import NEEDS

    def command(stage: str) -> list[str]:
        return [sys.executable, "-m", "pipo.lab.stage", str(folder), stage, size, str(settings.seed)]

    return Graph(
        folder, NEEDS, command, settings.workers, ctx,
        noun="lab stage", again="run the build again, it goes on from the last checkpoint",
    )  # fmt: skip


def publish(stages: Path, out: Path, size: str, seed: int) -> Manifest:
    """Write the family: bf16 models, tokenizer, ``build.jsonl`` (metrics of every stage) and the manifest."""
    import torch

    from pipo.lab.stage import NEEDS
    from pipo.model import load_model, load_tokenizer, save_model

    rows = [json.loads((stages / s / "done.json").read_text()) for s in NEEDS]
    for row in rows:
        row.pop("model", None)  # a path of the machine that built it
    tasks = next(r for r in rows if r["stage"] == "calibrate")["tasks"]
    for name, stage in MODELS.items():
        save_model(load_model(stages / stage), out / name, load_tokenizer(stages / "base"), dtype=torch.bfloat16)
    with open(out / "build.jsonl", "w") as log:
        for stage in NEEDS:
            metrics = stages / stage / "metrics.jsonl"
            for line in metrics.read_text().splitlines() if metrics.exists() else ():
                log.write(json.dumps({"stage": stage, **json.loads(line)}) + "\n")
    manifest = Manifest(
        size=size,
        seed=seed,
        models={name: name for name in MODELS},
        tasks={t: TaskSettings(v["levels"], v["budgets"]) for t, v in tasks.items()},
        build=rows,
    )
    tmp = out / "manifest.tmp"
    tmp.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    tmp.replace(out / "manifest.json")
    return manifest
