"""How SGLang's drafts are verified by our hooks: the rule gives p exactly, and each place has its own settings.

Nothing is sampled where the rule is tested: every draft and every cell of a grid of uniform numbers, fine enough to be
exact, is summed up.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipo.decode.sampling import Settings
from pipo.engine.types import Sampling
from pipo.sglang.hooks import eagle, places

PARTS = 6  # p and q are made of sixths
shares = st.lists(st.integers(0, 3), min_size=PARTS, max_size=PARTS).map(lambda x: np.bincount(x, minlength=4))
logits = st.lists(st.floats(-8, 8), min_size=5, max_size=5)


def outcome(p: np.ndarray, q: np.ndarray | None, draft: int) -> tuple[np.ndarray, float]:
    """Distribution of the token at the draft's place, and the chance that it is the draft kept; all in exact shares."""
    fine = math.lcm(*range(1, PARTS + 1))
    p_RDV = torch.tensor(p / PARTS).expand(fine, 2, 4)
    q_RSV = None if q is None else torch.tensor(q / PARTS).expand(fine, 1, 4)
    u_RS = ((torch.arange(fine, dtype=torch.float64) + 0.5) / fine)[:, None]
    kept_R, rest_RV = eagle.accept(p_RDV, torch.full((fine, 1), draft), q_RSV, u_RS)
    rest_RV = rest_RV / rest_RV.sum(-1, keepdim=True)
    out = torch.where(kept_R[:, None] > 0, torch.eye(4, dtype=torch.float64)[draft], rest_RV)
    return out.mean(0).numpy(), float(kept_R.double().mean())


@settings(max_examples=80)
@given(shares, shares)
@example(np.array([6, 0, 0, 0]), np.array([0, 3, 3, 0]))
def test_the_rule_gives_p_whatever_drafts_came_from(p: np.ndarray, q: np.ndarray) -> None:
    rows = [(q[x] / PARTS, *outcome(p, q, x)) for x in range(4) if q[x]]
    out = sum(weight * token for weight, token, _ in rows)
    assert np.abs(out - p / PARTS).max() < 1e-9, f"p {p}, q {q}: {out * PARTS}"
    assert abs(sum(weight * kept for weight, _, kept in rows) - np.minimum(p, q).sum() / PARTS) < 1e-9


@settings(max_examples=40)
@given(shares, st.integers(0, 3))
def test_the_rule_gives_p_for_drafts_that_are_certain(p: np.ndarray, draft: int) -> None:
    """SGLang drafts the likeliest token: there is no other."""
    out, kept = outcome(p, None, draft)
    assert np.abs(out - p / PARTS).max() < 1e-9 and abs(kept - p[draft] / PARTS) < 1e-9


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_first_rejection_ends_the_chain(depth: int) -> None:
    good = torch.tensor([[bool(row >> j & 1) for j in range(depth)] for row in range(2**depth)])
    p_RDV = torch.tensor([0.0, 1.0, 0.0]).expand(len(good), depth + 1, 3)
    kept_R, rest_RV = eagle.accept(p_RDV, torch.where(good, 1, 2), None, torch.full(good.shape, 0.5))
    assert kept_R.tolist() == good.long().cumprod(1).sum(1).tolist()
    assert rest_RV.argmax(-1).tolist() == [1] * len(good)


def batch(rows: list[Sampling], vocab: int, **more: Any) -> Any:
    """Sampling settings of a batch as SGLang holds them."""

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values)

    made = dict(
        temperatures=column([s.temperature or 1.0 for s in rows])[:, None],
        top_ks=torch.tensor([1 if s.temperature == 0 else s.top_k or 1 << 30 for s in rows]),
        top_ps=column([s.top_p for s in rows]), min_ps=column([s.min_p for s in rows]),
        need_top_k_sampling=True, need_top_p_sampling=True, need_min_p_sampling=any(s.min_p for s in rows),
        is_all_greedy=all(s.temperature == 0 for s in rows), penalties=None, logit_bias=None,
    )  # fmt: skip
    return SimpleNamespace(**{**made, **more})


@given(
    st.lists(logits, min_size=3, max_size=3),
    st.builds(
        Sampling, temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]), top_k=st.integers(0, 5),
        top_p=st.floats(0.05, 1.0), min_p=st.sampled_from([0.0, 0.1, 0.6]),
    ),
)  # fmt: skip
def test_distributions_are_those_of_our_own_engine(places_of: list[list[float]], s: Sampling) -> None:
    x_1PV = torch.tensor([places_of])
    if s.temperature == 0 and (x_1PV.topk(2, -1).values.diff().abs() < 1e-4).any():
        return  # a tie has two right answers
    ours = Settings([s], 5).repeated(3).probabilities(x_1PV[0])
    theirs = places.distribution(x_1PV, batch([s], 5))[0]
    # A token whose mass lies on an edge of a filter may fall to either side by rounding; then the rest is scaled.
    edge = (ours > 0) != (theirs > 0)
    if not edge.any():
        assert torch.allclose(ours, theirs, atol=1e-5), (ours, theirs)
    else:
        assert s.top_p < 1 or s.min_p > 0


class Penalties:
    """SGLang's orchestrator of one presence penalty."""

    is_required = True

    def __init__(self, rows: int, vocab: int) -> None:
        self.cumulated_presence = torch.zeros(rows, vocab)
        self.penalizers = {0: self}

    def is_prepared(self) -> bool:
        return True

    def cumulate_output_tokens(self, ids_R: torch.Tensor) -> None:
        self.cumulated_presence.scatter_(1, ids_R[:, None], 1.5)

    def accumulate_additive_penalties(self, logits_RV: torch.Tensor) -> None:
        logits_RV -= self.cumulated_presence

    def accumulate_scaling_penalties(self) -> torch.Tensor:
        return 1 + self.cumulated_presence


def test_each_place_has_the_drafts_before_it_counted_and_none_stays_counted() -> None:
    penalties = Penalties(2, 6)
    penalties.cumulate_output_tokens(torch.tensor([0, 5]))
    before = penalties.cumulated_presence.clone()
    x_RPV, drafts_RS = torch.randn(2, 3, 6), torch.tensor([[1, 1], [2, 3]])
    want = x_RPV.clone()
    for r, seen in enumerate([[{0}, {0, 1}, {0, 1}], [{5}, {5, 2}, {5, 2, 3}]]):
        for p, ids in enumerate(seen):
            for t in ids:
                x = want[r, p, t] - 1.5
                want[r, p, t] = x * 2.5 if x < 0 else x / 2.5
    want += torch.tensor([0.0, 0, 0, 0, 7, 0])
    info = batch([Sampling(), Sampling()], 6, penalties=penalties, logit_bias=torch.tensor([[0.0, 0, 0, 0, 7, 0]] * 2))
    places.settle(x_RPV, info, drafts_RS)
    assert torch.allclose(x_RPV, want, atol=1e-6)
    assert torch.equal(penalties.cumulated_presence, before)


def test_draws_follow_their_distribution_and_never_leave_it() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    counts = places.draw(p.expand(20_000, 4)).bincount(minlength=4)
    assert counts[1] == 0
    assert (counts / 20_000 - p).abs().max() < 0.02, counts.tolist()


def test_hooks_are_dormant_in_a_server_that_is_not_ours() -> None:
    """A server of another model with SGLang's own NEXTN: every hook hands on what it was given."""
    from pipo.sglang.hooks import loading, mtp, sampling

    told: list[Any] = []

    def original(*args: Any, **kwargs: Any) -> str:
        told.append((args, kwargs))
        return "theirs"

    info = SimpleNamespace(has_watermark_candidates=False)
    work = SimpleNamespace(forward_mode=SimpleNamespace(is_idle=lambda: False), sampling_info=info)
    assert eagle.sample(original, 1, work, 2, 3, watermark_state=4) == "theirs"
    assert mtp.draft_forward(original, 5, SimpleNamespace(spec_info=0, **vars(work))) == "theirs"
    assert sampling.cumulate_penalty_output_tokens(original, 6) == "theirs"
    assert told == [((1, work, 2, 3), {"watermark_state": 4}), ((5, told[1][0][1]), {}), ((6,), {})]
    draft = SimpleNamespace(is_draft_model=True, hf_config=SimpleNamespace(architectures=["Qwen3ForCausalLM"]))
    loading.config_draft_model(None, draft)
    assert draft.hf_config.architectures == ["Qwen3ForCausalLM"]
