"""Rows in each other's way: a long prompt in the last one, and rows that held numbers that are not finite."""

import msgspec
import pytest
import torch

from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request
from pipo.model.testing import tiny_model
from tests.unit.test_engine_plan import _check_rows, alone, request


@pytest.fixture(scope="module")
def models():
    return {pairs: tiny_model("hybrid", pipo=pairs) for pairs in (False, True)}


def test_a_failed_rows_numbers_do_not_reach_who_comes_after(models):
    model = tiny_model("hybrid", pipo=False)
    with torch.no_grad():
        model.backbone.embed_tokens.weight[63] = torch.nan
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.nan_to_num())
    engine = TorchEngine(model, max_batch=2)
    bad = [Request(id=f"bad{i}", prompt=(5,) * 30 + (63,), max_slots=4) for i in range(2)]
    assert {e[-1].finish for e in engine.generate(bad).values()} == {"failed"}
    rs = [request("long", 40, Method("regular")), request("short", 4, Method("regular"))]
    rs = [msgspec.structs.replace(r, prompt=tuple(min(t, 62) for t in r.prompt)) for r in rs]
    assert {e[-1].finish for e in engine.generate(rs).values()} == {"slots"}


def test_a_long_prompt_in_the_last_row_is_not_run_over_by_a_batch_that_makes_room(models):
    """Two methods run, all rows but the prompt's are taken, and its method's batch is not the last one."""
    first = [request(f"a{i}", 5 + i, Method("regular"), max_slots=30) for i in range(2)]
    second = [request(f"b{i}", 6 + i, Method("mtp"), max_slots=60) for i in range(2)]
    late = request("late", 40, Method("regular"), max_slots=20)
    engine = TorchEngine(models[False], max_batch=5, chunk=8)
    got: dict[str, list[int]] = {r.id: [] for r in (*first, *second, late)}

    def step() -> None:
        for e in engine.step():
            got[e.request_id] += e.tokens
        _check_rows(engine)

    for r in first + second:
        engine.submit(r)
    while len(engine._rows.batches) < 2:
        step()
    engine.submit(late)
    while engine.busy:
        step()
    assert got == {r.id: alone(models[False], r) for r in (*first, *second, late)}


@pytest.mark.parametrize("options", [{}, {"chunk": 8}, {"graphs": True}], ids=str)
def test_no_row_keeps_numbers_that_are_not_finite(options):
    model = tiny_model("hybrid", pipo=False)
    with torch.no_grad():
        model.backbone.embed_tokens.weight[63] = torch.nan
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.nan_to_num())
    engine = TorchEngine(model, max_batch=4, context=90, **options)
    bad = [Request(id=f"bad{i}", prompt=(5,) * 30 + (63,), max_slots=4) for i in range(3)]
    assert {e[-1].finish for e in engine.generate(bad).values()} == {"failed"}
    for kv in engine.arena.kv:
        assert kv.k.isfinite().all() and kv.v.isfinite().all()
    engine.submit(bad[0])
    for _ in range(2):
        engine.step()
    engine.cancel("bad0")
    engine.step()
    assert not engine.busy
    assert all(kv.k.isfinite().all() and kv.v.isfinite().all() for kv in engine.arena.kv)
