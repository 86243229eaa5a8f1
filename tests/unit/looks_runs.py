"""Hand-made summaries and run folders of the geometry and lossiness studies, for tests of tables and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import record
from bench.record import Variant
from pipo.engine.types import Method
from tests.unit.reports_runs import estimate, head

SUBJECTS = {"lab/pipo-opd": 0.765, "lab/pipo-sft": 0.764, "start sum": 1.0, "start random": 0.001}
QUANTITIES = (
    "first_slot_jacobian_share", "swap_cosine", "raw_pair_cosine", "cosine_to_sum", "cosine_to_first",
    "cosine_to_second", "norm_ratio_to_sum", "pad_second_cosine_to_survivor", "pad_first_cosine_to_survivor",
    "pad_pad_norm",
)  # fmt: skip
SPACE = ("pad_spread_ratio", "centroid_cosine", "between_share", "pc1", "pc2", "dimensions", "sum_dimensions")
THRESHOLDS = (0.0, 0.5, 0.95, 1.0)


def pads(run: str, variant: str, share: float) -> dict[str, Any]:
    expected = None if run else estimate(0.39, 0.03)
    bins = [(0.0, 0.2), (0.2, 0.4), (0.4, 0.95), (0.95, 1.0)]
    return {
        "run": run, "variant": variant, "model": "lab/pipo-opd", "samples": 72, "slots": 900,
        "pad_share": estimate(share), "pad_chance_after_pad": estimate(0.4), "pad_chance_after_kept": estimate(0.36),
        "run_length": estimate(1.6, 0.1), "agreement": estimate(0.41), "agreement_expected": expected,
        "chance_kept": expected and estimate(0.9),
        "by_part": [{"part": i, "slots": 90, "pad_share": estimate(0.2 + 0.04 * i)} for i in range(10)],
        "runs": [{"length": i, "runs": 200 // i**2} for i in range(1, 9)],
        "after": [{"kind": k, "slots": 300, "pad_share": estimate(0.3)} for k in ("number", "letter", "symbol")],
        "confidence": [
            {"low": a, "high": b, "kept": 500 if b == 1 else 0, "rejected": 0 if b == 1 else 133,
             "mean": estimate((a + b) / 2, 0.01), "chance": expected and estimate(0.2 + 0.7 * a),
             "agreement": None if b == 1 else estimate(0.25 + 0.5 * a)}
            for a, b in bins
        ],
    }  # fmt: skip


def geometry_summary() -> dict[str, Any]:
    rows = [
        {"subject": s, "trained": s.startswith("lab"), "quantity": q, "value": estimate(v, 0.01)}
        for s, v in SUBJECTS.items()
        for q in QUANTITIES
    ]
    return head("ablate-geometry") | {
        "source": "lab/pipo-opd", "subjects": list(SUBJECTS), "models": ["lab/pipo-opd", "lab/pipo-sft"],
        "threshold": 0.95, "prompts": 12, "pairs": 1400, "different_pairs": 168, "rows": rows,
        "differences": [
            {"subject": s, "reference": "lab/pipo-opd", "quantity": q, **estimate(v - 0.765, 0.005)}
            for s, v in SUBJECTS.items() if s != "lab/pipo-opd" for q in QUANTITIES
        ],
        "spaces": [
            {"subject": s, "trained": s.startswith("lab"), **{q: estimate(0.3 + i / 9) for i, q in enumerate(SPACE)}}
            for s in SUBJECTS
        ],
        "explained": [{"subject": s, "component": i + 1, "share": 0.5**(i + 1)} for s in SUBJECTS for i in range(10)],
        "points": [
            {"subject": s, "kind": kind, "x": 0.1 * i + shift, "y": 0.05 * (i % 7)}
            for s in SUBJECTS for kind, shift in (("both real", 0.0), ("second PAD", 2.0)) for i in range(20)
        ],
        "pads": [
            pads("", "lab/pipo-opd", 0.373), pads("", "lab/pipo-sft", 0.389), pads("/jobs/compare-1", "mine", 0.5),
        ],
        "definitions": {q: f"what {q} is" for q in (*QUANTITIES, *SPACE)},
    }  # fmt: skip


def distances(method: str, model: str, tv: float) -> list[dict[str, Any]]:
    pair = method.startswith(("pipo", "random"))
    return [
        {
            "method": method, "model": model, "task": task, "place": place, "places": 100, "share": 0.5,
            "tv": estimate(tv, 0.01), "kl_reference": estimate(2 * tv, 0.02), "kl_method": estimate(3 * tv, 0.03),
            "twin_tv": estimate(tv / 2, 0.01) if pair else None, "twin_kl_reference": None, "twin_kl_method": None,
            "kl_reference_infinite": 0.0, "kl_method_infinite": 0.0,
            "draft_tv": estimate(0.13, 0.01) if pair else None, "accept": estimate(0.87, 0.01) if pair else None,
            "accept_reference": estimate(0.88, 0.01) if place != "first" else None,
        }
        for task in ("overall", "lab-chain", "lab-choice", "lab-recall")
        for place in ("all", "first", "second", *(("draft",) if pair else ()))
    ]  # fmt: skip


def lossiness_summary() -> dict[str, Any]:
    values = {
        ("mtp", "lab/base"): 0.04, ("eagle", "lab/base"): 0.0, ("regular", "lab/control"): 0.07,
        ("pipo 0", "lab/pipo-opd"): 0.12, ("pipo 0.5", "lab/pipo-opd"): 0.107, ("pipo 0.95", "lab/pipo-opd"): 0.115,
        ("pipo 1", "lab/pipo-opd"): 0.15, ("pipo 0", "lab/pipo-sft"): 0.121, ("pipo 0.5", "lab/pipo-sft"): 0.105,
        ("pipo 0.95", "lab/pipo-sft"): 0.117, ("pipo 1", "lab/pipo-sft"): 0.148, ("random", "lab/pipo-opd"): 0.131,
    }  # fmt: skip
    gaps = [("pipo 1", "regular", 0.08), ("pipo 0.95", "pipo 1", -0.04), ("pipo 0.95", "mtp", 0.075)]
    return head("ablate-lossiness") | {
        "base": "lab/base", "others": ["lab/control"], "models": ["lab/pipo-opd", "lab/pipo-sft"],
        "thresholds": list(THRESHOLDS), "match": 0.95, "texts": 120,
        "rows": [row for (method, model), tv in values.items() for row in distances(method, model, tv)],
        "differences": [
            {"method": a, "model": "lab/pipo-opd", "reference": b, "reference_model": "lab/base", "metric": "tv",
             "says": "what it says", **estimate(v, 0.01)}
            for a, b, v in gaps
        ],
        "lossless": {"method": "eagle", "places": 234, "largest_tv": 8e-8, "limit": 1e-5, "holds": True},
        "calibration": [
            {"model": "lab/pipo-opd", "low": a, "high": b, "drafts": 40, "kept": 40 if a >= 0.95 else 0,
             "confidence": estimate((a + b) / 2, 0.01), "accept": estimate(0.5 + 0.4 * a, 0.05),
             "accept_reference": estimate(0.55 + 0.4 * a, 0.05)}
            for a, b in ((0.0, 0.5), (0.5, 0.95), (0.95, 1.0))
        ],
        "definitions": {"tv": "what tv is", "twin_tv": "what twin_tv is"},
    }  # fmt: skip


def write_run(folder: Path, summary: dict[str, Any]) -> Path:
    """A finished run folder around a summary."""
    folder.mkdir(parents=True, exist_ok=True)
    variants = [Variant("one", "lab/pipo-opd", Method("pipo"))]
    source = record.Provenance(
        settings_hash="0" * 16, git_commit="c" * 40, git_dirty=False, versions={"torch": "2"}, device="cpu",
        cpu_count=2, threads=1, seed=0, engine="torch", started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    record.write_json(
        folder / "run.json", record.Run(kind=summary["kind"], spec={}, provenance=source, variants=variants)
    )
    for name in ("records.jsonl", "pairs.jsonl", "drafts.jsonl", "distances.jsonl"):
        (folder / name).write_text("{}\n")
    record.write_json(folder / "summary.json", summary)
    return folder
