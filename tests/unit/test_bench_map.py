"""The map: floors without a model, steps of a tiny model through the real engine, resuming, what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import map as bench_map
from bench import record
from bench.map_arms import arms_of, tokens_per_step
from bench.record import MapRecord
from pipo.errors import BadInput, Cancelled
from tests.unit.bench_jobs import Context

FLOOR = {
    "shape": "qwen3.5-4b", "batches": [1, 8], "contexts": [2048, 131072], "kept": [0.335, 1.0], "accepted": [2.4, 3.0],
    "machine": "h100-ideal", "measured": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a tiny hybrid model, as a file."""
    from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    folder = tmp_path_factory.mktemp("shape")
    save_model(tiny_model(vocab=VOCAB_SIZE, layers=2), folder, lab_tokenizer())
    return folder / "config.json"


def measured(tiny: Path, **more: Any) -> dict[str, Any]:
    return {"shape": str(tiny), "batches": [1, 3], "contexts": [16], "kept": [0.5], "steps": 5,
            "machine": "h100-ideal"} | more  # fmt: skip


def row(summary: dict[str, Any], *key: Any) -> dict[str, Any]:
    found = [r for r in summary["rows"] if (r["batch"], r["context"], r["method"], r["keep"], r["accepted"]) == key]
    assert len(found) == 1, f"{key}: {len(found)} rows"
    return found[0]  # type: ignore[no-any-return]


def test_a_map_of_floors_names_the_winner_of_each_cell(tmp_path: Path) -> None:
    summary = bench_map.run(FLOOR, Context(tmp_path))
    assert len(summary["rows"]) == 4 * (2 + 2 + 2) and len(summary["cells"]) == 4 * 2 * 2
    assert row(summary, 8, 131072, "pipo", 1.0, None)["floor_ratio"] == pytest.approx(2.89, abs=0.01)
    assert row(summary, 8, 131072, "pipo", 1.0, None)["places"] == 65536
    assert row(summary, 1, 2048, "eagle", None, 3.0)["tokens_per_step"] == 3.0
    winners = {(c["batch"], c["context"], c["keep"], c["accepted"]): c["floor"]["winner"] for c in summary["cells"]}
    assert winners[1, 2048, 0.335, 2.4] == "eagle" and winners[8, 131072, 1.0, 3.0] == "pipo"
    assert all(c["measured"] is None for c in summary["cells"]) and all(not r["step_s"] for r in summary["rows"])
    assert (tmp_path / "summary.json").exists() and summary["machine"]["name"] == "h100-ideal"


def test_what_does_not_fit_has_no_part_in_the_contest(tmp_path: Path) -> None:
    summary = bench_map.run(FLOOR | {"memory_gb": 36, "kept": [0.8], "accepted": [2.4]}, Context(tmp_path))
    regular, pipo = (row(summary, 8, 131072, m, k, None) for m, k in (("regular", None), ("pipo", 0.8)))
    assert not regular["fits"] and "GB of 36.0" in regular["note"] and pipo["fits"]
    assert regular["rows_that_fit"] < 8 <= pipo["rows_that_fit"]
    assert pipo["floor_ratio"] is None
    alone = next(c for c in summary["cells"] if (c["batch"], c["context"]) == (8, 131072))["floor"]
    assert alone == {"winner": "pipo", "ratio": None, "lead": None, "settled": True}
    nothing = bench_map.run(FLOOR | {"memory_gb": 1, "accepted": [2.4]}, Context(tmp_path / "none"))
    assert {c["floor"]["winner"] for c in nothing["cells"]} == {None}


def test_prompts_are_dense(tmp_path: Path) -> None:
    summary = bench_map.run(FLOOR | {"prompt": True}, Context(tmp_path))
    assert {row(summary, 1, 2048, "pipo", k, None)["places"] for k in (0.335, 1.0)} == {1024}


def test_steps_of_every_method_are_timed_in_turns(tiny: Path, tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    summary = bench_map.run(measured(tiny), ctx)
    records = [r for r in record.read(tmp_path / "records.jsonl") if isinstance(r, MapRecord)]
    assert [(r.batch, r.method) for r in records] == [(b, a.method.name) for b in (1, 3) for a in arms_of([0.5], 3)]
    assert all(len(r.step_s) == 5 and min(r.step_s) > 0 and r.calls > 0 and not r.note for r in records)
    assert summary["measured"] and summary["steps"] == 5
    for r in summary["rows"]:
        assert 0 < r["step_s"]["p10"] <= r["step_s"]["p50"] <= r["step_s"]["p90"]
        assert r["tokens_s"] == pytest.approx(r["batch"] * r["tokens_per_step"] / r["step_s"]["p50"])
        assert r["ratio"]["low"] <= r["ratio"]["value"] <= r["ratio"]["high"]
        assert r["over_floor"] is None, "an ideal machine's floor is not this machine's"
    assert all(c["measured"]["winner"] in ("regular", "eagle", "pipo") for c in summary["cells"])
    assert [d["done"] for kind, d in ctx.events if kind == "progress"] == [0, 1, 2]


def test_a_run_that_was_stopped_goes_on_with_the_next_cell(tiny: Path, tmp_path: Path) -> None:
    asked = measured(tiny)
    with pytest.raises(Cancelled):
        bench_map.run(asked, Context(tmp_path, cancel_at=60))
    path = tmp_path / "records.jsonl"
    before = path.read_bytes()
    assert len(record.read(path)) == 4, "one cell of two is there, whole"
    bench_map.run(asked, Context(tmp_path))
    assert path.read_bytes().startswith(before) and len(record.read(path)) == 8


def test_a_run_goes_on_with_the_machine_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.machine import MACHINES

    measured_times = []

    def once(device: str, dtype: Any) -> Any:
        measured_times.append(device)
        return MACHINES["h100-ideal"]

    monkeypatch.setattr(bench_map.machine, "measure", once)
    asked = {"shape": "lab", "batches": [1], "contexts": [64], "measured": False}
    one, two = (bench_map.run(asked, Context(tmp_path)) for _ in range(2))
    assert one == two and len(measured_times) == 1


def test_caches_that_the_engine_cannot_hold_are_said_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipo.engine.plan.free_memory", lambda device, held=0: 10_000_000)
    summary = bench_map.run(measured(tiny, batches=[1, 400], contexts=[500]), Context(tmp_path))
    small, large = (row(summary, b, 500, "regular", None, None) for b in (1, 400))
    assert small["step_s"] and small["fits"]
    assert large["fits"] and large["step_s"] is None and large["note"].startswith("not timed: 400 rows")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batches": []}, "batches .* at least one value"),
        ({"contexts": [8, 8]}, "none twice"),
        ({"batches": [0]}, "at least 1"),
        ({"kept": [1.5]}, r"kept \[1.5\] must lie in \[0, 1\]"),
        ({"accepted": [4.5]}, r"accepted \[4.5\] must lie in \[1, 4\]"),
        ({"depth": 0}, "depth 0"),
        ({"steps": 0}, "steps 0"),
        ({"memory_gb": 0}, "memory_gb 0"),
        ({"machine": "b300"}, "unknown machine 'b300'"),
        ({"dtype": "int4"}, "unknown dtype 'int4'"),
        ({"shape": "nowhere"}, "unknown shape 'nowhere'"),
        ({"contexts": [300_000], "measured": False}, "262144; shorten it"),
        ({"batch": 3}, "unknown field `batch`"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        bench_map.run({"machine": "h100-ideal"} | change, Context(tmp_path))
    assert not (tmp_path / "records.jsonl").exists(), "refused before anything is written"


def test_tokens_of_a_step() -> None:
    found = [
        tokens_per_step(m, k, a) for m, k, a in (("regular", None, None), ("mtp", None, None), ("pipo", 0.3, None))
    ]
    assert found == [1, 2, 1.3] and tokens_per_step("eagle", None, 2.4) == 2.4


def test_measuring_needs_few_libraries() -> None:
    code = "import sys, bench.map, bench.machine, bench.roofline; print(*sorted(set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    # not rich: httpx, which transformers brings, imports it where it is installed
    assert not {"zmq", "typer", "pandas", "matplotlib", "peft"} & set(done.stdout.split())
