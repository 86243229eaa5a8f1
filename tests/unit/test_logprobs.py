"""Log-probabilities: of the model's own distribution, whatever the sampling; the engine's equal the oracle's."""

import math

import pytest
import torch

from pipo.decode import oracle
from pipo.engine import TorchEngine
from pipo.engine.types import Event, Logprob, Method, Request, Sampling
from pipo.errors import BadInput
from pipo.model.testing import tiny_model

METHODS = [
    Method("regular"),
    Method("mtp"),
    Method("eagle", depth=1),
    Method("eagle", depth=3),
    Method("pipo", threshold=0.5),
    Method("random", keep_rate=0.5),
]
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.0, frequency_penalty=0.5),
    Sampling(temperature=0.8, top_k=10, top_p=0.9, min_p=0.02, presence_penalty=1.5),
]
FEW = [2, 3, 5, 8, 13, 21, 34, 55]


def requests(method: Method, logprobs: int | None = 4) -> list[Request]:
    return [
        Request(id=str(i), prompt=tuple(range(3, 6 + 3 * i)), method=method, sampling=s, seed=i, max_slots=13,
                max_tokens=19, logprobs=logprobs)
        for i, s in enumerate(SAMPLINGS)
    ]  # fmt: skip


def near(ours: Logprob, slow: Logprob) -> None:
    assert abs(ours.logprob - slow.logprob) < 1e-4
    assert len(ours.top) == len(slow.top)
    for (a, x), (b, y) in zip(ours.top, slow.top, strict=True):
        assert abs(x - y) < 1e-4 and (a == b or abs(x - dict(slow.top).get(a, y)) < 1e-4), "ids may swap in a tie only"


@pytest.mark.parametrize("few", [False, True], ids=["whole", "few"])
@pytest.mark.parametrize("kind", ["hybrid", "dense"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}{m.depth}")
def test_every_token_has_the_log_probability_of_the_oracle(kind, method, few):
    model = tiny_model(kind, pipo=method.pairs)
    model.set_draft_vocab(torch.tensor(FEW) if few else None)
    together = TorchEngine(model).generate(requests(method))
    for r in requests(method):
        events, slow = together[r.id], oracle.generate(model, r)
        assert [t for e in events for t in e.tokens] == slow.tokens
        assert all(len(e.logprobs) == len(e.tokens) for e in events), "one for each token of the event"
        for ours, other in zip((x for e in events for x in e.logprobs), slow.logprobs, strict=True):
            near(ours, other)
            values = [v for _, v in ours.top]
            assert len(values) == 4 and values == sorted(values, reverse=True)
        for a, b in zip((d for e in events for d in e.drafts), slow.drafts, strict=True):
            assert (a.logprob is None) == (b.logprob is None) == (not method.pairs)
            assert a.logprob is None or abs(a.logprob - b.logprob) < 1e-4, "kept or rejected"


def test_rejected_drafts_of_pairs_are_among_those_compared():
    for name in ("pipo", "random"):
        method = next(m for m in METHODS if m.name == name)
        drafts = [d for r in requests(method) for d in oracle.generate(tiny_model(pipo=True), r).drafts]
        assert {d.kept for d in drafts} == {True, False}


def first(model, **settings) -> Event:
    request = Request(id="a", prompt=(4, 5), max_tokens=1, logprobs=100, **settings)
    (event,) = [e for e in TorchEngine(model).generate([request])["a"] if e.tokens]
    return event


def test_the_distribution_is_the_models_own_whatever_the_sampling():
    model = tiny_model(pipo=False)
    plain = first(model).logprobs[0]
    with torch.no_grad():
        logits = model.forward_regular(torch.tensor([[4, 5, 0]])).logits[0, -2].float()
    logits[0] = -math.inf
    want = logits.log_softmax(-1)
    assert len(plain.top) == 63, "all but PAD, which cannot come"
    assert {i for i, _ in plain.top} == set(range(1, 64))
    assert all(abs(v - want[i].item()) < 1e-4 for i, v in plain.top)
    assert sum(math.exp(v) for _, v in plain.top) == pytest.approx(1, abs=1e-5)
    greedy = first(model, sampling=Sampling(temperature=0.0, top_k=3)).logprobs[0]
    assert [i for i, _ in greedy.top] == [i for i, _ in plain.top]
    assert greedy.logprob == pytest.approx(plain.top[0][1], abs=1e-6)


def test_rows_ask_for_what_they_like_in_one_batch():
    model = tiny_model(pipo=True)
    asked = [None, 0, 1, 7]
    rows = [
        Request(id=str(n), prompt=(4, 5, 6), method=Method("pipo", threshold=0.4), seed=3, max_slots=9, logprobs=n)
        for n in asked
    ]
    out = TorchEngine(model).generate(rows)
    tokens = [[t for e in out[str(n)] for t in e.tokens] for n in asked]
    assert all(t == tokens[0] for t in tokens), "asking changes no sample"
    for n in asked:
        found = [x for e in out[str(n)] for x in e.logprobs]
        assert len(found) == (0 if n is None else len(tokens[0]))
        assert all(len(x.top) == n for x in found)
    pairs = zip(out["1"], out["7"], strict=True)
    assert all(x.top == y.top[:1] for a, b in pairs for x, y in zip(a.logprobs, b.logprobs, strict=True))


@pytest.mark.parametrize("count", [-1, 101])
def test_a_count_out_of_range_is_refused(count):
    engine = TorchEngine(tiny_model(pipo=False, layers=1))
    with pytest.raises(BadInput, match=rf"logprobs {count} must lie in \[0, 100\]"):
        engine.submit(Request(id="a", prompt=(4,), max_tokens=1, logprobs=count))
    assert not engine.busy
