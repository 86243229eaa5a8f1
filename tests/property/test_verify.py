"""The rule by which drafts are verified gives back p exactly, for any p and any q, and the engine's code keeps to it.

Nothing is sampled: the first part sums over all drafts, the second runs the engine's verification over every cell of a
grid of uniform numbers that is fine enough to be exact.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipo.decode import eagle
from pipo.decode.sampling import Purpose, Settings, residual
from pipo.engine.types import Sampling

V = 5
weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=V, max_size=V).filter(any)
logits = st.lists(st.floats(-8, 8), min_size=V, max_size=V)
counts = st.lists(st.integers(0, 3), min_size=V, max_size=V)
samplings = st.builds(
    Sampling, temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]), top_k=st.integers(0, V), top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0, 1), presence_penalty=st.floats(-2, 2), frequency_penalty=st.floats(-2, 2),
)  # fmt: skip


def outcome(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Distribution of what comes out where a draft from q is verified against p: accepted, or from the residual."""
    kept = torch.where(q > 0, q * (p / q.clamp(min=1e-300)).clamp(max=1), 0.0)
    rest = residual(p[None], q[None])[0]
    return kept + (1 - kept.sum()) * rest / rest.sum()


@given(weights, weights)
@example([0.2] * V, [0.2] * V)
@example([1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0])
def test_the_rule_gives_p_whatever_q(a: list[float], b: list[float]) -> None:
    p, q = (torch.tensor(x, dtype=torch.float64) / math.fsum(x) for x in (a, b))
    out = outcome(p, q)
    assert (out - p).abs().max() < 1e-6, f"p {p.tolist()}, q {q.tolist()}: {out.tolist()}"


@given(logits, logits, counts, samplings)
def test_the_rule_gives_p_under_all_sampling_settings(
    a: list[float], b: list[float], c: list[int], s: Sampling
) -> None:
    rows = Settings([s], V)
    seen = torch.tensor([c], dtype=torch.float32)
    p, q = (rows.probabilities(torch.tensor([x]), seen)[0].double() for x in (a, b))
    p, q = p / p.sum(), q / q.sum()
    assert (outcome(p, q) - p).abs().max() < 1e-6


def test_a_rule_that_takes_another_q_than_the_drafts_came_from_is_seen() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    told = torch.tensor([0.4, 0.4, 0.2]).double()
    kept = q * (p / told).clamp(max=1)
    rest = residual(p[None], told[None])[0]
    out = kept + (1 - kept.sum()) * rest / rest.sum()
    assert (out - p).abs().max() > 0.05


# The engine's own code

PARTS = 6  # p and q are made of sixths: uniform numbers on a grid meet every case, each as often as is right
shares = st.lists(st.integers(0, 3), min_size=PARTS, max_size=PARTS).map(lambda x: np.bincount(x, minlength=4))


def verified(p: np.ndarray, q: np.ndarray, ids: list[int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Exact shares of (accepted, token that comes out at the draft's place) from ``eagle._verify`` with one draft.

    ``p`` [4] and ``q`` (over ``ids`` where given, else [4]) in sixths; ``ids``: the draft vocabulary, ascending.
    """
    at = list(range(4)) if ids is None else ids
    whole_q = np.zeros(4, dtype=int)
    whole_q[at] = q
    fine = math.lcm(*(int(x) for x in q if x))  # accepted where u < p/q
    left = int((p - whole_q).clip(0).sum()) or PARTS  # a rejected draft's successor is drawn in so many parts
    rows = [(i, a, t) for i in range(len(q)) if q[i] for a in range(fine) for t in range(left)]
    n = len(rows)
    u = torch.zeros(n, 2, len(Purpose), dtype=torch.float64)
    u[:, 0, Purpose.ACCEPT] = (torch.tensor([a for _, a, _ in rows]) + 0.5) / fine
    u[:, 0, Purpose.TOKEN] = (torch.tensor([t for _, _, t in rows]) + 0.5) / left
    frame: Any = SimpleNamespace(
        settings=Settings([Sampling()] * n, 4), vocab=4, u=u, depth=1,
        w=SimpleNamespace(vocab=4, mtp=SimpleNamespace(ids=None if ids is None else torch.tensor([*ids, 4]))),
    )  # fmt: skip
    index = torch.tensor([i for i, _, _ in rows])
    drafts = torch.tensor(at)[index]
    q_nkM = torch.tensor(q / PARTS, dtype=torch.float32).expand(n, 1, -1)
    logits_NV = torch.tensor(p / PARTS, dtype=torch.float32).log().expand(2 * n, -1)
    chain = eagle.Chain(drafts[:, None], index[:, None], q_nkM, [])
    accepted_n, token_n = eagle._verify(frame, logits_NV, chain)
    out, kept = np.zeros(4), np.zeros(4)
    for (i, _, _), draft, accepted, token in zip(rows, drafts.tolist(), accepted_n.tolist(), token_n.tolist()):
        weight = q[i] / PARTS / (fine * left)
        out[draft if accepted else token] += weight
        kept[draft] += weight * accepted
    return out, kept


@settings(max_examples=60)
@given(shares, shares)
@example(np.array([6, 0, 0, 0]), np.array([0, 3, 3, 0]))
def test_the_engines_verification_gives_p_exactly(p: np.ndarray, q: np.ndarray) -> None:
    out, kept = verified(p, q, None)
    assert np.abs(out - p / PARTS).max() < 1e-6, f"p {p}, q {q}: {out * PARTS}"
    assert np.abs(kept - np.minimum(p, q) / PARTS).max() < 1e-6, "as many accepted as can be"


@settings(max_examples=60)
@given(shares, st.integers(0, PARTS), st.sampled_from([[1, 3], [0, 2], [2, 3]]))
def test_the_engines_verification_gives_p_with_a_draft_vocabulary(p: np.ndarray, share: int, ids: list[int]) -> None:
    out, kept = verified(p, np.array([share, PARTS - share]), ids)
    assert np.abs(out - p / PARTS).max() < 1e-6, f"p {p}, q {share} of {PARTS} on {ids}: {out * PARTS}"
    assert kept[[i for i in range(4) if i not in ids]].sum() == 0


@pytest.mark.parametrize("depth", [2, 3])
def test_the_first_rejection_ends_the_chain(depth: int) -> None:
    """Drafts after a rejected one do not count, however good they are."""
    n, k = 2**depth, depth
    good = torch.tensor([[bool(row >> j & 1) for j in range(k)] for row in range(n)])
    p = torch.tensor([0.0, 1.0, 0.0, 0.0])  # token 1 alone; a good draft is 1, a bad one 2
    drafts = torch.where(good, 1, 2)
    frame: Any = SimpleNamespace(
        settings=Settings([Sampling()] * n, 4), vocab=4, depth=k,
        u=torch.full((n, k + 1, len(Purpose)), 0.5, dtype=torch.float64),
        w=SimpleNamespace(vocab=4, mtp=SimpleNamespace(ids=None)),
    )  # fmt: skip
    q = torch.nn.functional.one_hot(drafts, 4).float()
    chain = eagle.Chain(drafts, drafts, q, [])
    accepted, token = eagle._verify(frame, p.log().expand(n * (k + 1), -1), chain)
    assert accepted.tolist() == good.long().cumprod(1).sum(1).tolist()
    assert token.tolist() == [1] * n
