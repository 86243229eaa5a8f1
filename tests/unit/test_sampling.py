"""Filtered distributions against hand-computed ones, and draws: exact, seeded, never without mass."""

import math

import numpy as np
import pytest
import torch

from pipo.decode.sampling import (
    Purpose,
    Settings,
    Stream,
    chosen_logprobs,
    draw,
    greedy,
    logprob_rows,
    residual,
    uniforms,
)
from pipo.engine.types import Sampling


def probabilities(logits: list[float], counts: list[float] | None = None, **settings) -> list[float]:
    s = Settings([Sampling(**settings)], len(logits))
    p = s.probabilities(torch.tensor([logits]), None if counts is None else torch.tensor([counts]))
    return p[0].tolist()


def test_temperature_divides_logits():
    e = [math.exp(x / 2) for x in (1.0, 3.0)]
    assert probabilities([1.0, 3.0], temperature=2.0) == pytest.approx([e[0] / sum(e), e[1] / sum(e)])


def test_temperature_zero_puts_all_mass_on_the_argmax():
    assert probabilities([1.0, 3.0, 2.0], temperature=0.0) == [0, 1, 0]


def test_top_k_keeps_the_k_best_and_renormalises():
    logits = [math.log(x) for x in (0.1, 0.4, 0.2, 0.3)]
    assert probabilities(logits, top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7])


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = [math.log(x) for x in (0.1, 0.4, 0.2, 0.3)]
    assert probabilities(logits, top_p=0.65) == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert probabilities(logits, top_p=0.75) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9])
    assert probabilities(logits, top_p=0.01) == pytest.approx([0, 1, 0, 0]), "the best token always stays"


def test_top_p_counts_the_whole_distributions_mass_whatever_top_k_left():
    logits = [math.log(x) for x in (0.4, 0.3, 0.2, 0.1)]
    assert probabilities(logits, top_k=2, top_p=0.56) == pytest.approx([4 / 7, 3 / 7, 0, 0])  # not 4/7 but 0.4
    assert probabilities(logits, top_k=2, top_p=0.39) == pytest.approx([1, 0, 0, 0])


def test_presence_penalty_comes_before_temperature_and_counts_once():
    a, b = math.exp((1.0 - 0.5) / 2), math.exp(1.0 / 2)
    for count in (1.0, 3.0):
        got = probabilities([1.0, 1.0], counts=[count, 0.0], presence_penalty=0.5, temperature=2.0)
        assert got == pytest.approx([a / (a + b), b / (a + b)])


def test_frequency_penalty_counts_every_time_and_adds_to_presence():
    e = [math.exp(x / 2) for x in (1.0 - 0.5 - 3 * 0.2, 1.0 - 0.5 - 0.2, 1.0)]
    got = probabilities([1.0, 1.0, 1.0], counts=[3, 1, 0], presence_penalty=0.5, frequency_penalty=0.2, temperature=2.0)
    assert got == pytest.approx([x / sum(e) for x in e])
    e = [math.exp(x) for x in (1.0 + 3 * 0.2, 1.0 + 0.2, 1.0)]
    got = probabilities([1.0, 1.0, 1.0], counts=[3, 1, 0], frequency_penalty=-0.2)
    assert got == pytest.approx([x / sum(e) for x in e]), "a negative penalty asks for repeats"


@pytest.mark.parametrize("which", ["presence_penalty", "frequency_penalty"])
def test_counts_are_needed_where_any_row_has_a_penalty(which):
    assert Settings([Sampling(), Sampling(**{which: 0.1})], 8).counts
    assert not Settings([Sampling(), Sampling(temperature=0.5, top_k=2)], 8).counts


def test_min_p_leaves_out_what_is_unlikely_beside_the_best():
    logits = [math.log(x) for x in (0.1, 0.4, 0.2, 0.3)]
    assert probabilities(logits, min_p=0.45) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9])
    assert probabilities(logits, min_p=0.7) == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert probabilities(logits, min_p=1.0) == pytest.approx([0, 1, 0, 0])
    assert probabilities(logits, min_p=0.55, temperature=2.0) == pytest.approx(
        [0, *(math.sqrt(x) / sum(map(math.sqrt, (0.4, 0.2, 0.3))) for x in (0.4, 0.2, 0.3))]
    ), "after the temperature: sqrt(0.2 / 0.4) = 0.71, sqrt(0.1 / 0.4) = 0.5"


def test_min_p_comes_after_top_k_and_top_p():
    logits = [math.log(x) for x in (0.4, 0.3, 0.2, 0.1)]
    assert probabilities(logits, min_p=0.7, top_p=0.75) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    # before top-p, the 0.4 would be 0.57 of the mass and reach 0.5 alone
    assert probabilities(logits, min_p=0.7, top_p=0.5) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert probabilities(logits, min_p=0.3, top_k=2) == pytest.approx([4 / 7, 3 / 7, 0, 0])


def test_rows_with_other_settings_do_not_touch_each_other():
    rows = [
        Sampling(),
        Sampling(temperature=0.0),
        Sampling(top_k=3),
        Sampling(top_p=0.5),
        Sampling(min_p=0.2),
        Sampling(frequency_penalty=0.4),
        Sampling(temperature=0.7, presence_penalty=1.5, frequency_penalty=0.2, top_k=7, top_p=0.9, min_p=0.1),
    ]
    torch.manual_seed(0)
    logits, counts = torch.randn(7, 50) * 2, torch.randint(0, 4, (7, 50)).float()
    for chosen in (range(7), (0, 1, 4), (0, 2, 4), (5, 0)):
        some = [rows[i] for i in chosen]
        x, c = logits[list(chosen)], counts[list(chosen)]
        together = Settings(some, 50).probabilities(x, c)
        for i, row in enumerate(some):
            alone = Settings([row], 50).probabilities(x[i : i + 1], c[i : i + 1])
            assert torch.allclose(together[i], alone[0], atol=1e-7), f"row {i}: {row}"
        twice = Settings(some, 50).repeated(2).probabilities(x.repeat_interleave(2, 0), c.repeat_interleave(2, 0))
        assert torch.allclose(twice[::2], together) and torch.allclose(twice[1::2], together)


def test_fewer_columns_than_the_vocabulary_are_a_distribution_of_their_own():
    """A draft head with 12 of 50 tokens: as if all others had no mass."""
    torch.manual_seed(1)
    logits, counts = torch.randn(4, 50) * 2, torch.randint(0, 3, (4, 50)).float()
    ids = torch.tensor([2, 3, 7, 11, 13, 19, 23, 29, 31, 37, 41, 47])
    outside = torch.ones(50, dtype=torch.bool).index_fill(0, ids, False)
    rows = [
        Sampling(top_k=20),
        Sampling(temperature=0.0, frequency_penalty=1.0),
        Sampling(min_p=0.1, presence_penalty=0.7),
        Sampling(top_k=5, top_p=0.8),
    ]
    for some in (rows, rows[:1], rows[2:3], rows[3:]):
        settings, n = Settings(some, 50), len(some)
        full = settings.probabilities(logits[:n].masked_fill(outside, -math.inf), counts[:n])
        few = settings.probabilities(logits[:n, ids], counts[:n, ids])
        assert torch.allclose(full[:, ids], few, atol=1e-7)
        assert full[:, outside].sum() == 0


def test_minus_infinity_gets_no_mass():
    for settings in ({}, {"top_k": 3}, {"top_p": 0.99}, {"min_p": 0.01}):
        assert probabilities([0.0, -math.inf, 1.0], **settings)[1] == 0


def test_draw_never_picks_a_token_without_mass_even_at_the_ends():
    p = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    top = 1 - 2.0**-32
    for scale in (1.0, 1e-6, 3.7, 1e6):
        for u, want in ((0.0, 1), (0.2999999, 1), (0.3000001, 3), (top, 3)):
            assert draw(p * scale, torch.tensor([u], dtype=torch.float64)).item() == want, (scale, u)


def test_draw_near_one_over_a_large_vocabulary_stays_inside():
    p = torch.rand(4, 250_000)
    p[:, -1000:] = 0
    ids = draw(p, torch.full((4,), 1 - 2.0**-32, dtype=torch.float64))
    assert (ids < 249_000).all() and (p[torch.arange(4), ids] > 0).all()


def test_draws_follow_the_distribution():
    p = torch.tensor([0.05, 0.5, 0.0, 0.25, 0.2])
    u = torch.tensor(uniforms(1, 0, 40_000), dtype=torch.float64)
    counts = torch.bincount(draw(p.expand(len(u), -1), u), minlength=5).double()
    expected = p.double() * len(u)
    used = expected > 0
    chi2 = ((counts - expected)[used] ** 2 / expected[used]).sum().item()
    assert chi2 < 16.3, f"chi-square {chi2:.1f} with 3 degrees of freedom (p = 0.001)"


def test_rows_that_are_not_finite_give_no_token():
    nan = torch.full((1, 5), math.nan)
    assert draw(nan, torch.tensor([0.5], dtype=torch.float64)).item() == 5
    assert greedy(torch.cat([nan, torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0]])])).tolist() == [5, 1]


def test_residual_is_what_the_draft_lacked_and_never_empty():
    p, q = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.7, 0.1, 0.2]])
    assert residual(p, q)[0].tolist() == pytest.approx([0, 0.2, 0])
    assert residual(p, p)[0].tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_uniforms_depend_on_seed_place_and_purpose_alone():
    stream = Stream(7)
    far = stream.at(Purpose.DRAFT, 1000)
    assert far == uniforms(7, 4 * 1000 + Purpose.DRAFT, 1)[0] == Stream(7).at(Purpose.DRAFT, 1000)
    values = [Stream(s).at(p, i) for s in (0, 1, -1, 2**70) for p in Purpose for i in range(300)]
    assert len(set(values)) == len(values) and 0 <= min(values) and max(values) < 1


def test_uniforms_are_uniform_and_uncorrelated_between_neighbours():
    u = np.array([uniforms(seed, 0, 256) for seed in range(200)])
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    chi2 = ((counts - u.size / 20) ** 2 / (u.size / 20)).sum()
    assert chi2 < 43.8, f"chi-square {chi2:.1f} with 19 degrees of freedom (p = 0.001)"
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:, :-4], u[:, 4:]), (u[:-1], u[1:])):
        r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(r) < 4 / math.sqrt(a.size), f"correlation {r:.4f}"


def test_chosen_logprobs_are_of_the_raw_distribution_likeliest_first():
    torch.manual_seed(2)
    logits = torch.randn(3, 10, dtype=torch.float64).half() * 3
    logits[:, 0] = -math.inf
    want = logits.double().log_softmax(-1)
    own, ids, values = chosen_logprobs(logits, torch.tensor([4, 9, 10]), 3)  # 10 marks a failed row
    assert own.dtype == values.dtype == torch.float32 and ids.shape == values.shape == (3, 3)
    assert own[:2].tolist() == pytest.approx([want[0, 4].item(), want[1, 9].item()], abs=1e-6)
    order = want.argsort(dim=-1, descending=True)[:, :3]
    assert ids.tolist() == order.tolist()
    assert torch.allclose(values.double(), want.gather(1, order), atol=1e-6)


def test_log_probabilities_of_events_leave_out_what_cannot_come():
    logits = torch.tensor([[-math.inf, 0.0, 1.0]])
    (row,) = logprob_rows(*chosen_logprobs(logits, torch.tensor([1]), 100))
    assert [i for i, _ in row.top] == [2, 1]
    assert row.logprob == pytest.approx(row.top[1][1]) == pytest.approx(-math.log(1 + math.e))
    (bare,) = logprob_rows(*chosen_logprobs(logits, torch.tensor([2]), 0))
    assert bare.top == () and bare.logprob == pytest.approx(1 - math.log(1 + math.e))
