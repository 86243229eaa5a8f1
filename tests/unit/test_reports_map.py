"""A map in a report: figure, tables and words, from a hand-made summary in the schema of bench/map.py."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import reports
from bench import record
from reports import map as maps
from reports.load import load, load_all
from tests.unit.reports_runs import compare_summary, write_run

BATCHES, CONTEXTS, KEPT = [1, 8], [512, 2048, 8192], [0.335, 1.0]


def side(winner: str | None, ratio: float | None, settled: bool = True) -> dict[str, Any]:
    return {"winner": winner, "ratio": ratio, "lead": None if ratio is None else 1.2, "settled": settled}


def row(batch: int, context: int, method: str, keep: float | None, accepted: float | None, measured: bool) -> Any:
    fits = batch * context < 60_000
    timed = measured and fits
    return {
        "batch": batch, "context": context, "method": method, "keep": keep, "accepted": accepted,
        "tokens_per_step": 1 + (keep or 0), "places": context, "memory_bytes": 2e9, "fits": fits, "rows_that_fit": 7,
        "floor_s": 0.002, "floor_tokens_s": 500.0 * batch, "floor_ratio": 1.0 if fits else None,
        "prefill_floor_s": 0.1, "calls": 484 if timed else None, "calls_floor_s": 0.003,
        "step_s": {"p10": 0.004, "p50": 0.005, "p90": 0.006} if timed else None,
        "tokens_s": 200.0 if timed else None, "over_floor": 2.5 if timed else None,
        "ratio": {"value": 1.0, "low": 0.9, "high": 1.1} if timed else None, "note": "" if fits else "needs 9 GB of 8",
    }  # fmt: skip


def summary(measured: bool = True, accepted: tuple[float, ...] = (2.4,)) -> dict[str, Any]:
    arms = [("regular", None, None), ("mtp", None, None), *(("eagle", None, a) for a in accepted)]
    arms += [("pipo", keep, None) for keep in KEPT]
    cells = []
    for context in CONTEXTS:
        for batch in BATCHES:
            for keep in KEPT:
                for length in accepted:
                    floor = side("pipo", 2.15) if keep == 1.0 else side("eagle", 1.56)
                    if batch * context >= 60_000:
                        floor = side("pipo", None) if keep == 1.0 else side(None, None)
                    timed = side("regular", 1.0, settled=False) if floor["ratio"] else side(None, None)
                    cells.append(
                        {"batch": batch, "context": context, "keep": keep, "accepted": length, "floor": floor,
                         "measured": timed if measured else None}
                    )  # fmt: skip
    return {
        "schema": 1, "kind": "map", "shape": "lab", "dtype": "float32", "device": "cpu", "batches": BATCHES,
        "contexts": CONTEXTS, "kept": KEPT, "accepted": list(accepted), "depth": 3, "prompt": False, "steps": 24,
        "measured": measured, "memory_bytes": 8e9, "interval": "95%",
        "machine": {"name": "cpu", "bandwidth": 4e10, "matmul_rate": 2.6e11, "attention_rate": 8e10, "call_s": 1e-6,
                    "memory": 8e9, "dtype": "float32", "threads": 1},
        "rows": [row(b, n, *arm, measured) for n in CONTEXTS for b in BATCHES for arm in arms], "cells": cells,
    }  # fmt: skip


def write_map(folder: Path, what: dict[str, Any]) -> Path:
    write_run(folder, compare_summary() | {"kind": "map"})
    (folder / "records.jsonl").unlink()
    record.append(folder / "records.jsonl", [record.MapRecord(batch=1, context=512, method="regular")])
    (folder / "summary.json").write_text(json.dumps(what))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("report")
    return reports.build([write_map(top / "map", summary())], top / "out")


def test_the_heat_map_is_drawn(built: Path) -> None:
    from matplotlib.image import imread

    pixels = imread(built.parent / "map.png")[..., :3]
    assert min(pixels.shape[:2]) > 500
    dark = float((pixels.mean(axis=2) < 0.5).mean())
    assert 0.05 < dark < 0.5, f"{100 * dark:.0f} % dark: the cells of PIPO are"
    tree = ElementTree.parse(built.parent / "map.svg")
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) > 30


def test_cells_name_winner_ratio_and_doubt(built: Path) -> None:
    figure = maps.heat_map(load(built.parent.parent / "map"), 2.4)
    assert len(figure.axes) == 4, "two kept shares, floor above and measured below"
    words = [text.get_text() for text in figure.axes[1].texts]
    assert words.count("PIPO\n2.15×") == 5 and words.count("PIPO\nno regular") == 1
    assert [t.get_text() for t in figure.axes[2].texts] == ["regular ?\n1.00×"] * 5
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert len(hatched) == 1, "the cell that nothing fits into"


def test_inks_differ_in_grey() -> None:
    def lightness(colour: str) -> float:
        r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * r + 0.587 * g + 0.114 * b

    levels = sorted(lightness(face) for face, _ in maps.FACES.values())
    assert all(b - a > 30 for a, b in itertools.pairwise(levels)), levels
    assert all(abs(lightness(face) - lightness(ink)) > 120 for face, ink in maps.FACES.values())


def test_page_and_tables(built: Path) -> None:
    page = built.read_text()
    for needed in (
        "- **lab, 33.5 % of PIPO's drafts kept, EAGLE at 2.4 tokens a step:** fastest by the floor EAGLE in 5 of 6 "
        "cells (in 1 nothing fits or was timed), and as measured regular in 5 (5 not settled) of 6 cells",
        "## Map", "](map.png)", "| 512 | 1 | 33.5 | 2.4 | EAGLE 1.56× | 1.20 | regular ? 1.00× | 1.20 |",
        "Floor: cpu at 40 GB/s, 0.26 TFLOP/s (0.08 in attention), 8 GB", "needs 9 GB of 8",
        "| PIPO, 33.5 % kept | 512 | 1 | 1.33 | 2.00 | 7 | 2.000 | 1.00 | 100.00 | 5.00 [4.00, 6.00] | 2.5 | 484 |",
    ):  # fmt: skip
        assert needed in page, needed
    assert sorted(p.name for p in built.parent.glob("*.csv")) == ["map-cells.csv", "map.csv"]
    header, *lines = (built.parent / "map-cells.csv").read_text().splitlines()
    assert "floor.winner" in header.split(",") and len(lines) == 12


def test_floors_alone_and_several_acceptance_lengths(tmp_path: Path) -> None:
    folder = write_map(tmp_path / "map", summary(measured=False, accepted=(2.4, 3.0)))
    page = reports.build([folder], tmp_path / "out").read_text()
    assert "](map-eagle-2.4.png)" in page and "](map-eagle-3.png)" in page
    assert (tmp_path / "out" / "map-eagle-3.png").is_file()
    assert "as measured" not in page
    assert len(maps.heat_map(load(folder), 3.0).axes) == 2


def test_a_map_stands_behind_comparisons(tmp_path: Path) -> None:
    folders = [write_map(tmp_path / "map", summary()), write_run(tmp_path / "compare", compare_summary())]
    assert [run.kind for run in load_all(folders)] == ["compare", "map"]
    page = reports.build(folders, tmp_path / "out").read_text()
    assert page.index("## Comparison") < page.index("## Map")
