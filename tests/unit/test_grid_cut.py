"""A smaller budget read off a record is what generating under that budget gives, for every method."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ablations.grid_cut import within
from bench.record import SampleRecord
from pipo.engine.types import Draft, Method
from tests.unit.bench_jobs import make_home
from tests.unit.grid_runs import BASES, ITEMS, K, base, run, samples, study

LOOSE = 24
TIMES = ("token_times_s", "ttft_s", "first_pair_s")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[tuple[str, int], SampleRecord]]:
    """Method -> (item, sample) -> record under the loose budget."""
    folder = tmp_path_factory.mktemp("whole")
    run(study(home, *(base(home, name) for name in BASES), slots=LOOSE), folder)
    out: dict[str, dict[tuple[str, int], SampleRecord]] = {name: {} for name in BASES}
    for (name, item, sample), r in samples(folder).items():
        out[name][item, sample] = r
    return out


def method(name: str) -> Method:
    settings = {k: v for k, v in BASES[name].items() if k not in ("model", "method")}
    return Method(name, **settings)  # type: ignore[arg-type]


def plain(r: SampleRecord) -> dict[str, object]:
    """All that two runs of one sample have in common: no times, and of a cut one neither text nor answer."""
    left_out = (*TIMES, *(("text", "answer") if r.finish == "slots" else ()))
    found = {key: value for key, value in msgspec.to_builtins(r).items() if key not in left_out}
    return {**found, "drafts": [(d.id, d.kept) for d in r.drafts]}


def confidences(r: SampleRecord) -> list[float]:
    return [d.confidence for d in r.drafts if d.confidence is not None]


@pytest.mark.parametrize("slots", [1, 2, 3, 6, 7, 13])
def test_cut_records_are_those_of_generating_again(
    home: Path, tmp_path: Path, whole: dict[str, dict[tuple[str, int], SampleRecord]], slots: int
) -> None:
    run(study(home, *(base(home, name) for name in BASES), slots=slots), tmp_path)
    again = samples(tmp_path)
    assert len(again) == len(BASES) * ITEMS * K
    for (name, item, sample), r in again.items():
        cut = within(whole[name][item, sample], method(name), slots)
        assert plain(cut) == plain(r), f"{name} {item}/{sample} at {slots} slots"
        assert confidences(cut) == pytest.approx(confidences(r), abs=1e-5), "the batch is another one"
        assert len(cut.token_times_s) == len(r.token_times_s) == r.tokens
        assert (cut.first_pair_s < 0) == (r.first_pair_s < 0)


def test_the_records_try_every_kind_of_cut(whole: dict[str, dict[tuple[str, int], SampleRecord]]) -> None:
    """Otherwise the test above shows little: drafts kept and not, samples that end by themselves."""
    for name in ("eagle", "pipo", "random"):
        kept = [d.kept for r in whole[name].values() for d in r.drafts]
        assert 0 < sum(kept) < len(kept), name
    every = [r for of in whole.values() for r in of.values()]
    assert any(r.slots < LOOSE for r in every) and any(r.slots == LOOSE for r in every)


def test_a_sample_within_the_budget_stays_itself(whole: dict[str, dict[tuple[str, int], SampleRecord]]) -> None:
    r = next(iter(whole["pipo"].values()))
    assert within(r, method("pipo"), r.slots) is r


def test_a_right_answer_beyond_the_budget_is_wrong() -> None:
    r = SampleRecord(variant="v", task="t", item="i", sample=0, seed=1, correct=True, slots=4, tokens=4, steps=4,
                     places=[5, 6, 7, 8], text="x", answer="2", token_times_s=[0.1, 0.2, 0.3, 0.4])  # fmt: skip
    cut = within(r, Method("regular"), 3)
    assert (cut.correct, cut.answer, cut.finish, cut.slots, cut.steps) == (False, None, "slots", 3, 3)
    assert r.correct, "the record itself stays"


def test_a_chain_that_the_budget_ends_loses_what_came_after() -> None:
    drafts = [Draft(i, kept) for i, kept in enumerate([True, True, True, True, False, False])]
    r = SampleRecord(variant="v", task="t", item="i", sample=0, seed=1, slots=7, tokens=7, steps=3, drafts=drafts,
                     places=[5] * 7, token_times_s=[0.0, *[0.1] * 4, *[0.2] * 2])  # fmt: skip
    eagle = Method("eagle", depth=3)
    got = [(c.steps, len(c.drafts)) for c in (within(r, eagle, slots) for slots in range(1, 7))]
    assert got == [(1, 0), (2, 1), (2, 2), (2, 3), (2, 3), (3, 4)]
