"""Pairs as scheduler tokens: what goes in comes out, PAD keeps its place, counts add up."""

from __future__ import annotations

from array import array

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipo.sglang.pairs import MASK, MOST_TOKENS, PairText, before, pack, pack_prompt, tokens_of, unpack

PAD = 7
tokens = st.integers(0, MASK).filter(lambda t: t != PAD)
halves = st.tuples(tokens, st.one_of(st.just(PAD), tokens))


@given(tokens, tokens, tokens)
def test_a_pair_comes_back_whatever_follows_it(a: int, b: int, following: int) -> None:
    pair = pack(a, b)
    assert unpack(pair) == (a, b) == unpack(before(pair, following)) == unpack(before(before(pair, 3), following))
    assert 0 <= before(pair, following) < 1 << 63


@given(st.lists(tokens, min_size=1, max_size=30))
def test_a_prompt_is_padded_once_at_its_end_and_pairs_know_their_followers(ids: list[int]) -> None:
    packed = pack_prompt(ids, PAD)
    assert len(packed) == (len(ids) + 1) // 2
    assert list(tokens_of(packed, PAD)) == ids
    followers = [p >> 40 for p in packed]
    assert followers == [unpack(p)[0] for p in packed[1:]] + [PAD]


@given(st.lists(halves, min_size=1, max_size=20), st.integers(1, 19))
def test_text_follows_pairs_in_any_steps(rows: list[tuple[int, int]], cut: int) -> None:
    pairs = [pack(a, b) for a, b in rows]
    text = PairText(PAD, None, array("q"))
    fresh = text.follow(pairs[:cut]) + text.follow(pairs)
    flat = [t for row in rows for t in row if t != PAD]
    assert list(text.tokens) == flat and fresh == len(flat)
    assert text.counts() == {"slots": len(rows), "tokens": len(flat), "pads": 2 * len(rows) - len(flat)}
    for i, end in enumerate(text.ends):
        assert text.pairs_through(end) == i + 1
    assert text.pairs_through(0) == 0


def test_tensors_pack_as_ints_do() -> None:
    a, b = torch.tensor([1, 5, MASK]), torch.tensor([2, MASK, 0])
    pairs = pack(a, b)
    assert pairs.tolist() == [pack(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert all(torch.equal(x, y) for x, y in zip(unpack(pairs), (a, b), strict=True))
    assert MOST_TOKENS == 1 << 20
