"""The engine equals the slow twin, method by method: tokens, places, slots, every draft and why it ended."""

import pytest
import torch

from pipo.decode import oracle
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.model.testing import KINDS, tiny_model

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
    Sampling(temperature=0.0, presence_penalty=0.5),
    Sampling(temperature=0.8, top_k=10, top_p=0.9, presence_penalty=1.5),
    Sampling(temperature=1.2, min_p=0.05, frequency_penalty=0.6),
]
FEW = [2, 3, 5, 8, 13, 21, 34, 55]


def gather(events) -> oracle.Sample:
    """An event list as one sample."""
    out = oracle.Sample()
    for e in events:
        out.tokens += e.tokens
        out.places += e.places
        out.slots += e.slots
        out.drafts += e.drafts
        out.finish = e.finish
    return out


def same(ours: oracle.Sample, slow: oracle.Sample) -> None:
    assert (ours.tokens, ours.places, ours.slots, ours.finish) == (slow.tokens, slow.places, slow.slots, slow.finish)
    assert [(d.id, d.kept) for d in ours.drafts] == [(d.id, d.kept) for d in slow.drafts]
    for a, b in zip(ours.drafts, slow.drafts, strict=True):
        assert (a.confidence is None) == (b.confidence is None)
        assert a.confidence is None or abs(a.confidence - b.confidence) < 1e-5


def requests(method: Method) -> list[Request]:
    return [
        Request(
            id=f"{i}", prompt=tuple(range(3, 5 + 3 * i)), method=method, sampling=s, seed=i, max_slots=17, max_tokens=24
        )
        for i, s in enumerate(SAMPLINGS)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}{m.depth}")
def test_engine_equals_oracle_alone_and_in_a_ragged_batch(kind, method):
    model = tiny_model(kind, pipo=method.pairs)
    engine = TorchEngine(model)
    together = engine.generate(requests(method))
    for r in requests(method):
        slow = oracle.generate(model, r)
        same(gather(together[r.id]), slow)
        same(gather(engine.generate([r])[r.id]), slow)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS[1:], ids=lambda m: f"{m.name}{m.depth}")
def test_engine_equals_oracle_with_a_draft_vocabulary(kind, method):
    model = tiny_model(kind, pipo=method.pairs)
    model.set_draft_vocab(torch.tensor(FEW))
    together = TorchEngine(model).generate(requests(method))
    for r in requests(method):
        ours = gather(together[r.id])
        same(ours, oracle.generate(model, r))
        assert ours.drafts and {d.id for d in ours.drafts} <= set(FEW), "no draft from outside"


def test_an_engine_that_reloads_takes_a_new_draft_vocabulary():
    model, method = tiny_model(pipo=True), Method("pipo", threshold=0.0)
    engine = TorchEngine(model)
    model.set_draft_vocab(torch.tensor(FEW))
    engine.reload()
    for r in requests(method):
        same(gather(engine.generate([r])[r.id]), oracle.generate(model, r))
    model.set_draft_vocab(None)
    engine.reload()
    drafts = [d.id for r in requests(method) for d in gather(engine.generate([r])[r.id]).drafts]
    assert not set(drafts) <= set(FEW)
