"""The memory plan, chunked prefill, rows that come, go and move."""

import itertools

import msgspec
import numpy as np
import pytest
import torch

from pipo.decode.sampling import Stream
from pipo.engine import TorchEngine
from pipo.engine.numbers import PLACES, Numbers
from pipo.engine.plan import SLACK, available
from pipo.engine.trial import start_at
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadInput
from pipo.model.testing import tiny_model

METHODS = [
    Method("regular"), Method("mtp"), Method("eagle", depth=1), Method("eagle", depth=3),
    Method("pipo", threshold=0.5), Method("random", keep_rate=0.5),
]  # fmt: skip
SAMPLINGS = [Sampling(), Sampling(temperature=0.0), Sampling(top_k=9, min_p=0.05, frequency_penalty=0.4)]


@pytest.fixture(scope="module")
def models():
    return {pairs: tiny_model("hybrid", pipo=pairs) for pairs in (False, True)}


def request(name: str, length: int, method: Method, **more) -> Request:
    seed = sum(map(ord, name)) * 7 + length
    g = torch.Generator().manual_seed(seed)
    prompt = tuple(torch.randint(3, 64, (length,), generator=g).tolist())
    given = {"id": name, "prompt": prompt, "method": method, "seed": seed, "max_slots": 10, "ignore_eos": True, **more}
    return Request(**given)


def tokens(events) -> list[int]:
    return [t for e in events for t in e.tokens]


def alone(model, r: Request) -> list[int]:
    return tokens(TorchEngine(model, max_batch=1, chunk=4096).generate([r])[r.id])


def each(methods=METHODS):
    return pytest.mark.parametrize("method", methods, ids=lambda m: f"{m.name}{m.depth if m.name == 'eagle' else ''}")


@each()
def test_chunks_of_a_prompt_change_nothing(models, method):
    for length in (40, 41, 64, 7):
        r = request("a", length, method)
        whole = alone(models[method.pairs], r)
        for chunk in (1, 8, 20):
            engine = TorchEngine(models[method.pairs], max_batch=2, chunk=chunk)
            assert tokens(engine.generate([r])["a"]) == whole, f"{length} tokens in chunks of {chunk}"


def test_a_long_prompt_lets_running_rows_step_between_its_chunks(models):
    engine = TorchEngine(models[False], max_batch=2, chunk=8)
    engine.submit(request("short", 5, Method("regular"), max_slots=40))
    first = engine.step()
    engine.submit(request("long", 64, Method("regular")))
    seen = [e.request_id for e in first]
    while "long" not in seen:
        seen += [e.request_id for e in engine.step()]
    assert seen.count("short") >= 8, "one step of the running row after each of the eight chunks"
    while engine.busy:
        engine.step()


@each()
def test_samples_of_a_long_prompt_share_its_chunks_also_those_that_wait(models, method, monkeypatch):
    from pipo.engine import forward as fw

    model = models[method.pairs]
    rs = [request("a", 60, method, id=str(i), seed=i, group="g") for i in range(7)]
    want = {r.id: alone(model, r) for r in rs}
    passes, plain = [], fw.prefill
    monkeypatch.setattr(fw, "prefill", lambda w, arena, x, c: passes.append(c.start) or plain(w, arena, x, c))
    out = TorchEngine(model, max_batch=3, chunk=10).generate(rs)
    assert {i: tokens(e) for i, e in out.items()} == want
    assert passes == list(range(0, 30 if method.pairs else 60, 10))
    passes.clear()
    out = TorchEngine(model, max_batch=1, chunk=10).generate(rs)
    assert {i: tokens(e) for i, e in out.items()} == want, "one row: nowhere to keep the prompt, so it runs again"
    assert len(passes) == 7 * (3 if method.pairs else 6)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_any_mix_that_comes_and_goes_gives_what_each_gives_alone(models, pairs, seed):
    """Methods, depths, samplings, lengths, groups and budgets mixed; few rows, small chunks, cancellations, padding."""
    rng, model = np.random.default_rng(seed), models[pairs]
    methods = [m for m in METHODS if m.pairs == pairs] + ([Method("pipo", threshold=0.9)] if pairs else [])
    rs = []
    for i in range(12):
        base = request(
            f"r{i}", int(rng.integers(1, 60)), methods[rng.integers(len(methods))], group=f"g{i}",
            sampling=SAMPLINGS[rng.integers(3)], max_slots=int(rng.integers(1, 30)),
        )  # fmt: skip
        rs += [msgspec.structs.replace(base, id=f"r{i}.{k}", seed=base.seed + k) for k in range(rng.integers(1, 4))]
    want = {r.id: alone(model, r) for r in rs}
    options = {"chunk": int(rng.integers(3, 20)), "context": 120, "graphs": bool(rng.integers(2))}
    engine = TorchEngine(model, max_batch=int(rng.integers(1, 8)), **options)
    got: dict[str, list[int]] = {r.id: [] for r in rs}
    finish: dict[str, str] = {}
    waiting = list(rs)
    while waiting or engine.busy:
        for _ in range(int(rng.integers(0, 4))):
            if waiting:
                engine.submit(waiting.pop())
        if rng.random() < 0.04 and engine.busy:
            engine.cancel(sorted(engine._live)[rng.integers(len(engine._live))])
        for e in engine.step():
            got[e.request_id] += e.tokens
            if e.finish:
                finish[e.request_id] = e.finish
        _check_rows(engine)
    assert set(finish) == set(want)
    for name, whole in want.items():
        if finish[name] == "cancelled":
            assert got[name] == whole[: len(got[name])]
        else:
            assert got[name] == whole, name
    assert sum(f == "cancelled" for f in finish.values()) < len(rs) / 2


def _check_rows(engine: TorchEngine) -> None:
    """Batches stand side by side from row 0 on and never beyond the plan."""
    at = 0
    for batch in engine._rows.batches.values():
        assert batch.first == at and batch.n > 0
        at = batch.end
    assert at + (engine._long is not None) <= engine.plan.rows


def test_numbers_are_those_of_each_stream():
    numbers, streams = Numbers([5, 6, 7 << 64]), [Stream(s) for s in (5, 6, 7 << 64)]
    at = np.array([0, 3, 200])
    for _ in range(30):
        got = numbers.at(at, 4)
        for i, place, purpose in itertools.product(range(3), range(4), range(4)):
            assert got[i, place, purpose] == streams[i].at(purpose, int(at[i]) + place)
        at = at + np.array([1, 2, 4])
    assert PLACES >= 17, "the deepest chain draws for 17 places"
    numbers.keep([2, 0])
    numbers.join(Numbers([9]))
    assert numbers.at(np.array([7, 8, 9]), 1)[:, 0, 2].tolist() == [
        streams[2].at(2, 7), streams[0].at(2, 8), Stream(9).at(2, 9),
    ]  # fmt: skip


# The plan


def test_the_plan_says_what_is_allocated(models):
    engine = TorchEngine(models[False], max_batch=3, context=100)
    kv = sum(t.numel() * t.element_size() for kv in engine.arena.kv for t in (kv.k, kv.v))
    states = sum(t.numel() * t.element_size() for s in engine.arena.states for t in (s.conv, s.rec))
    assert engine.plan.bytes == kv + states and engine.plan.places == 100 + SLACK
    assert kv == 3 * 132 * engine.plan.place_bytes and states == 3 * engine.plan.state_bytes


def test_nothing_grows_while_requests_run(models):
    engine = TorchEngine(models[False], max_batch=4, context=90, chunk=16)
    before = [t.data_ptr() for kv in engine.arena.kv for t in (kv.k, kv.v)]
    rs = [request(f"r{i}", 1 + 3 * i, METHODS[i % 4], max_slots=10 + i) for i in range(20)]
    assert all(e[-1].finish == "slots" for e in engine.generate(rs).values())
    assert [t.data_ptr() for kv in engine.arena.kv for t in (kv.k, kv.v)] == before


def test_memory_sets_the_context_where_none_is_asked_for(models):
    small = TorchEngine(models[False], max_batch=4, memory=2_000_000)
    assert 64 <= small.plan.context < 4096 and small.plan.bytes <= 2_000_000
    assert TorchEngine(models[False], max_batch=1, memory=1 << 40).plan.context == 4096, "the model's positions"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_batch": 0}, "max_batch 0"),
        ({"context": 0}, r"context 0 must lie in \[1, 4096\]"),
        ({"context": 5000}, r"context 5000 must lie in \[1, 4096\]"),
        ({"max_batch": 1000, "memory": 1_000_000}, "1000 rows of 64 places need"),
        ({"context": 4000, "memory": 1_000_000}, "64 rows of 4000 places need .* the plan allows 1,000,000"),
        ({"chunk": 0}, "chunk 0"),
    ],
)
def test_plans_that_cannot_be_are_refused(models, change, says):
    with pytest.raises(BadInput, match=says):
        TorchEngine(models[False], **change)


@each()
def test_what_cannot_fit_a_row_is_refused_and_what_just_fits_runs(models, method):
    engine = TorchEngine(models[method.pairs], max_batch=2, context=40)
    for r, says in (
        (request("a", 80 if method.pairs else 40, method), "40 prompt .* and up to 10 slots need 50"),
        (request("a", 10, method, max_slots=100), "a row of the memory plan has 40"),
        (request("a", 10, method, max_slots=None, max_tokens=100), "a row of the memory plan has 40"),
    ):
        with pytest.raises(BadInput, match=says):
            engine.submit(r)
    length = 60 if method.pairs else 30
    r = request("a", length, method)
    out = engine.generate([r, request("b", 5, method)])
    assert out["a"][-1].finish == out["b"][-1].finish == "slots" and tokens(out["a"]) == alone(models[method.pairs], r)


def test_more_samples_than_rows_wait_for_their_turn(models):
    rs = [request("a", 9, Method("regular"), id=str(i), seed=i, group="g") for i in range(9)]
    out = TorchEngine(models[False], max_batch=2).generate(rs)
    assert {r.id: tokens(out[r.id]) for r in rs} == {r.id: alone(models[False], r) for r in rs}


def test_resize_makes_another_plan_between_requests(models):
    engine = TorchEngine(models[False], max_batch=2, memory=4_000_000)
    engine.resize(max_batch=5)
    assert engine.max_batch == 5 and engine.plan.bytes <= 4_000_000
    r = request("a", 20, Method("eagle"))
    assert tokens(engine.generate([r])["a"]) == alone(models[False], r)
    before = engine.plan
    with pytest.raises(BadInput, match="rows of 64 places need"):
        engine.resize(max_batch=10_000)
    assert engine.plan == before
    engine.submit(r)
    with pytest.raises(BadInput, match="the memory plan cannot change while requests run"):
        engine.resize(max_batch=3)


# Timing without a prompt


def test_start_at_runs_rows_that_nobody_prefilled():
    model = tiny_model("hybrid", pipo=True)
    engine = TorchEngine(model, max_batch=3, context=300, mixed=True)
    for method in METHODS:
        rs = [request(f"r{i}", 2, method, max_slots=6) for i in range(3)]
        first = start_at(engine, rs, 200)
        assert {e.request_id for e in first} == {"r0", "r1", "r2"} and engine.arena.lens.tolist() == [200] * 3
        with pytest.raises(BadInput, match="0 free rows"):
            start_at(engine, [request("more", 2, method)], 200)
        while engine.busy:
            assert all(0 <= t < 64 for e in engine.step() for t in e.tokens)
    with pytest.raises(BadInput, match="300 places do not fit"):
        start_at(engine, [request("far", 2, Method("regular"))], 300)


def test_only_a_mixed_engine_decodes_tokens_with_a_pipo_model(models):
    r = request("a", 5, Method("regular"))
    with pytest.raises(BadInput, match="needs a regular model"):
        TorchEngine(models[True]).submit(r)
    assert len(tokens(TorchEngine(models[True], mixed=True).generate([r])["a"])) == 10


def test_available_memory_counts_what_the_system_would_give_up(tmp_path):
    said = tmp_path / "meminfo"
    said.write_text("MemTotal:       100 kB\nMemFree:          7 kB\nMemAvailable:    60 kB\n")
    assert available(said) == 60 * 1024
    assert available(tmp_path / "nowhere") > 1 << 28
