"""Traces of the viewer: every method's generations step by step, shortened, chosen within bounds."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench import compare, record, timing
from bench.record import SampleRecord
from bench.scorers.verdict import Verdict
from pipo.engine.types import Draft, Method
from pipo.errors import BadRecord
from reports.html import choose
from reports.html.choose import Chosen, in_order, scan
from reports.html.trace import TICK_S, trace
from reports.load import load
from tests.unit.bench_jobs import Context, make_home, spec
from tests.unit.html_runs import made_run, pair, sample

KINDS = {"regular": "one", "mtp": "two", "eagle": "chain", "pipo": "pair"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generations of all methods by tiny models: many ends by budget and by EOS."""
    home, run = make_home(tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("run")
    compare.run(spec(home, *KINDS, k=4), Context(run))
    return run


def real_samples(run: Path) -> list[tuple[SampleRecord, Method]]:
    methods = {v.name: v.method for v in record.read_run(run).variants}
    rows = [r for r in record.read(run / "records.jsonl") if isinstance(r, SampleRecord)]
    return [(r, methods[r.variant]) for r in rows]


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain(*lists))


def test_real_generations_of_every_method_are_told_step_by_step(real: Path) -> None:
    seen = set()
    for r, method in real_samples(real):
        made = trace(r, 0, method)
        assert made["kind"] == KINDS[r.variant] or not r.drafts, r
        assert "lost" not in made, r
        tokens = [p for p in r.places if p != r.pad_id] if method.pairs else r.places
        assert flat(made["o"]) == tokens
        assert flat(made.get("d", [])) == [d.id for d in r.drafts]
        assert sum(made.get("k", [])) == sum(d.kept for d in r.drafts)
        seen.add((made["kind"], r.finish))
    assert {kind for kind, _ in seen} == set(KINDS.values())


def test_steps_end_when_their_last_token_was_out(real: Path) -> None:
    for r, method in real_samples(real):
        made = trace(r, 0, method)
        ends = list(itertools.accumulate(len(out) for out in made["o"]))
        times = [TICK_S * t for t in itertools.accumulate(made["t"])]
        assert times == pytest.approx([r.token_times_s[n - 1] for n in ends], abs=TICK_S)
        if method.name == "regular":
            assert len(times) == r.steps


def test_pace_is_what_the_statistics_call_it(real: Path) -> None:
    for r, method in real_samples(real):
        made = trace(r, 0, method)
        kept = timing.tpot(r.token_times_s, timing.first_step_end(r, method))
        assert made.get("tpot", -1.0) == pytest.approx(kept, abs=1e-5), (r.variant, r.tokens)


def test_a_pair_has_its_draft_and_a_pad_where_it_was_not_kept() -> None:
    made = trace(pair(), 3, Method("pipo"))
    assert made["o"] == [[5, 6], [7], [2]] and made["d"] == [[6], [8], []] and made["k"] == [1, 0, 0]
    assert made["c"] == [9700, 3000, -1] and made["v"] == 3


def test_an_eagle_chain_shows_what_was_accepted_and_what_not() -> None:
    drafts = [Draft(6, True), Draft(9, False), Draft(9, False), Draft(8, True), Draft(2, True)]
    r = sample("i", "eagle", places=[5, 6, 7, 8, 2], drafts=drafts)
    made = trace(r, 0, Method("eagle", depth=3))
    assert made["o"] == [[5], [6, 7], [8, 2]] and made["d"] == [[], [6, 9, 9], [8, 2]] and made["k"] == [0, 1, 2]
    assert "lost" not in made


@pytest.mark.parametrize(
    "drafts",
    [
        [Draft(99, True), Draft(9, False), Draft(9, False)],  # kept, but another token came out
        [Draft(6, False), Draft(7, True), Draft(9, False)],  # kept after a rejection
        [Draft(6, True)] * 9,  # more than came out
    ],
)
def test_drafts_that_do_not_fit_are_not_shown_and_it_says_so(drafts: list[Draft]) -> None:
    made = trace(sample("i", "eagle", places=[5, 6, 7], drafts=drafts), 0, Method("eagle", depth=3))
    assert made["kind"] == "one" and made["o"] == [[5], [6], [7]] and "d" not in made
    assert f"of {len(drafts)} drafts" in made["lost"]


def test_a_variant_that_the_header_does_not_name_is_told_by_its_places() -> None:
    assert trace(pair(), 0, None)["kind"] == "pair"
    assert trace(sample(), 0, None)["kind"] == "one"


def test_a_failed_sample_has_its_error_and_no_steps() -> None:
    made = trace(sample(places=[], finish="failed", error="out of memory", ttft_s=-1.0, token_times_s=[]), 0, None)
    assert made["o"] == [] and made["err"] == "out of memory" and "ttft" not in made and "tpot" not in made


def test_the_reason_of_a_verdict_is_told() -> None:
    found = Verdict(right=True, reason="equal\u202e", by="symbolic")
    assert trace(sample(verdict=found), 0, None)["why"] == "equal⟨U+202E⟩ (by symbolic)"
    assert "why" not in trace(sample(), 0, None)


def test_a_long_generation_keeps_its_beginning_and_its_end() -> None:
    n = 5000
    r = sample(places=list(range(1, n + 1)), text="x" * 100_000)
    made = trace(r, 0, Method("regular"), room=6000)
    head, cut, tokens = made["gap"]
    assert len(made["o"]) == 200 and head == 140 and cut == tokens == n - 200
    assert flat(made["o"]) == [*range(1, 141), *range(n - 59, n + 1)]
    assert TICK_S * sum(made["t"]) == pytest.approx(r.token_times_s[-1], abs=1e-3)
    assert len(made["text"]) < 1100 and "99,000 characters left out" in made["text"]
    assert len(json.dumps(made)) < 6000


def test_items_on_which_methods_differ_come_first_then_by_number(tmp_path: Path) -> None:
    records = []
    for n in (10, 9, 2, 1):
        records += [sample(f"item-{n}"), pair(f"item-{n}", correct=n not in (2, 10))]
    found = scan(made_run(tmp_path, records) / "records.jsonl", ["regular"])
    assert [i.id for i in in_order(found.tasks["lab-chain"])] == ["item-2", "item-10", "item-1", "item-9"]
    assert found.variants == ["regular", "pipo-sft"]


def test_methods_differ_on_the_same_sample_not_between_samples(tmp_path: Path) -> None:
    records = [sample("i", number=n, correct=n == 0) for n in range(2)]
    records += [pair("i", n, correct=n == 0) for n in range(2)]
    found = scan(made_run(tmp_path, records) / "records.jsonl", [])
    assert not found.tasks["lab-chain"]["i"].differs


def test_the_order_of_the_file_does_not_change_the_choice(tmp_path: Path) -> None:
    records = [sample(f"i{n}", number=s, correct=(n + s) % 3 == 0) for n in range(80) for s in range(2)]
    records += [pair(f"i{n}", s, correct=n % 2 == 0) for n in range(80) for s in range(2)]
    a = Chosen(load(made_run(tmp_path / "a", records)), "a", 10**6)
    random.Random(3).shuffle(records)
    b = Chosen(load(made_run(tmp_path / "b", records)), "a", 10**6)
    assert a.index == b.index and a.blobs == b.blobs


def test_at_most_so_many_items_a_task_and_it_counts_them_all(tmp_path: Path) -> None:
    records = [sample(f"i{n}", correct=n % 2 == 0) for n in range(100)] + [pair(f"i{n}") for n in range(100)]
    chosen = Chosen(load(made_run(tmp_path, records)), "a", 10**7)
    (task,) = chosen.index["tasks"]
    assert len(task["items"]) == len(chosen.blobs) == choose.MOST_ITEMS == 60
    assert (task["of"], task["differ"]) == (100, 50)
    assert all("0" in "".join(item["right"]) for item in task["items"][:50])


def test_samples_beyond_the_first_are_counted_not_shown(tmp_path: Path) -> None:
    chosen = Chosen(load(made_run(tmp_path, [sample(number=s) for s in range(16)])), "a", 10**6)
    (item,) = chosen.index["tasks"][0]["items"]
    assert item["samples"] == [0, 1, 2, 3] and item["of"] == 16
    assert len(json.loads(chosen.blobs[0])["traces"]) == 4


def test_long_generations_of_many_tasks_stay_within_the_room(tmp_path: Path) -> None:
    records = [
        sample(f"i{n}", f"v{v}", places=list(range(10_000, 11_500)), task=f"task-{t}", correct=v == 0, text="y" * 9000)
        for t in range(6) for n in range(9) for v in range(3)
    ]  # fmt: skip
    chosen = Chosen(load(made_run(tmp_path, records)), "a", 400_000)
    assert 300_000 < sum(len(b) for b in chosen.blobs) <= 400_000
    assert all(task["of"] == 9 for task in chosen.index["tasks"]) and len(chosen.blobs) < 6 * 9
    assert all(len(task["items"]) >= 4 for task in chosen.index["tasks"]), "each task has some"


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    run = made_run(tmp_path, [sample("i0"), sample("i1")])
    whole = (run / "records.jsonl").read_bytes()
    (run / "records.jsonl").write_bytes(whole[:-20])
    assert list(scan(run / "records.jsonl", []).tasks["lab-chain"]) == ["i0"]


def test_records_that_change_meanwhile_are_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_run(tmp_path, [sample("i0"), sample("i1")])
    loaded, scanned = load(run), scan(run / "records.jsonl", [])
    monkeypatch.setattr(choose, "scan", lambda *_: scanned)
    record.rewrite(run / "records.jsonl", [sample("a longer id", text="x" * 50), sample("i1")])
    with pytest.raises(BadRecord, match="changed while it was read"):
        Chosen(loaded, "a", 10**6)


def test_failed_and_missing_samples_have_signs_of_their_own(tmp_path: Path) -> None:
    records = [sample(number=0), sample(number=1, correct=False), pair(finish="failed", correct=False)]
    chosen = Chosen(load(made_run(tmp_path, records)), "a", 10**6)
    names = [v["name"] for v in chosen.index["variants"]]
    right: dict[str, Any] = dict(zip(names, chosen.index["tasks"][0]["items"][0]["right"], strict=True))
    assert right["regular"] == "10" and right["pipo-sft"] == "x-" and right["eagle"] == "--"


def test_prompts_are_shown_where_the_run_keeps_them(tmp_path: Path) -> None:
    run = made_run(tmp_path, [sample("i0", prompt_tokens=48), sample("i1")])
    lines = [{"task": "lab-chain", "item": "i0", "prompt": "what\u202e " + "x" * 9000}, {"other": 1}]
    (run / "items.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    first, second = (json.loads(b) for b in Chosen(load(run), "a", 10**6).blobs)
    assert first["prompt"].startswith("what⟨U+202E⟩ xxx") and len(first["prompt"]) < 4100
    assert "prompt" not in second and first["prompt_tokens"] == 48
