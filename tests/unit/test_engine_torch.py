"""The engine: budgets, ends, gates, groups, cancellation, joining and leaving, and input that breaks a rule."""

import pytest
import torch

from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadInput
from pipo.model.testing import tiny_model

ALL_METHODS = [
    Method("regular"), Method("mtp"), Method("eagle", depth=2), Method("pipo", threshold=0.5),
    Method("random", keep_rate=0.5),
]  # fmt: skip
PROMPT = (5, 9, 3, 30, 31, 7, 11)


@pytest.fixture(scope="module")
def models():
    return {pairs: tiny_model("hybrid", pipo=pairs) for pairs in (False, True)}


def make(**more) -> Request:
    return Request(**{"id": "a", "prompt": PROMPT, "max_slots": 12, "seed": 4, "ignore_eos": True, **more})


def run(model, *requests: Request, **options):
    return TorchEngine(model, **options).generate(requests)


def tokens(events) -> list[int]:
    return [t for e in events for t in e.tokens]


def places(events) -> list[int]:
    return [t for e in events for t in e.places]


def each(methods=ALL_METHODS):
    return pytest.mark.parametrize("method", methods, ids=lambda m: m.name)


@each()
def test_events_add_up(models, method):
    events = run(models[method.pairs], make(method=method))["a"]
    assert [e.finish for e in events] == [None] * (len(events) - 1) + ["slots"]
    assert sum(e.slots for e in events) == 12
    assert tokens(events) == [p for p in places(events) if p != 0], "tokens are the places without PADs"
    assert len(places(events)) == (24 if method.pairs else 12)
    assert [e.time for e in events] == sorted(e.time for e in events)


@each([m for m in ALL_METHODS if m.pairs])
def test_the_first_token_is_out_before_its_draft(models, method):
    engine = TorchEngine(models[True])
    first, second, third = engine.generate([make(method=method)])["a"][:3]
    assert (len(first.tokens), first.places, first.slots, first.drafts) == (1, (), 0, ())
    assert second.places[0] == first.tokens[0] and second.slots == 1 and len(second.drafts) == 1
    assert second.tokens == ((second.drafts[0].id,) if second.drafts[0].kept else ())
    assert len(third.places) == 2 and third.tokens[0] == third.places[0]
    assert engine.submitted["a"] < first.time < second.time


@each()
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_token_budget_cuts_exactly(models, method, count):
    whole = tokens(run(models[method.pairs], make(method=method))["a"])
    events = run(models[method.pairs], make(method=method, max_tokens=count))["a"]
    assert tokens(events) == whole[:count] and events[-1].finish == "tokens"
    if method.pairs:
        assert len(places(events)) == 2 * sum(e.slots for e in events)


@each([Method("mtp"), Method("eagle", depth=3)])
def test_slot_budget_cuts_a_step_of_several_tokens(models, method):
    whole = run(models[False], make(method=method, max_slots=30))["a"]
    for slots in (1, 2, 3, 4):
        events = run(models[False], make(method=method, max_slots=slots))["a"]
        assert tokens(events) == tokens(whole)[:slots] and events[-1].finish == "slots"


@each()
def test_eos_ends_at_either_place_of_a_pair(models, method):
    model = models[method.pairs]
    whole = places(run(model, make(method=method))["a"])
    before = model.config.eos_token_id
    try:
        for i, eos in enumerate(whole):
            if eos == 0 or eos in whole[:i]:
                continue
            model.config.eos_token_id = eos
            events = run(model, make(method=method, ignore_eos=False))["a"]
            assert events[-1].finish == "eos" and tokens(events)[-1] == eos
            if method.pairs and i % 2 == 0:
                assert places(events) == [*whole[: i + 1], 0], "EOS as the first place ends the pair with PAD"
                assert events[-1].drafts == (), "no draft counts after EOS"
            else:
                assert places(events) == whole[: i + 1]
    finally:
        model.config.eos_token_id = before


def test_eos_and_token_budget_at_once_is_eos(models):
    whole = tokens(run(models[False], make())["a"])
    model = models[False]
    before, model.config.eos_token_id = model.config.eos_token_id, whole[0]
    try:
        assert run(model, make(ignore_eos=False, max_tokens=1))["a"][-1].finish == "eos"
    finally:
        model.config.eos_token_id = before


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_threshold_0_keeps_all_and_1_none_where_the_sigmoid_saturates(sign):
    model = tiny_model("hybrid", pipo=True)
    with torch.no_grad():
        model.confidence_head.fc2.weight.mul_(1e6)
        model.confidence_head.fc2.weight.mul_(sign)
    requests = [make(id=str(t), method=Method("pipo", threshold=t)) for t in (0.0, 1.0, 0.5)]
    out = run(model, *requests)
    drafts = {t: [d for e in out[t] for d in e.drafts] for t in out}
    assert {d.confidence for d in drafts["1.0"]} & {0.0, 1.0}, "the test needs a saturated sigmoid"
    assert all(d.kept for d in drafts["0.0"]) and not any(d.kept for d in drafts["1.0"])
    assert all(d.kept == (d.confidence >= 0.5) for d in drafts["0.5"])
    assert all(p == 0 for p in places(out["1.0"])[1::2])


def test_rejected_drafts_stay_in_the_record(models):
    events = run(models[True], make(method=Method("pipo", threshold=1.0)))["a"]
    drafts = [d for e in events for d in e.drafts]
    assert len(drafts) == 12 and all(0 < d.id < 64 and 0 < d.confidence < 1 and not d.kept for d in drafts)


def test_keep_rate_sets_the_pad_ratio(models):
    method = Method("random", keep_rate=0.3)
    out = run(models[True], *(make(id=str(i), seed=i, method=method, max_slots=40) for i in range(40)))
    kept = [d.kept for ev in out.values() for e in ev for d in e.drafts]
    assert len(kept) == 1600 and abs(sum(kept) / 1600 - 0.3) < 0.045, sum(kept) / 1600


@each()
def test_a_sample_depends_on_its_own_seed_alone(models, method):
    model = models[method.pairs]
    samplings = [Sampling(presence_penalty=0.5, top_k=30), Sampling(), Sampling(temperature=0.0)]
    requests = [
        make(id=str(i), seed=i, method=method, sampling=samplings[i % 3], prompt=PROMPT[: 1 + i % 7], max_slots=5 + i)
        for i in range(9)
    ]
    alone = {r.id: tokens(run(model, r)[r.id]) for r in requests}
    engine, got = TorchEngine(model, max_batch=4), {r.id: [] for r in requests}
    for r in requests[::-1]:
        engine.submit(r)
        for e in engine.step():
            got[e.request_id] += e.tokens
    while engine.busy:
        for e in engine.step():
            got[e.request_id] += e.tokens
    assert got == alone
    assert len({tuple(v[:4]) for v in alone.values()}) > 1


@each()
def test_a_group_shares_its_prefill_and_changes_nothing(models, method, monkeypatch):
    model = models[method.pairs]
    requests = [make(id=str(i), seed=i, method=method) for i in range(4)]
    own = run(model, *requests)
    passes = []
    from pipo.engine import forward as fw

    plain = fw.prefill
    monkeypatch.setattr(fw, "prefill", lambda w, arena, x, c: passes.append(len(x)) or plain(w, arena, x, c))
    shared = run(model, *(make(id=str(i), seed=i, method=method, group="g") for i in range(4)))
    assert passes == [1]
    assert {i: places(e) for i, e in own.items()} == {i: places(e) for i, e in shared.items()}


def test_methods_share_an_engine_and_rows_stay_within_max_batch(models):
    methods = [Method("regular"), Method("mtp"), Method("eagle", depth=1), Method("eagle", depth=3)]
    requests = [make(id=f"{m.name}{m.depth}{i}", seed=i, method=m) for i in range(3) for m in methods]
    engine = TorchEngine(models[False], max_batch=5)
    out = engine.generate(requests)
    assert not engine.busy
    for r in requests:
        assert places(out[r.id]) == places(run(models[False], r)[r.id])


@each()
def test_presence_penalty_counts_every_generated_token_and_not_the_prompt(models, method):
    everything = tuple(range(1, 64))
    method = Method("pipo", threshold=0.0) if method.name == "pipo" else method
    huge = Sampling(presence_penalty=1e6)
    request = make(prompt=everything, method=method, sampling=huge, max_tokens=50, max_slots=50)
    out = tokens(run(models[method.pairs], request)["a"])
    assert len(set(out)) == len(out) == 50, "a huge penalty forbids repeats, drafts after token 1 included"
    first = [
        tokens(run(models[method.pairs], make(prompt=everything, method=method, sampling=s, max_tokens=1))["a"])
        for s in (Sampling(temperature=0.0), Sampling(temperature=0.0, presence_penalty=1e6))
    ]
    assert first[0] == first[1], "the prompt's tokens are not penalised"


def test_pad_is_never_sampled(models):
    model = tiny_model("hybrid", pipo=True)
    with torch.no_grad():
        model.backbone.embed_tokens.weight[0] = 10 * model.backbone.embed_tokens.weight[1:].sum(0)
    out = run(model, *(make(id=str(i), seed=i, method=Method("pipo", threshold=0.0)) for i in range(20)))
    assert all(0 not in tokens(e) for e in out.values())


def test_cancelled_requests_end_wherever_they_are(models):
    engine = TorchEngine(models[False], max_batch=2)
    for i in range(3):
        engine.submit(make(id=str(i), seed=i))
    events = engine.step() + engine.step()
    for i in ("0", "2", "unknown"):
        engine.cancel(i)
    while engine.busy:
        events += engine.step()
    finish = {e.request_id: e.finish for e in events if e.finish}
    assert finish == {"0": "cancelled", "2": "cancelled", "1": "slots"}
    assert not any(e.tokens for e in events if e.request_id == "2")
    assert tokens([e for e in events if e.request_id == "1"]) == tokens(run(models[False], make(id="1", seed=1))["1"])


def test_output_that_is_not_finite_fails_that_request_alone(models):
    model = tiny_model("hybrid", pipo=True)
    with torch.no_grad():
        model.backbone.embed_tokens.weight[63] = torch.nan
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.nan_to_num())
    for method in (Method("pipo", threshold=0.0), Method("random")):
        for sampling in (Sampling(), Sampling(temperature=0.0), Sampling(top_k=5)):
            out = run(
                model,
                make(id="bad", prompt=(5, 63), method=method, sampling=sampling),
                make(id="good", prompt=(5, 6), method=method, sampling=Sampling(temperature=0.0), max_slots=1),
            )
            assert out["bad"][-1].finish == "failed" and "not finite" in out["bad"][-1].error
            assert out["good"][-1].finish == "slots"


def test_the_models_positions_end_a_request(models):
    model = tiny_model("dense", pipo=False)
    model.config.max_position_embeddings = 16
    events = run(model, make(max_slots=1000, prompt=PROMPT))["a"]
    assert sum(e.slots for e in events) == 16 - len(PROMPT) and events[-1].finish == "slots"
    with pytest.raises(BadInput, match="16 positions"):
        TorchEngine(model).submit(make(prompt=PROMPT * 3))


def test_reload_reads_trained_weights():
    model = tiny_model("hybrid", pipo=False)
    engine = TorchEngine(model)
    before = tokens(engine.generate([make()])["a"])
    with torch.no_grad():
        model.backbone.layers[0].mlp.down_proj.weight.mul_(-3)
    assert tokens(engine.generate([make()])["a"]) == before
    engine.reload()
    assert tokens(engine.generate([make()])["a"]) == tokens(run(model, make())["a"]) != before


@pytest.mark.parametrize(
    ("pairs", "change", "message"),
    [
        (False, {"prompt": ()}, "empty"),
        (False, {"prompt": (5, 64)}, "64 is outside"),
        (False, {"prompt": (-1,)}, "-1 is outside"),
        (False, {"prompt": (5, 0)}, "PAD"),
        (False, {"max_slots": None}, "no budget"),
        (False, {"max_slots": 0}, "max_slots 0"),
        (False, {"max_tokens": -3}, "max_tokens -3"),
        (False, {"prompt": (5,) * 5000}, "4096 positions"),
        (False, {"method": Method("pipo")}, "needs a PIPO model"),
        (False, {"method": Method("random")}, "needs a PIPO model"),
        (True, {"method": Method("regular")}, "needs a regular model"),
        (True, {"method": Method("mtp")}, "needs a regular model"),
        (True, {"method": Method("eagle")}, "needs a regular model"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_at_submit(models, pairs, change, message):
    engine = TorchEngine(models[pairs])
    with pytest.raises(BadInput, match=message):
        engine.submit(make(**change))
    assert not engine.busy


def test_live_ids_and_group_prompts_must_not_clash(models):
    engine = TorchEngine(models[False])
    engine.submit(make(group="g"))
    with pytest.raises(BadInput, match="running already"):
        engine.submit(make())
    with pytest.raises(BadInput, match="different prompts"):
        engine.submit(make(id="b", group="g", prompt=(5,)))
    with pytest.raises(BadInput, match="busy"):
        engine.reload()
    with pytest.raises(BadInput, match="max_batch"):
        TorchEngine(models[False], max_batch=0)
