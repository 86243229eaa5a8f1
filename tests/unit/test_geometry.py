"""What a compressor does to pairs: closed forms of known compressors, autograd against finite differences, PADs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ablations import geometry_measures as measures
from ablations import geometry_space as spaces
from ablations.geometry import chances, choose
from ablations.geometry_pads import behaviour, slots, token_kind
from ablations.lossiness_walk import SECOND, pairs
from bench.record import SampleRecord
from bench.session import SampleSpec
from pipo.decode.oracle import generate
from pipo.engine.types import Draft, Method, Request, Sampling
from pipo.model.modules import Compressor
from pipo.model.testing import tiny_model

H, V, PAD = 6, 20, 0
PAIRS = [(3, 7), (5, 5), (11, 2), (3, 7), (19, 4)]


def table() -> torch.Tensor:
    return torch.randn(V, H, generator=torch.Generator().manual_seed(1))


def linear(first: float, second: float) -> Compressor:
    """first * a + second * b."""
    c = Compressor(H, "linear")
    with torch.no_grad():
        c.linear.weight.copy_(torch.cat([first * torch.eye(H), second * torch.eye(H)], 1))
        c.linear.bias.zero_()
    return c


def started(how: Any, kind: Any = "mlp") -> Compressor:
    torch.manual_seed(0)
    c = Compressor(H, kind)
    c.start(how)
    return c


def measured(c: Compressor) -> dict[str, list[float]]:
    return measures.measure(c, table(), PAD, PAIRS)


def ids() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    at, e = torch.tensor(PAIRS), table().double()
    return e[at[:, 0]], e[at[:, 1]], e[PAD].expand(len(PAIRS), -1)


@pytest.mark.parametrize(
    ("compressor", "ratio"),
    [(linear(0.5, 0.5), 0.5), (linear(1, 1), 1.0), (started("sum"), 1.0), (started("sum", "linear"), 1.0)],
)
def test_means_and_sums_have_their_closed_forms(compressor: Compressor, ratio: float) -> None:
    found, (a, b, p) = measured(compressor), ids()
    one = [1.0] * len(PAIRS)
    assert found["first_slot_jacobian_share"] == pytest.approx([0.5] * len(PAIRS))
    assert found["swap_cosine"] == pytest.approx(one) and found["cosine_to_sum"] == pytest.approx(one)
    assert found["norm_ratio_to_sum"] == pytest.approx([ratio] * len(PAIRS), rel=1e-6)
    assert found["raw_pair_cosine"] == pytest.approx(F.cosine_similarity(a, b).tolist())
    assert found["cosine_to_first"] == pytest.approx(F.cosine_similarity(a + b, a).tolist(), rel=1e-5)
    assert found["pad_second_cosine_to_survivor"] == pytest.approx(F.cosine_similarity(a + p, a).tolist(), rel=1e-5)
    assert found["pad_first_cosine_to_survivor"] == pytest.approx(F.cosine_similarity(b + p, b).tolist(), rel=1e-5)
    expected = (2 * p).norm(dim=1) / (a + b).norm(dim=1)
    assert found["pad_pad_norm"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_compressor_that_drops_the_second_token() -> None:
    found, (a, b, p) = measured(linear(2, 0)), ids()
    assert found["first_slot_jacobian_share"] == [1.0] * len(PAIRS)
    assert found["swap_cosine"] == pytest.approx(found["raw_pair_cosine"])
    assert found["cosine_to_first"] == found["pad_second_cosine_to_survivor"] == pytest.approx([1.0] * len(PAIRS))
    assert found["cosine_to_second"] == pytest.approx(F.cosine_similarity(a, b).tolist())
    assert found["pad_first_cosine_to_survivor"] == pytest.approx(F.cosine_similarity(p, b).tolist())
    assert found["pad_pad_norm"] == pytest.approx((p.norm(dim=1) / a.norm(dim=1)).tolist())


def test_unequal_shares_show_in_the_jacobian() -> None:
    assert measured(linear(3, 1))["first_slot_jacobian_share"] == pytest.approx([0.75] * len(PAIRS))


def test_the_reference_s_start_is_a_sum_of_silus() -> None:
    found, (a, b, _) = measured(started("identity")), ids()
    z = F.silu(a) + F.silu(b)
    assert found["swap_cosine"] == pytest.approx([1.0] * len(PAIRS))
    assert found["cosine_to_sum"] == pytest.approx(F.cosine_similarity(z, a + b).tolist())
    slopes = [v.sigmoid() * (1 + v * (1 - v.sigmoid())) for v in (a, b)]
    norms = [s.norm(dim=1) for s in slopes]
    assert found["first_slot_jacobian_share"] == pytest.approx((norms[0] / (norms[0] + norms[1])).tolist())


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_jacobians_by_autograd_equal_finite_differences(kind: Any) -> None:
    torch.manual_seed(3)
    c = Compressor(H, kind).double()
    a, b, _ = ids()
    step, norms = 1e-6, []
    for side in (0, 1):
        columns = []
        for i in range(H):
            move = torch.zeros(H, dtype=torch.float64)
            move[i] = step
            up, down = ((a + s * move, b) if side == 0 else (a, b + s * move) for s in (1, -1))
            with torch.no_grad():
                columns.append((measures.fold(c, *up) - measures.fold(c, *down)) / (2 * step))
        norms.append(torch.stack(columns, 2).flatten(1).norm(dim=1))
    found = measures.jacobian_norms(c, a, b)
    assert torch.allclose(found[0], norms[0], rtol=1e-6) and torch.allclose(found[1], norms[1], rtol=1e-6)


def test_jacobians_in_chunks_equal_jacobians_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    c, (a, b, _) = measures.exact(started("random")), ids()
    whole = measures.jacobian_norms(c, a, b)
    monkeypatch.setattr(measures, "MOST_NUMBERS", 2 * 2 * H * H)
    for x, y in zip(whole, measures.jacobian_norms(c, a, b), strict=True):
        assert torch.equal(x, y)


# The latent space


def test_two_points_a_kind_have_a_space_in_closed_form() -> None:
    real = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    pad = torch.tensor([[0.0, 4.0], [0.0, 2.0]]).double()
    found = spaces.looks(spaces.moments(real), spaces.moments(pad), spaces.moments(real))
    # variance along x: 2/4; along y: mean 1.5, (1.5^2 * 2 + 2.5^2 + 0.5^2) / 4 = 2.75; within: 1 and 1, a half each
    assert found["pad_spread_ratio"] == pytest.approx(1.0)
    assert found["pc1"] == pytest.approx(2.75 / 3.25) and found["pc2"] == pytest.approx(0.5 / 3.25)
    assert found["between_share"] == pytest.approx(1 - 1 / 3.25)
    assert found["dimensions"] == pytest.approx(3.25**2 / (2.75**2 + 0.5**2))
    assert found["sum_dimensions"] == pytest.approx(1.0)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = [1.0, 4.0, 2.0, 7.0]

    def without(i: int | None) -> dict[str, float]:
        kept = [v for j, v in enumerate(x) if j != i]
        return {"mean": sum(kept) / len(kept)}

    found = spaces.jackknife(len(x), without)["mean"]
    sd = math.sqrt(sum((v - 3.5) ** 2 for v in x) / 3)
    assert found["value"] == 3.5 and found["se"] == pytest.approx(sd / 2)


def test_principal_components_are_those_of_numpy() -> None:
    import numpy as np

    g = torch.Generator().manual_seed(5)
    real, pad = ([torch.randn(9, H, generator=g).double() + k for _ in range(3)] for k in (0, 2))
    _, shares, points = spaces.space(real, pad, real)
    cloud = torch.cat([*real, *pad]).numpy()
    values = np.linalg.svd(cloud - cloud.mean(0), compute_uv=False) ** 2
    assert shares == pytest.approx((values / values.sum()).tolist())
    assert np.var([p["x"] for p in points]) == pytest.approx(values[0] / len(cloud))
    assert {p["kind"] for p in points} == set(spaces.KINDS)


# PADs


def record(item: str, places: list[int], drafts: list[Draft]) -> SampleRecord:
    return SampleRecord(variant="v", task="t", item=item, sample=0, seed=0, places=places, pad_id=PAD, drafts=drafts)


def test_pads_of_a_hand_made_run() -> None:
    one = record("i", [3, 4, 5, PAD, 6, PAD, 7, 8, 9, PAD],
                 [Draft(4, True, 0.99), Draft(6, False, 0.5), Draft(9, False, 0.1), Draft(8, True, 0.96)])  # fmt: skip
    two = record("j", [3, PAD, 5, 2], [Draft(5, False, 0.3), Draft(2, True, 1.0)])
    found = behaviour([slots(one), slots(two)], lambda t: "number" if t < 6 else "letter")
    assert found["slots"] == 6 and found["pad_share"]["value"] == 0.5
    assert found["agreement"]["value"] == pytest.approx(2 / 3), "6 and 5 came next, 9 did not"
    assert [r["runs"] for r in found["runs"]] == [1, 1, 0, 0, 0, 0, 0, 0]
    assert found["run_length"]["value"] == 1.5
    assert found["pad_chance_after_pad"]["value"] == pytest.approx(1 / 3)
    assert found["pad_chance_after_kept"]["value"] == 1.0
    shares = {row["kind"]: (row["slots"], row["pad_share"]["value"]) for row in found["after"]}
    assert shares == {"number": (4, 0.5), "letter": (2, 0.5)}
    bins = {row["low"]: (row["kept"], row["rejected"]) for row in found["confidence"]}
    assert bins[0.0] == (0, 1) and bins[0.2] == (0, 1) and bins[0.4] == (0, 1) and bins[0.95] == (1, 0)
    assert bins[0.98] == (2, 0), "the last bin holds 1 itself"
    assert [s.part for s in slots(one)] == [0, 2, 4, 6] and found["agreement_expected"] is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [("7", "number"), (" 12", "number"), ("a", "letter"), (" so", "word"), ("=", "symbol"), ("\\boxed{", "mixed"),
     ("\n", "special")],
)  # fmt: skip
def test_kinds_of_tokens(text: str, kind: str) -> None:
    assert token_kind(text) == kind
    assert token_kind(text, special=True) == "special"


def test_the_chance_of_a_draft_is_what_the_walk_says_instead() -> None:
    model, method = tiny_model("hybrid", vocab=24), Method("pipo", threshold=0.5)
    model.confidence_head.fc2.weight.data *= 10
    sampling = Sampling(presence_penalty=0.7)
    request = Request(
        id="r", prompt=(5, 9, 4), method=method, sampling=sampling, seed=7, max_tokens=14, ignore_eos=True
    )
    sample = generate(model, request)
    r = SampleRecord(variant="v", task="t", item="i", sample=0, seed=7, places=sample.places, pad_id=0,
                     drafts=sample.drafts)  # fmt: skip
    assert {d.kept for d in sample.drafts} == {True, False}
    places = pairs(model, request.prompt, sample.tokens, method, sampling)
    offered = [x for x in places if x.source in SECOND]
    expected = [float(x.instead[d.id]) for x, d in zip(offered, sample.drafts, strict=True)]
    assert chances(model, request.prompt, r, SampleSpec(sampling=sampling)) == pytest.approx(expected, abs=1e-6)


def test_each_prompt_gives_as_many_pairs_as_any_other_where_it_can() -> None:
    def group(item: str, count: int) -> list[SampleRecord]:
        return [record(item, [3, 4] * count + [5, PAD], [])]

    found = {("t", name): group(name, n) for name, n in (("long", 50), ("short", 2), ("middle", 10), ("none", 0))}
    assert {key[1]: len(v) for key, v in choose(found, 24).items()} == {"long": 12, "short": 2, "middle": 10}
    assert sum(map(len, choose(found, 1000).values())) == 62
    assert {p for v in choose(found, 24).values() for p in v} == {(3, 4)}
