"""What CUDA graphs need of a step, seen without a GPU: static tensors change nothing, nothing waits for the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipo.decode.sampling import greedy
from pipo.engine import TorchEngine
from pipo.engine.graphs import padded_length, padded_rows
from pipo.engine.types import Sampling
from pipo.model.testing import KINDS, tiny_model
from tests.unit.test_engine_plan import SAMPLINGS, alone, each, request, tokens


@pytest.fixture(scope="module")
def models():
    return {pairs: tiny_model("hybrid", pipo=pairs) for pairs in (False, True)}


@each()
def test_steps_through_static_tensors_equal_plain_ones(models, method):
    rs = [
        request(f"r{i}", 3 + 5 * i, method, sampling=SAMPLINGS[i % 3], max_slots=4 + 3 * i) for i in range(5)
    ]  # fmt: skip
    model = models[method.pairs]
    want = {r.id: alone(model, r) for r in rs}
    engine = TorchEngine(model, max_batch=8, graphs=True)
    assert engine._graphs is not None and not engine._graphs.record
    assert {i: tokens(e) for i, e in engine.generate(rs).items()} == want
    assert 1 <= len(engine._graphs.kept) <= 8


def test_static_shapes_are_few():
    assert [padded_rows(n, 100) for n in (1, 2, 3, 5, 64)] == [1, 2, 4, 8, 64]
    assert padded_rows(5, 2) == 5, "no free rows to pad with"
    lengths = [padded_length(n, 1 << 17) for n in range(1, 1 << 17, 97)]
    assert len(set(lengths)) < 45 and lengths == sorted(lengths)
    assert all(n <= padded_length(n, 1 << 17) < n + max(256, n / 4 + 1) for n in range(1, 1 << 17, 97))
    assert padded_length(900, 1000) == 1000


class NoHost(TorchDispatchMode):
    """Fails where an operator would wait for the device, or fetch a tensor from the host: no graph records that."""

    WAITS = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "item", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, f"{name} within a step"
        if name.startswith("index") and isinstance(args[1], list | tuple):
            picks = [t for t in args[1] if isinstance(t, torch.Tensor)]
            assert all(t.dtype != torch.bool for t in picks), f"{name} by a mask within a step"
        return func(*args, **(kwargs or {}))


@each()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("small_head", [False, True])
def test_a_step_asks_nothing_of_the_host(method, kind, small_head):
    """What a CUDA graph needs, seen without a GPU."""
    model = tiny_model(kind, pipo=method.pairs)
    if small_head:
        model.set_draft_vocab(torch.arange(1, 40))
    samplings = [Sampling(), Sampling(temperature=0.0), Sampling(0.7, 5, 0.9, 1.0, 0.5, 0.1)]
    for mix in (samplings, samplings[:1], samplings[1:2]):
        engine = TorchEngine(model, max_batch=4)
        for i, sampling in enumerate(mix):
            engine.submit(request(f"r{i}", 4 + i, method, sampling=sampling))
        engine.step()
        (batch,) = engine._rows.batches.values()
        frame = batch.frame()
        with torch.inference_mode(), NoHost():
            batch.decoder.step(frame)


@pytest.mark.parametrize("look", [lambda t: t.sum().item(), lambda t: t[t > 0], lambda t: t + torch.tensor([1.0])])
def test_the_watch_sees_a_look_at_the_host(look):
    with torch.inference_mode(), NoHost():
        greedy(torch.ones(2, 3))
        with pytest.raises(AssertionError, match="within a step"):
            look(torch.ones(3))
