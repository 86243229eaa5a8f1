"""The computed distributions are those that the engine samples from: chi-square over the first tokens, fixed seeds.

The exact probability of each beginning is a product of the distributions that the walk gives along it.
"""

from __future__ import annotations

import itertools

import pytest

from ablations import lossiness_walk as walk
from pipo.engine.types import Method, Sampling
from pipo.model.testing import tiny_model
from tests.unit.test_decode_lossless import PROMPT, SAMPLINGS, VOCAB, chi_square, drafting_model, limit, sampled

pytestmark = pytest.mark.slow

DRAWS = 6_000
TOKENS = range(1, VOCAB)


def joint(read, length: int) -> dict[tuple, float]:
    """Probability of each sequence of ``length`` tokens; ``read(text)`` gives the distribution at each place."""
    out: dict[tuple, float] = {}
    for head in itertools.product(TOKENS, repeat=length - 1):
        places = read([*head, 1])
        chance = 1.0
        for p, t in zip(places, head, strict=False):
            chance *= float(p[t])
        out.update({(*head, t): chance * float(places[-1][t]) for t in TOKENS if chance * float(places[-1][t]) > 0})
    assert sum(out.values()) == pytest.approx(1, abs=1e-6)
    return out


def pipo(std: float = 0.15):
    model = tiny_model("hybrid", vocab=VOCAB, std=std)
    model.confidence_head.fc2.weight.data *= 30
    return model


def check(model, method: Method, read, length: int, sampling: Sampling) -> float:
    counts, kept = sampled(model, PROMPT, method, sampling, DRAWS, length)
    chi2, df = chi_square(counts, joint(read, length))
    assert df > 5 and chi2 < limit(df), f"{method}: chi-square {chi2:.1f}, {df} degrees of freedom, {limit(df):.1f}"
    return kept


@pytest.mark.parametrize("name", ["plain", "top-p", "presence"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_pipo(name: str, threshold: float) -> None:
    model, method, sampling = pipo(), Method("pipo", threshold=threshold), SAMPLINGS[name]

    def read(text):
        return [x.p for x in walk.pairs(model, PROMPT, text, method, sampling)]

    kept = check(model, method, read, 3, sampling)
    assert 0 < kept < 1 if threshold == 0.5 else kept == 1 - threshold, "the gate of the test must decide"


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_random_at_the_first_place_that_a_draft_is_offered_for(rate: float) -> None:
    """Later ones depend on coins that the text does not tell."""
    model, method = pipo(), Method("random", keep_rate=rate)

    def read(text):
        return [x.p for x in walk.pairs(model, PROMPT, text, method, Sampling())]

    kept = check(model, method, read, 2, Sampling())
    assert abs(kept - rate) < 0.03


@pytest.mark.parametrize("name", ["plain", "all"])
def test_mtp(name: str) -> None:
    model, sampling = drafting_model("hybrid", VOCAB), SAMPLINGS[name]

    def read(text):
        draw = walk.Drawing(sampling, text, VOCAB)
        return [x.p for x in walk.mtp(model, walk.read_plain(model, PROMPT, text), draw)]

    check(model, Method("mtp"), read, 4, sampling)


@pytest.mark.parametrize("name", ["plain", "all"])
def test_eagle(name: str) -> None:
    model, sampling = drafting_model("hybrid", VOCAB), SAMPLINGS[name]

    def read(text):
        draw = walk.Drawing(sampling, text, VOCAB)
        return [x.p for x in walk.eagle(model, walk.read_plain(model, PROMPT, text), draw, 2)]

    kept = check(model, Method("eagle", depth=2), read, 4, sampling)
    assert 0.05 < kept < 0.95


def test_the_chi_square_sees_a_draft_taken_for_what_follows_a_pad() -> None:
    """Its power: samples of threshold 0 do not fit the distributions of threshold 1."""
    model = pipo()

    def read(text):
        return [x.p for x in walk.pairs(model, PROMPT, text, Method("pipo", threshold=1.0), Sampling())]

    counts, _ = sampled(model, PROMPT, Method("pipo", threshold=0.0), Sampling(), DRAWS, 3)
    chi2, df = chi_square(counts, joint(read, 3))
    assert chi2 > 2 * limit(df), f"chi-square {chi2:.1f} with {df} degrees of freedom"
