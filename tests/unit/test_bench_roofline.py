"""The count of bytes and operations against the known shapes of a 4B model, and against a real tiny one."""

import pytest

from bench.roofline import Shapes, prefill_flops, ratios, shapes_of, step_cost
from pipo.engine.types import Method

# Qwen3.5-4B: hidden 2560, 32 layers of which 8 full attention (16 heads, 4 kv heads, head 256, gated query) and 24
# GatedDeltaNet (16 key, 32 value heads of 128), MLP 9216, vocabulary 248,320, tied head, bf16.
H, V, MLP = 2560, 248_320, 3 * 2560 * 9216
FULL = H * 2 * 4096 + 2 * H * 1024 + 4096 * H + MLP
LINEAR = H * 8192 + H * 4096 + 2 * H * 32 + 4096 * H + MLP
FOUR_B = Shapes(
    layers=8 * FULL + 24 * LINEAR, head=H * V, mtp=FULL + 2 * H * H, mtp_fill=2 * H * H + 2 * H * 1024,
    compressor=4 * H * H + 2 * H * H, confidence=2 * H * H + H, full_layers=8, query_width=4096, kv_width=1024,
    state=24 * 32 * 128 * 128, bytes=2,
)  # fmt: skip
REGULAR, PIPO = Method("regular"), Method("pipo")


@pytest.mark.parametrize(
    ("method", "kept", "accepted", "expected"),
    [
        (PIPO, 1.0, 1.0, 1.69),
        (PIPO, 0.8, 1.0, 1.52),
        (PIPO, 0.335, 1.0, 1.12),
        (Method("mtp"), 1.0, 1.0, 1.70),
        (Method("eagle", depth=3), 1.0, 3.0, 1.96),
        (Method("eagle", depth=3), 1.0, 2.4, 1.57),
    ],
)
def test_bytes_a_token_at_2k_and_batch_1(method: Method, kept: float, accepted: float, expected: float) -> None:
    found = ratios(FOUR_B, REGULAR, FOUR_B, method, 2048, kept=kept, accepted=accepted)
    assert found["tpot_bytes_ratio"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("tokens", "expected"), [(2048, 1.99), (32768, 2.23), (131072, 2.72)])
def test_operations_of_a_prefill(tokens: int, expected: float) -> None:
    found = prefill_flops(FOUR_B, REGULAR, tokens) / prefill_flops(FOUR_B, PIPO, tokens)
    assert found == pytest.approx(expected, rel=0.02)


def test_a_rejected_draft_costs_as_much_and_gives_less() -> None:
    all_kept, none = (step_cost(FOUR_B, PIPO, 2048, kept=k) for k in (1.0, 0.0))
    assert all_kept.bytes == none.bytes and all_kept.tokens == 2 * none.tokens


@pytest.mark.parametrize("kind", ["hybrid", "dense"])
def test_shapes_of_a_model_count_its_parameters(kind: str) -> None:
    from pipo.model.testing import tiny_model

    model = tiny_model(kind)  # type: ignore[arg-type]
    found = shapes_of(model)
    counted = found.layers + found.head + found.mtp + found.compressor + found.confidence
    assert counted == sum(p.numel() for p in model.parameters()), "head and embedding are tied, so counted once"
    assert found.full_layers == (1 if kind == "hybrid" else 4)
    assert (found.state > 0) == (kind == "hybrid")
    assert shapes_of(tiny_model(kind, pipo=False)).compressor == 0  # type: ignore[arg-type]
