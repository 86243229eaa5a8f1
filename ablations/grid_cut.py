"""A smaller budget applied to a record: what the engine would have put out had it been given that budget. Torch-free.

A sample's draws depend on its seed and on the place of each token alone, so a run under a smaller budget is the same
run, ended earlier. What of a step goes beyond the budget is lost, as in pipo/engine/commit.py. Times are those of the
run that was made: that of a smaller budget would have had other batch mates.
"""

from __future__ import annotations

import msgspec

from bench.grading import first_look
from bench.record import SampleRecord
from pipo.engine.types import Method


def within(r: SampleRecord, method: Method, slots: int) -> SampleRecord:
    """The record of the same sample under a budget of ``slots``; itself where it took no more.

    Text and answer of a sample that is cut are left out: it counts as wrong and has no vote. ``steps`` are those that
    the method takes, for an engine that tells of every step.
    """
    if r.slots <= slots:
        return r
    if method.pairs:
        places = r.places[: 2 * slots]
        tokens = sum(place != r.pad_id for place in places)
        drafts, steps = slots, slots  # every slot offered one: only a pair that an end cuts does not
    else:
        places, tokens = r.places[:slots], slots
        drafts, steps = _offered(r, method, slots)
    cut = msgspec.structs.replace(
        r, places=places, tokens=tokens, slots=slots, drafts=r.drafts[:drafts], steps=steps, finish="slots",
        text="", answer=None, error=None, token_times_s=r.token_times_s[:tokens],
        first_pair_s=r.first_pair_s if method.pairs or tokens >= 2 else -1.0,
    )  # fmt: skip
    return first_look(cut, "exact" if r.judged and r.verdict is None else "any other")  # a cut one is wrong by all


def _offered(r: SampleRecord, method: Method, slots: int) -> tuple[int, int]:
    """Drafts and steps of a token method within the first ``slots`` tokens."""
    if method.name == "mtp":  # the first step gives a token and a draft, as does every later one
        return slots // 2, (slots + 1) // 2
    if method.name != "eagle":
        return 0, slots
    left, drafts, steps = slots - 1, 0, 1  # the prefill gives one token and no draft
    while left > 0:
        chain = r.drafts[drafts : drafts + method.depth]
        accepted = next((i for i, d in enumerate(chain) if not d.kept), len(chain))
        steps += 1
        if accepted + 1 > left:  # the budget ends within this chain; what was offered after it is lost
            return drafts + left, steps
        drafts, left = drafts + len(chain), left - accepted - 1
    return drafts, steps
