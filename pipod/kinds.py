"""The kinds of jobs and where their functions are. Names only: nothing is imported here. Torch-free."""

from __future__ import annotations

KINDS = {
    "eval": "bench.compare:run_eval",
    "check-scorers": "bench.scorers.check:run",
    "compare": "bench.compare:run",
    "score": "bench.score:run",
    "merge": "bench.merge:run",
    "latency": "bench.latency:run",
    "load": "bench.load.job:run",
    "map": "bench.map:run",
    "generate": "bench.generate:run",
    "draft-vocab": "bench.draft_vocab:run",
    "ablate-threshold": "ablations.threshold:run",
    "ablate-training": "ablations.training:run",
    "ablate-grid": "ablations.grid:run",
    "ablate-geometry": "ablations.geometry:run",
    "ablate-lossiness": "ablations.lossiness:run",
    "rollouts": "bench.rollouts:run",
    "data-cache": "bench.training_files:run_cache",
    "data-show": "bench.training_files:run_show",
    "train-sft": "bench.train:run_sft",
    "train-opd": "bench.train:run_opd",
    "train-sft-swift": "bench.train:run_sft_swift",
    "train-opd-swift": "bench.train:run_opd_swift",
    "train-merge": "pipo.train.merge:run",
    "lab-build": "pipo.lab.build:run",
    "noop": "pipod.noop:run",
}
