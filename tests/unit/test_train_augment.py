"""Pad augmentation and teacher compaction against hand-made cases and their invariants."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo.errors import BadInput
from pipo.train.augment import augment, compact, draw_rho, pad_prompt

PAD = 0
tokens = st.lists(st.integers(1, 9), max_size=30)
rates = st.floats(0, 1)


def test_rho_zero_splits_nothing():
    for n in range(20):
        response = list(range(1, n + 1))
        for kind in ("split", "shift"):
            out = augment(response, 0.0, kind, PAD, random.Random(n))
            assert out == response + [PAD] * (n % 2)


def test_rho_one_splits_everything():
    for kind in ("split", "shift"):
        assert augment([1, 2, 3], 1.0, kind, PAD, random.Random(0)) == [1, PAD, 2, PAD, 3, PAD]


def test_split_keeps_pairs_and_shift_goes_on_from_the_second():
    class Coin(random.Random):
        def __init__(self, throws):
            super().__init__()
            self.throws = iter(throws)

        def random(self):
            return next(self.throws)

    assert augment([1, 2, 3, 4], 0.5, "split", PAD, Coin([0.1, 0.9])) == [1, PAD, 2, PAD, 3, 4]
    assert augment([1, 2, 3, 4], 0.5, "shift", PAD, Coin([0.1, 0.9])) == [1, PAD, 2, 3, 4, PAD]


@given(tokens, rates, st.sampled_from(["split", "shift"]), st.integers(0, 99))
def test_even_length_pad_only_at_odd_places_and_no_token_lost(response, rho, kind, seed):
    out = augment(response, rho, kind, PAD, random.Random(seed))
    assert len(out) % 2 == 0
    assert all(place % 2 for place, token in enumerate(out) if token == PAD)
    assert [t for t in out if t != PAD] == response


@given(tokens)
def test_prompt_is_padded_to_even_length(prompt):
    out = pad_prompt(prompt, PAD)
    assert len(out) % 2 == 0 and out[: len(prompt)] == prompt and len(out) - len(prompt) <= 1


def test_rho_is_uniform_up_to_its_maximum_with_a_share_of_all_pad():
    rng = random.Random(0)
    drawn = [draw_rho(rng, 0.25, 0.1) for _ in range(4000)]
    assert 0.08 < sum(r == 1.0 for r in drawn) / 4000 < 0.12
    below = [r for r in drawn if r < 1]
    assert max(below) <= 0.25 and 0.115 < sum(below) / len(below) < 0.135
    with pytest.raises(BadInput, match="rho_max 1.5"):
        draw_rho(rng, 1.5)


def test_compaction_by_hand():
    real, index = compact([5, 6, 7, PAD, 8, PAD, 9, 4], PAD)
    assert real == [5, 6, 7, 8, 9, 4]
    assert index == [0, 1, 2, 2, 3, 3, 4, 5]


@given(tokens, rates, st.integers(0, 99))
def test_compaction_undoes_augmentation(response, rho, seed):
    out = augment(response, rho, "shift", PAD, random.Random(seed))
    real, index = compact(out, PAD)
    assert real == response
    assert all(real[index[i]] == t for i, t in enumerate(out) if t != PAD)
