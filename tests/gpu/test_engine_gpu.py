"""The engine on a CUDA device: equal to the CPU, graphs equal to plain steps, kernels to what they stand in for."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.model.testing import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False"),
]
METHODS = [
    Method("regular"), Method("mtp"), Method("eagle", depth=3), Method("pipo", threshold=0.5),
    Method("random", keep_rate=0.5),
]  # fmt: skip
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def needs(package: str):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed (extra `gpu`)")


def requests(method: Method, sampling: Sampling, count: int = 6) -> list[Request]:
    g = torch.Generator().manual_seed(0)
    return [
        Request(
            id=str(i), prompt=tuple(torch.randint(3, 64, (3 + 11 * i,), generator=g).tolist()), method=method, seed=i,
            sampling=sampling, max_slots=8 + i, ignore_eos=True,
        )
        for i in range(count)
    ]  # fmt: skip


def run(model, rs: list[Request], **options) -> dict[str, list[int]]:
    out = TorchEngine(model, max_batch=8, chunk=16, **options).generate(rs)
    return {i: [p for e in events for p in e.places] for i, events in out.items()}


@each
def test_the_device_gives_what_the_cpu_gives(method):
    rs = requests(method, Sampling(temperature=0.0))
    want = run(tiny_model("hybrid", pipo=method.pairs), rs)
    torch.backends.cuda.matmul.allow_tf32 = False
    assert run(tiny_model("hybrid", pipo=method.pairs).cuda(), rs, graphs=False) == want


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_recorded_steps_equal_plain_ones(method, dtype):
    model = tiny_model("hybrid", pipo=method.pairs).to(device="cuda", dtype=dtype)
    rs = requests(method, Sampling(top_k=20, top_p=0.95, presence_penalty=0.5))
    engine = TorchEngine(model, max_batch=8, chunk=16)
    assert engine._graphs is not None and engine._graphs.record
    out = {i: [p for e in events for p in e.places] for i, events in engine.generate(rs).items()}
    same = sum(out[i] == places for i, places in run(model, rs, graphs=False).items())
    assert same >= len(rs) - (dtype == torch.bfloat16), f"{same} of {len(rs)} requests alike"
    assert all(r.graph is not None for r in engine._graphs.kept.values())


@each
def test_bfloat16_runs_every_method(method):
    model = tiny_model("hybrid", pipo=method.pairs).to(device="cuda", dtype=torch.bfloat16)
    for i, places in run(model, requests(method, Sampling())).items():
        assert len(places) == (8 + int(i)) * (2 if method.pairs else 1)


def test_memory_stays_within_the_plan():
    model = tiny_model("hybrid", pipo=False).cuda()
    engine = TorchEngine(model, max_batch=8, context=400)
    engine.generate(requests(Method("regular"), Sampling()))
    before = torch.cuda.memory_allocated()
    engine.generate(requests(Method("regular"), Sampling()))
    assert torch.cuda.memory_allocated() <= before


@needs("flash_attn")
def test_flash_attention_equals_the_masked_one():
    from pipo.engine.attention import flash

    n, S, heads, kv_heads, D, P = 3, 4, 8, 2, 64, 128
    q = torch.randn(n, S, heads, D, device="cuda", dtype=torch.bfloat16) * D**-0.5
    k, v = (torch.randn(n, P, kv_heads, D, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ends = torch.tensor([20, 77, 128], device="cuda")
    kernel = flash(q.device, q.dtype)
    got = kernel(q, k, v, cache_seqlens=ends.int(), softmax_scale=1.0, causal=True)
    places = torch.arange(P, device="cuda")
    for i, end in enumerate(ends.tolist()):
        seen = places[None] <= end - S + torch.arange(S, device="cuda")[:, None]
        args = (t[i].transpose(0, 1)[None].float() for t in (q, k, v))
        want = F.scaled_dot_product_attention(*args, attn_mask=seen, scale=1.0, enable_gqa=True)
        assert (got[i].transpose(0, 1).float() - want[0]).abs().max() < 2e-2


@needs("fla")
def test_the_delta_rules_kernel_equals_the_plain_one():
    from pipo.engine import delta

    n, T, heads, D = 2, 130, 4, 64
    qk = F.normalize(torch.randn(n, T, heads, 2, D, device="cuda"), dim=-1)
    v, rec = torch.randn(n, T, heads, D, device="cuda"), torch.randn(n, heads, D, D, device="cuda")
    g, beta = -torch.rand(n, T, heads, device="cuda"), torch.rand(n, T, heads, device="cuda")
    assert delta.kernel(v.device) is not None
    want, state = delta.many(rec, qk, v, g, beta)
    got, after = delta.over_prompt(rec, qk, v, g, beta, torch.bfloat16)
    assert (got - want).abs().max() < 2e-2 and (after - state).abs().max() < 2e-2
