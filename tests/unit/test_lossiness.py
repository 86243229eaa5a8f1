"""Distances to regular decoding: the walk over a text equals the oracle's, distances have their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablations import lossiness_walk as walk
from ablations.lossiness_distances import distances, kl, total_variation
from ablations.lossiness_walk import AFTER_PAD, DRAFT, FIRST, MIXED, VERIFIED
from pipo.decode.oracle import Sample, generate
from pipo.engine.types import Method, Request, Sampling
from pipo.model.testing import tiny_model
from tests.unit.test_decode_lossless import drafting_model

VOCAB, LENGTH = 24, 13
PLAIN = Sampling()
KINDS = ("hybrid", "dense", "llama")


def prompt(length: int) -> tuple[int, ...]:
    return tuple(3 + (5 * i + 2) % (VOCAB - 3) for i in range(length))


def told(model, method: Method, length: int, sampling: Sampling = PLAIN, seed: int = 7) -> Sample:
    """What the oracle generates, with log-probabilities of every token."""
    request = Request(id="r", prompt=prompt(length), method=method, sampling=sampling, seed=seed, max_tokens=LENGTH,
                      ignore_eos=True, logprobs=0)  # fmt: skip
    return generate(model, request)


def chances(places: list[walk.Place], text: list[int]) -> list[float]:
    return [math.log(float(x.p[t])) for x, t in zip(places, text, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [4, 5])
@pytest.mark.parametrize("threshold", [0.0, None, 1.0])
def test_a_pipo_text_is_read_as_it_was_written(kind: str, length: int, threshold: float | None) -> None:
    model = tiny_model(kind, vocab=VOCAB)
    model.confidence_head.fc2.weight.data *= 10  # confidences on both sides of one half
    if threshold is None:  # one that decides
        known = sorted(d.confidence for d in told(model, Method("pipo", threshold=0.0), length).drafts)
        threshold = sum(known[len(known) // 2 - 1 : len(known) // 2 + 1]) / 2
    method = Method("pipo", threshold=threshold)
    sample = told(model, method, length)
    places = walk.pairs(model, prompt(length), sample.tokens, method, Sampling())
    assert chances(places, sample.tokens) == pytest.approx([x.logprob for x in sample.logprobs], abs=2e-4)
    offered = [x for x in places if x.source in walk.SECOND]
    assert [x.source == DRAFT for x in offered] == [d.kept for d in sample.drafts]
    assert [x.confidence for x in offered] == pytest.approx([d.confidence for d in sample.drafts], abs=1e-4)
    chances_of_drafts = [math.log(float(x.draft[d.id])) for x, d in zip(offered, sample.drafts, strict=True)]
    assert chances_of_drafts == pytest.approx([d.logprob for d in sample.drafts], abs=2e-4)
    if 0 < threshold < 1:
        assert {DRAFT, AFTER_PAD} <= {x.source for x in places}, "the test needs kept and rejected drafts"


def test_drafts_of_a_small_vocabulary_are_infinitely_far_where_they_lack_tokens() -> None:
    model = tiny_model("dense", vocab=VOCAB)
    model.set_draft_vocab(torch.tensor([2, 4, 5, 9, 11]))
    sample = told(model, Method("pipo", threshold=0.0), 4)
    places = walk.pairs(model, prompt(4), sample.tokens, Method("pipo", threshold=0.0), PLAIN)
    assert chances(places, sample.tokens) == pytest.approx([x.logprob for x in sample.logprobs], abs=2e-4)
    found = distances(places, [x.p if x.instead is None else x.instead for x in places])
    kept = [i for i, s in enumerate(found["sources"]) if s == DRAFT]
    assert kept and all(found["kl_reference"][i] is None for i in kept)
    assert all(found["kl_method"][i] > 0 for i in kept) and all(0 < found["tv"][i] < 1 for i in kept)


def test_a_coin_s_text_is_read_with_the_coins_of_its_seed() -> None:
    model, method = tiny_model("hybrid", vocab=VOCAB), Method("random", keep_rate=0.4)
    sample = told(model, method, 5, seed=3)
    places = walk.pairs(model, prompt(5), sample.tokens, method, Sampling(), seed=3)
    offered = [x for x in places if x.source == MIXED]
    assert len(offered) == len(sample.drafts) and 0 < sum(d.kept for d in sample.drafts) < len(sample.drafts)
    for x in offered:
        assert torch.allclose(x.p, 0.4 * x.draft + 0.6 * x.instead)
    at = -1
    for x, t, known in zip(places, sample.tokens, sample.logprobs, strict=True):
        one = x.p
        if x.source == MIXED:
            at += 1
            one = x.draft if sample.drafts[at].kept else x.instead
        assert math.log(float(one[t])) == pytest.approx(known.logprob, abs=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 4, 5])
def test_regular_mtp_and_eagle_texts_are_read_as_they_were_written(kind: str, length: int) -> None:
    model = drafting_model(kind, VOCAB)
    for name in ("regular", "mtp", "eagle"):
        method = Method(name, depth=3)
        sample = told(model, method, length)
        plain = walk.read_plain(model, prompt(length), sample.tokens)
        draw = walk.Drawing(Sampling(), sample.tokens, VOCAB)
        if name == "regular":
            places = [walk.Place(FIRST, p) for p in walk.regular(plain, draw)]
        else:
            places = walk.mtp(model, plain, draw) if name == "mtp" else walk.eagle(model, plain, draw, 3)
        known = [x.logprob for x in sample.logprobs]
        assert chances(places, sample.tokens) == pytest.approx(known, abs=2e-4), name


@pytest.mark.parametrize("sampling", [
    Sampling(), Sampling(top_p=0.8), Sampling(temperature=0.7, top_k=5, presence_penalty=0.8),
])  # fmt: skip
@pytest.mark.parametrize("depth", [1, 3])
def test_verified_drafts_lose_nothing_under_any_setting(sampling: Sampling, depth: int) -> None:
    model = drafting_model("hybrid", VOCAB)
    text = told(model, Method("regular"), 4).tokens
    plain, draw = walk.read_plain(model, prompt(4), text), walk.Drawing(sampling, text, VOCAB)
    reference = walk.regular(plain, draw)
    found = distances(walk.eagle(model, plain, draw, depth), reference)
    assert found["sources"].count(VERIFIED) >= LENGTH // 2 and max(found["tv"]) < 1e-5
    accepted = [a for a, s in zip(found["accept_reference"], found["sources"], strict=True) if s == VERIFIED]
    assert 0.05 < sum(accepted) / len(accepted) < 0.95, "the test needs drafts that are no copy of the model"


def test_a_chain_drafts_what_the_oracle_s_chain_drafts() -> None:
    """Depth beyond one: the MTP head reads its own output; an oracle that accepts everything has the same drafts."""
    model = drafting_model("dense", VOCAB)
    sample = told(model, Method("eagle", depth=3), 4, Sampling(temperature=0.0))
    whole = [*prompt(4), *sample.tokens]
    plain = walk.read_plain(model, prompt(4), sample.tokens)
    h = model.run_backbone(model.embed(torch.tensor([whole[:5]])))[:, :-1]
    d = model.mtp(model.embed(torch.tensor([whole[1:5]])), h)[:, -1:]
    h = torch.cat([h, d], 1)
    second = model.lm_head(model.mtp(model.embed(torch.tensor([whole[1:6]])), h)[0, -1])
    draws = walk.Drawing(Sampling(), sample.tokens, VOCAB)
    places = walk.eagle(model, plain, draws, 3)
    second[0] = -torch.inf
    assert torch.allclose(places[2].draft, second.double().softmax(-1), atol=1e-5)


def test_distances_have_their_closed_forms() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.5, 0.5], [0.2, 0.3, 0.5]], dtype=torch.float64)
    assert total_variation(p, q).tolist() == pytest.approx([0.25, 1.0, 0.0])
    assert kl(p, q).tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.inf, 0.0])


weights = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda x: sum(x) > 0.1)


@given(weights, weights)
def test_min_and_residual_give_back_the_target(a: list[float], b: list[float]) -> None:
    p, q = (torch.tensor(x) / sum(x) for x in (a, b))
    assert float(total_variation(walk.effective(p, q), p)) < 1e-6


def test_a_twin_is_at_no_distance_from_itself_and_infinities_have_no_number() -> None:
    one = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    two = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    found = distances([walk.Place(AFTER_PAD, one, two, one, 0.25)], [two], [one])
    assert (found["tv"], found["twin_tv"], found["draft_tv"], found["accept"]) == ([0.5], [0.0], [0.5], [0.5])
    assert found["kl_reference"] == [None] and found["kl_method"] == pytest.approx([math.log(2)])
    assert found["confidence"] == [0.25] and found["accept_reference"] == [1.0]
