"""An engine whose rows are too short for a task gets fewer, longer ones, and writes what it would have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import compare, loading, record
from bench.fit import fit
from bench.record import SampleRecord
from bench.tasks import Item
from pipo.engine import TorchEngine
from pipo.model import load_model, load_tokenizer
from tests.unit.bench_jobs import Context, make_home, spec

ROOM = 600_000  # bytes of cache


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("fit"))


def engine(home: Path, max_batch: int, memory: int | None = ROOM) -> TorchEngine:
    return TorchEngine(load_model(home / "regular"), max_batch=max_batch, memory=memory)


def test_rows_are_as_many_as_memory_holds_at_the_length_that_is_needed(home: Path) -> None:
    small, tokenizer = engine(home, 16), load_tokenizer(home / "regular")
    items = [Item("a", "a = 4 + 2 ;", "6"), Item("b", "a = 4 ;", "4")]
    short = small.plan.context
    positions = small.model.config.max_position_embeddings
    assert short < positions, "else nothing is tested"
    assert fit(small, tokenizer, items, short - 6, 16) is None and small.plan.context == short
    said = fit(small, tokenizer, items, 2 * short, 16)
    assert small.plan.context >= min(2 * short + 6, positions) and 1 <= small.max_batch < 16
    assert said is not None and f"{small.max_batch} requests at once, not 16" in said
    more = (small.max_batch + 1) * (small.plan.state_bytes + (2 * short + 6 + 32) * small.plan.place_bytes)
    assert more > ROOM * 0.9, "no row less than memory holds"
    assert fit(small, tokenizer, items, 4, 16) is None and small.max_batch == 16, "and back for a task that needs less"
    assert fit(small, tokenizer, items, 10**9, 16) is not None and small.max_batch >= 1, "no more than the positions"


def test_a_fitted_run_writes_the_samples_of_a_roomy_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**spec(home, "regular"), "max_batch": 16, "slots": 150}
    texts = {}
    for name, memory in (("roomy", None), ("tight", ROOM)):
        monkeypatch.setattr(loading, "make_engine", lambda folder, memory=memory: engine(home, 16, memory))
        ctx = Context(tmp_path / name)
        compare.run(settings, ctx)
        rows = [r for r in record.read(tmp_path / name / "records.jsonl") if isinstance(r, SampleRecord)]
        texts[name] = {(r.item, r.sample): (r.text, r.finish, r.slots) for r in rows}
        said = [data["text"] for kind, data in ctx.events if kind == "log" and "requests at once" in data["text"]]
        assert bool(said) == (name == "tight"), said
    assert texts["tight"] == texts["roomy"] and all(f != "failed" for _, f, _ in texts["tight"].values())
