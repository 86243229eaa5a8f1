"""The floor against published shapes and worked figures, and its counts against real tiny models."""

import pytest

from bench.footprint import memory_bytes, places_of, row_bytes, rows_that_fit, weight_bytes
from bench.machine import MACHINES, Machine
from bench.roofline import (
    Shapes,
    floor_prefill,
    floor_step,
    prefill_cost,
    ratios,
    shapes_of,
    shapes_of_config,
    step_cost,
)
from bench.shapes import shape_config
from pipo.engine.types import Method
from pipo.errors import BadInput

IDEAL = MACHINES["h100-ideal"]
REGULAR, MTP, EAGLE, PIPO = Method("regular"), Method("mtp"), Method("eagle", depth=3), Method("pipo")
# Tokens a second over regular decoding, generated context. PIPO at kept 1, 0.8, 0.335; unverified MTP.
DECODE = {
    (2048, 1): (1.69, 1.52, 1.12, 1.70),
    (2048, 128): (2.15, 1.90, 1.32, 1.84),
    (32768, 32): (2.82, 2.38, 1.45, 1.78),
    (131072, 8): (2.89, 2.43, 1.46, 1.76),
}
# eagle at 3.0 and 2.4 tokens a step: states read once and written once, and read twice (replay).
CHAIN = {
    (2048, 1): (1.96, 1.57, 1.95, 1.56),
    (2048, 128): (2.38, 1.91, 2.03, 1.63),
    (32768, 32): (2.18, 1.74, 2.12, 1.70),
    (131072, 8): (2.14, 1.71, 2.13, 1.70),
}
PREFILL = {
    "qwen3.5-4b": {2048: 1.99, 32768: 2.23, 131072: 2.72, 524288: 3.40},
    "qwen3.5-9b": {2048: 1.97, 32768: 2.10, 131072: 2.44, 524288: 3.08},
}


@pytest.fixture(scope="module")
def big() -> dict[str, Shapes]:
    return {name: shapes_of_config(shape_config(name)) for name in PREFILL}


def rate(s: Shapes, method: Method, cell: tuple[int, int], **more: float) -> float:
    context, rows = cell
    return floor_step(IDEAL, s, method, context, rows=rows, **more).tokens_s  # type: ignore[arg-type]


def test_shapes_of_4b_are_those_counted_by_hand(big: dict[str, Shapes]) -> None:
    h, mlp = 2560, 3 * 2560 * 9216
    full = h * 2 * 4096 + 2 * h * 1024 + 4096 * h + mlp
    linear = h * 8192 + h * 4096 + 2 * h * 32 + 4096 * h + mlp
    found = big["qwen3.5-4b"]
    assert found.layers == pytest.approx(8 * full + 24 * linear, rel=1e-3), "matrices; norms and filters are the rest"
    assert found.mtp == pytest.approx(full + 2 * h * h, rel=1e-3)
    assert found.head == h * 248_320 and found.embed == 0 and big["qwen3.5-9b"].embed == 4096 * 248_320
    assert found.state == 24 * 32 * 128 * 128 and found.conv == 24 * 8192 * 3
    assert (found.confidence, found.compressor) == (2 * h * h + h + 2 * h, 6 * h * h + 3 * h)


@pytest.mark.parametrize("cell", DECODE)
def test_tokens_a_second_over_regular_on_an_ideal_gpu(big: dict[str, Shapes], cell: tuple[int, int]) -> None:
    s = big["qwen3.5-4b"]
    base = rate(s, REGULAR, cell)
    found = [rate(s, PIPO, cell, kept=k) / base for k in (1.0, 0.8, 0.335)] + [rate(s, MTP, cell) / base]
    assert found == pytest.approx(DECODE[cell], abs=0.05)


@pytest.mark.parametrize("cell", CHAIN)
def test_a_chain_of_drafts_on_an_ideal_gpu_pays_for_the_states_it_reads_again(
    big: dict[str, Shapes], cell: tuple[int, int]
) -> None:
    s = big["qwen3.5-4b"]
    base = rate(s, REGULAR, cell)
    found = [rate(s, EAGLE, cell, accepted=a, replay=r) / base for r in (False, True) for a in (3.0, 2.4)]
    assert found == pytest.approx(CHAIN[cell], abs=0.01)


@pytest.mark.parametrize(("name", "tokens"), [(name, n) for name, row in PREFILL.items() for n in row])
def test_first_token_over_regular_on_an_ideal_gpu(big: dict[str, Shapes], name: str, tokens: int) -> None:
    one, two = (floor_prefill(IDEAL, big[name], m, tokens).seconds for m in (REGULAR, PIPO))
    assert one / two == pytest.approx(PREFILL[name][tokens], abs=0.03)


def test_a_draft_head_over_32k_tokens_lifts_pairs_at_batch_1(big: dict[str, Shapes]) -> None:
    s, cell = big["qwen3.5-4b"], (2048, 1)
    lifted = rate(s, PIPO, cell, kept=1.0, draft_vocab=32_768) / rate(s, REGULAR, cell)
    assert lifted == pytest.approx(1.89, abs=0.01)
    with pytest.raises(BadInput, match=r"draft_vocab 300000 must lie in \[1, 248320\]"):
        step_cost(s, PIPO, 2048, draft_vocab=300_000)


def test_each_pass_takes_the_longer_of_bytes_and_operations() -> None:
    s = shapes_of_config(shape_config("158m"))
    slow_sums = Machine(name="a", bandwidth=1e15, matmul_rate=1e9, attention_rate=1e9)
    slow_reads = Machine(name="b", bandwidth=1e9, matmul_rate=1e15, attention_rate=1e15)
    cost = step_cost(s, PIPO, 1000, rows=4)
    assert len(cost.passes) == 2
    assert cost.seconds(slow_sums) == pytest.approx(cost.flops / 1e9)
    assert cost.seconds(slow_reads) == pytest.approx(cost.bytes / 1e9)
    one, two = cost.passes
    m = Machine(name="c", bandwidth=1.0, matmul_rate=one.matmul_flops / one.bytes / 2, attention_rate=1e30)
    assert cost.seconds(m) == pytest.approx(2 * one.bytes + max(two.bytes, two.matmul_flops / m.matmul_rate))


def test_attention_has_a_rate_of_its_own_and_calls_come_on_top() -> None:
    s = shapes_of_config(shape_config("158m"))
    fast = Machine(name="a", bandwidth=1e15, matmul_rate=1e12, attention_rate=1e12, call_s=1e-5)
    slow = Machine(name="b", bandwidth=1e15, matmul_rate=1e12, attention_rate=1e11, call_s=1e-5)
    attention = prefill_cost(s, REGULAR, 8192).passes[0].attention_flops
    gap = floor_prefill(slow, s, REGULAR, 8192).seconds - floor_prefill(fast, s, REGULAR, 8192).seconds
    assert gap == pytest.approx(attention * (1e-11 - 1e-12))
    more = floor_step(fast, s, REGULAR, 64, calls=100).seconds - floor_step(fast, s, REGULAR, 64).seconds
    assert more == pytest.approx(1e-3)


def test_weights_are_read_once_and_rows_bring_caches_and_operations() -> None:
    s = shapes_of_config(shape_config("158m"))
    one, eight = (step_cost(s, REGULAR, 1000, rows=n) for n in (1, 8))
    cache = s.bytes * s.full_layers * 2 * s.kv_width * 1000 + 2 * 4 * s.state
    assert eight.bytes - one.bytes == 7 * cache
    assert eight.flops == 8 * one.flops and eight.tokens == 8


def test_places_of_pairs_depend_on_what_was_kept_and_prompts_are_dense() -> None:
    assert places_of(REGULAR, 900, kept=0.5) == 900
    assert places_of(PIPO, 900, kept=0.5) == 600
    assert places_of(PIPO, 900, kept=0.5, prompt=600) == 500
    assert places_of(PIPO, 900, kept=0.5, prompt=5000) == 450


def test_a_rejected_draft_costs_as_much_and_gives_less() -> None:
    s = shapes_of_config(shape_config("lab"))
    all_kept, none = (step_cost(s, PIPO, 2048, kept=k, prompt=2048) for k in (1.0, 0.0))
    assert all_kept.bytes == none.bytes and all_kept.tokens == 2 * none.tokens


def test_tokens_a_step_of_a_chain_are_checked() -> None:
    s = shapes_of_config(shape_config("lab"))
    for accepted in (0.5, 4.5, float("nan")):
        with pytest.raises(BadInput, match=r"must lie in \[1, 4\]"):
            step_cost(s, EAGLE, 64, accepted=accepted)
    assert set(ratios(s, REGULAR, s, EAGLE, 64, kept=0.0, accepted=0.5)) == {
        "tpot_bytes_ratio", "tpot_flops_ratio", "ttft_flops_ratio",
    }  # fmt: skip


def test_memory_is_weights_caches_and_float32_states(big: dict[str, Shapes]) -> None:
    s = big["qwen3.5-4b"]
    place = 2 * 2 * 1024  # keys and values of a place in one layer, bf16
    assert row_bytes(s, REGULAR, 1000) == 8 * place * 1000 + 4 * s.state + 2 * s.conv
    assert row_bytes(s, PIPO, 1000, prompt=1000) == 9 * place * 500 + 4 * s.state + 2 * s.conv
    assert memory_bytes(s, PIPO, 3, 1000) == weight_bytes(s, PIPO) + 3 * row_bytes(s, PIPO, 1000)
    assert weight_bytes(s, REGULAR) == 2 * (s.layers + s.head)
    assert weight_bytes(s, EAGLE, draft_vocab=1000) - weight_bytes(s, EAGLE) == 2 * 1000 * 2560


def test_about_twice_the_rows_of_a_long_prompt_fit(big: dict[str, Shapes]) -> None:
    s = big["qwen3.5-4b"]
    regular, pipo = (rows_that_fit(s, m, 131072, IDEAL.memory, prompt=131072) for m in (REGULAR, PIPO))
    assert memory_bytes(s, REGULAR, regular, 131072) <= IDEAL.memory < memory_bytes(s, REGULAR, regular + 1, 131072)
    assert 1.6 < pipo / regular < 2.0, f"{pipo} rows against {regular}: the draft layer's cache takes a ninth"
    assert rows_that_fit(s, REGULAR, 1000, memory=1e9) == 0


@pytest.mark.parametrize("kind", ["hybrid", "dense", "llama", "qwen2"])
def test_shapes_of_a_model_count_its_parameters(kind: str) -> None:
    from pipo.model.testing import tiny_model

    model = tiny_model(kind)  # type: ignore[arg-type]
    found = shapes_of(model)
    counted = found.layers + found.head + found.mtp + found.compressor + found.confidence + found.embed
    assert counted == sum(p.numel() for p in model.parameters()), "head and embedding are tied, so counted once"
    assert found.full_layers == (1 if kind == "hybrid" else 4)
    assert (found.state > 0) == (kind == "hybrid")
    assert shapes_of(tiny_model(kind, pipo=False)).compressor == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["hybrid", "dense", "llama", "qwen2"])
def test_a_config_and_its_model_have_the_same_shapes(kind: str) -> None:
    from pipo.model.testing import tiny_model

    model = tiny_model(kind)  # type: ignore[arg-type]
    assert shapes_of_config(model.config, dtype=model.lm_head.weight.dtype) == shapes_of(model)
