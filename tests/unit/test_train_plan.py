"""Plans: every row once an epoch, sizes kept, the same for the same seed, and how they end."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipo.train.optim import learning_rate
from pipo.train.plan import make_plan

lengths = st.lists(st.integers(2, 50), min_size=1, max_size=60)


def flat(plan):
    return [i for step in plan.steps for micro in step for i in micro]


@given(lengths, st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_every_row_comes_once_an_epoch_and_what_fills_no_step_is_counted(lens, accumulate, epochs, seed):
    plan = make_plan(lens, micro_rows=1, accumulate=accumulate, epochs=epochs, seed=seed)
    seen = Counter(flat(plan))
    assert sum(seen.values()) + plan.left_over == epochs * len(lens)
    assert max(seen.values()) <= epochs and min(seen.get(i, 0) for i in range(len(lens))) >= epochs - plan.left_over
    assert plan == make_plan(lens, micro_rows=1, accumulate=accumulate, epochs=epochs, seed=seed)


@given(lengths, st.integers(1, 5), st.integers(10, 120))
def test_micro_batches_keep_to_both_limits(lens, rows, tokens):
    plan = make_plan(lens, micro_rows=rows, micro_tokens=tokens, epochs=1)
    for step in plan.steps:
        for micro in step:
            assert len(micro) <= rows
            assert len(micro) == 1 or len(micro) * max(lens[i] for i in micro) <= tokens


def test_epochs_have_their_own_order_and_may_be_parts():
    plan = make_plan([5] * 40, epochs=2)
    assert flat(plan)[:40] != flat(plan)[40:]
    assert len(flat(make_plan([5] * 40, epochs=1.5))) == 60
    assert flat(make_plan([5] * 40, epochs=1, seed=1)) != flat(plan)[:40]


def test_a_token_budget_ends_with_the_step_that_reaches_it():
    plan = make_plan([10] * 7, accumulate=2, tokens=95)
    assert len(plan.steps) == 5, "20 tokens a step: 4 are 80, 5 are 100"
    assert len(make_plan([10] * 7, accumulate=2, tokens=300).steps) == 15, "beyond one epoch it goes round again"


def test_few_rows_make_one_short_step_rather_than_none():
    plan = make_plan([5, 6, 7], accumulate=128, epochs=1)
    assert len(plan.steps) == 1 and len(plan.steps[0]) == 3 and plan.left_over == 0


def test_learning_rate_rises_then_falls_to_its_floor():
    rates = [learning_rate((s + 1) / 101, 1.0, 0.05, 0.1) for s in range(100)]
    top = rates.index(max(rates))
    assert 3 <= top <= 6 and rates[0] > 0 and abs(rates[-1] - 0.1) < 0.01
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert learning_rate(0.5, 1.0, 0.0) == 0.5 and learning_rate(1.0, 1.0, 0.05) == 0.0
