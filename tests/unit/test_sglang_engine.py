"""Requests as SGLang gets them, chunks as events, and an engine whose server dies. The real server: tests/runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipo.engine.types import Draft, Event, Logprob, Method, Request, Sampling
from pipo.errors import BadInput, JobFailed
from pipo.sglang import launch
from pipo.sglang.engine import SglangEngine
from pipo.sglang.facts import Facts, read_facts
from pipo.sglang.launch import ServerSettings
from pipo.sglang.wire import Assembler, Chunk, MetaInfo, Room, check, payload
from tests.unit.sglang_fakes import SERVER, model_folder, pipo_folder, script_launch

PIPO = Method("pipo", threshold=0.5)
ROOM = Room(64, 1000)
PAD, EOS = 0, 2


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return read_facts(pipo_folder(tmp_path / "pipo"))


@pytest.fixture
def plain(tmp_path: Path) -> Facts:
    return read_facts(model_folder(tmp_path / "plain"))


def request(method: Method = PIPO, **more: Any) -> Request:
    return Request(**{"id": "r", "prompt": (5, 6, 7), "method": method, "max_slots": 9, **more})


def chunk(ids: list[int], slots: list[Any] | None = None, finish: dict[str, Any] | None = None, **more: Any) -> Chunk:
    return Chunk(ids, MetaInfo(finish_reason=finish, pipo_slots=slots, **more))


LENGTH = {"type": "length", "length": 9}


# Requests


def test_a_pipo_request_carries_threshold_and_slots_and_counts_tokens_apart(facts: Facts) -> None:
    r = request(max_tokens=5, stop=("x",), sampling=Sampling(temperature=0, top_p=0.9))
    body = payload(r, "000001", check(r, facts, ROOM, True), PAD)
    params = body["sampling_params"]
    assert params["custom_params"] == {"threshold": 0.5, "max_slots": 9, "details": True}
    assert (params["max_new_tokens"], params["top_k"], params["stop"]) == (5, -1, ["x"])
    assert body["input_ids"] == [5, 6, 7] and body["stream"] and "return_logprob" not in body


def test_a_regular_request_counts_slots_as_tokens_and_never_draws_pad(plain: Facts) -> None:
    r = request(Method("regular"), max_slots=9, max_tokens=20, logprobs=3)
    body = payload(r, "000001", check(r, plain, ROOM, False), PAD)
    assert body["sampling_params"]["max_new_tokens"] == 9 and body["top_logprobs_num"] == 3
    assert body["sampling_params"]["logit_bias"]["0"] < -1e8


def test_a_budget_ends_where_positions_do(facts: Facts, plain: Facts) -> None:
    assert check(request(max_slots=500), facts, ROOM, False) == 62
    assert check(request(Method("regular"), max_slots=500), plain, ROOM, False) == 61


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_slots": None}, "has no budget"),
        ({"max_slots": 0}, "max_slots 0 must be at least 1"),
        ({"prompt": ()}, "the prompt is empty"),
        ({"prompt": (5, 128)}, "prompt token 128 is outside the vocabulary of 128"),
        ({"prompt": (5, 0)}, r"the prompt has PAD \(0\) at place 1"),
        ({"prompt": (5,) * 200}, "has 100 pairs, the model 64 positions"),
        ({"stop": ("x",)}, "need an engine that knows the tokenizer"),
        ({"stop": ("",)}, "a stop string is empty"),
        ({"logprobs": 101}, "logprobs 101 must lie in"),
        ({"sampling": Sampling(presence_penalty=3)}, "presence_penalty 3 must lie in"),
    ],
)
def test_what_breaks_a_rule_is_refused_here(more: dict[str, Any], words: str, facts: Facts) -> None:
    with pytest.raises(BadInput, match=words):
        check(request(**more), facts, ROOM, False)


def test_what_the_server_has_no_room_for_is_refused(facts: Facts) -> None:
    with pytest.raises(BadInput, match="2 prompt pairs and 9 slots need 11 places, the server's cache has 10"):
        check(request(), facts, Room(64, 10), False)


# Chunks


def test_a_chunk_of_two_pairs_is_two_slots(facts: Facts) -> None:
    events = Assembler(request(), facts).events(chunk([7, 8, 9], [[8.0, True, 0.9], None, [4.0, False, 0.1]]), 1.5)
    assert events == [
        Event(request_id="r", time=1.5, tokens=(7, 8), places=(7, 8), slots=1, drafts=(Draft(8, True, 0.9),)),
        Event(request_id="r", time=1.5, tokens=(9,), places=(9, PAD), slots=1, drafts=(Draft(4, False, 0.1),)),
    ]


@pytest.mark.parametrize(
    ("finish", "more", "expected", "drafts"),
    [
        ({"type": "stop", "matched": EOS}, {}, "eos", 0),
        ({"type": "stop", "matched": "x"}, {"stop": ("x",)}, "stop", 0),
        (LENGTH, {"max_tokens": 1}, "tokens", 0),
        (LENGTH, {}, "slots", 1),
    ],
)
def test_a_first_token_that_ends_the_request_offers_no_draft(
    finish: dict[str, Any], more: dict[str, Any], expected: str, drafts: int, facts: Facts
) -> None:
    (event,) = Assembler(request(**more), facts).events(chunk([9], [[4.0, False, 0.1]], finish), 1.0)
    assert (event.finish, len(event.drafts), event.places) == (expected, drafts, (9, PAD))


def test_an_end_of_sequence_at_the_budget_is_an_end_of_sequence(facts: Facts) -> None:
    (event,) = Assembler(request(), facts).events(chunk([9, EOS], [[2.0, True, 0.9], None], LENGTH), 1.0)
    assert event.finish == "eos"
    (event,) = Assembler(request(ignore_eos=True), facts).events(
        chunk([9, EOS], [[2.0, True, 0.9], None], LENGTH), 1.0
    )  # fmt: skip
    assert event.finish == "slots"


def test_a_stop_string_at_the_budget_is_a_stop(facts: Facts) -> None:
    made = Assembler(request(stop=("9 8",)), facts, lambda ids: " ".join(map(str, ids)))
    (event,) = made.events(chunk([9, 8], [[8.0, True, 0.9], None], LENGTH), 1.0)
    assert event.finish == "stop"


def test_regular_tokens_are_slots(plain: Facts) -> None:
    events = Assembler(request(Method("regular")), plain).events(chunk([7, 8], None, LENGTH), 1.0)
    assert [(e.tokens, e.places, e.slots, e.finish) for e in events] == [
        ((7,), (7,), 1, None),
        ((8,), (8,), 1, "slots"),
    ]


def test_a_pass_with_drafts_counts_the_kept_ones_and_the_rest(plain: Facts) -> None:
    made = Assembler(request(Method("eagle", depth=3)), plain)
    (first,) = made.events(chunk([7]), 1.0)
    (later,) = made.events(chunk([8, 9], None, LENGTH), 2.0)
    assert (first.tokens, first.drafts) == ((7,), ())
    assert later.drafts == (Draft(8, True), Draft(-1, False), Draft(-1, False)) and later.slots == 2


def test_unverified_drafts_are_all_kept(plain: Facts) -> None:
    made = Assembler(request(Method("mtp")), plain)
    made.events(chunk([7]), 1.0)
    (event,) = made.events(chunk([8, 9]), 2.0)
    assert event.drafts == (Draft(8, True),) and event.tokens == (8, 9)


def test_log_probabilities_follow_their_tokens_and_drafts(facts: Facts) -> None:
    scores = {
        "output_token_logprobs": [(-0.1, 7, None), (-0.2, 8, None)],
        "output_top_logprobs": [[(-0.1, 7, None)], None],
    }
    slots = [[8.0, True, 0.9, -0.2], None]
    (event,) = Assembler(request(logprobs=1), facts).events(chunk([7, 8], slots, **scores), 1.0)
    assert event.logprobs == (Logprob(-0.1, ((7, -0.1),)), Logprob(-0.2)) and event.drafts[0].logprob == -0.2
    (event,) = Assembler(request(), facts).events(chunk([7, 8], slots, **scores), 1.0)
    assert event.logprobs == () and event.drafts[0].logprob is None, "a batch mate asked, not this request"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Chunk(error={"message": "threshold 2 must be"}), "threshold 2 must be"),
        (chunk([7], None), "no word on its pairs"),
        (chunk([7], [None]), "no word on its pairs"),
        (chunk([], [], {"type": "abort", "message": "too long"}), "too long"),
        (
            chunk([7], [[8.0, False, 0.1]], {"type": "stop", "matched": "NaN happened"}),
            "NaN happened; check the weights",
        ),
    ],
)
def test_what_goes_wrong_is_a_failed_request_with_its_reason(bad: Chunk, words: str, facts: Facts) -> None:
    event = Assembler(request(), facts).events(bad, 1.0)[-1]
    assert event.finish == "failed" and words in (event.error or "")


# An engine over a server that fails


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SglangEngine]:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("PIPO_HOME", str(tmp_path))
    monkeypatch.setattr(launch, "plan", lambda *args, **more: script_launch(tmp_path, SERVER))
    made = SglangEngine(model_folder(tmp_path / "plain"), Method("regular"), ServerSettings())
    yield made
    made.close()


def ask(*names: str, slots: int = 6) -> list[Request]:
    return [request(Method("regular"), id=name, max_slots=slots) for name in names]


def test_events_come_one_a_request_and_step_and_end(engine: SglangEngine) -> None:
    for r in ask("a", "b"):
        engine.submit(r)
    seen: dict[str, list[Event]] = {"a": [], "b": []}
    while engine.busy:
        events = engine.step()
        assert len({e.request_id for e in events}) == len(events)
        for e in events:
            seen[e.request_id].append(e)
    for events in seen.values():
        assert [t for e in events for t in e.tokens] == [10, 11, 12, 13, 14, 15] and events[-1].finish == "slots"
        assert events[0].time >= engine.submitted[events[0].request_id]


def test_a_cancelled_request_ends_at_the_next_step_and_at_the_server(engine: SglangEngine, tmp_path: Path) -> None:
    engine.submit(ask("a", slots=60)[0])
    engine.step()
    engine.cancel("a")
    assert engine.busy and [e.finish for e in engine.step()] == ["cancelled"] and not engine.busy
    assert engine.generate(ask("b"))["b"][-1].finish == "slots"
    posts = (tmp_path / "posts").read_text().split("\n")
    assert posts[0].startswith("/abort_request") and json.loads(posts[0].split(" ", 1)[1])["rid"] == "000000000001"


def test_a_server_that_dies_is_started_again_and_unfinished_requests_begin_anew(
    engine: SglangEngine, tmp_path: Path
) -> None:
    (tmp_path / "dies").write_text("1")
    heard: list[str] = []
    engine.attach(heard.append)
    for r in ask("a", "b"):
        engine.submit(r)
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    assert any(e.restarted for e in events)
    for name in ("a", "b"):
        own = [e for e in events if e.request_id == name]
        again = next((i for i, e in enumerate(own) if e.restarted), 0)
        assert [t for e in own[again:] for t in e.tokens] == [10, 11, 12, 13, 14, 15]
    assert any("the device is lost" in text and "started again" in text for text in heard), heard


def test_a_second_death_ends_the_job_with_the_reason(engine: SglangEngine, tmp_path: Path) -> None:
    (tmp_path / "dies").write_text("2")
    with pytest.raises(JobFailed, match="for the second time: RuntimeError: the device is lost"):
        engine.generate(ask("a"))
    assert not engine.busy
    engine.attach()
    assert len(engine.generate(ask("b"))["b"]) == 6, "the next job finds an engine that works"


def test_weights_are_reloaded_with_prefixes_forgotten(engine: SglangEngine, tmp_path: Path) -> None:
    engine.generate(ask("a"))
    engine.reload(model_folder(tmp_path / "next"))
    path, body = (tmp_path / "posts").read_text().strip().split(" ", 1)
    assert path == "/update_weights_from_disk" and json.loads(body)["flush_cache"] is True


def test_one_server_a_process(engine: SglangEngine, tmp_path: Path) -> None:
    engine.generate(ask("a"))
    first = engine._server
    other = SglangEngine(model_folder(tmp_path / "other"), Method("regular"), ServerSettings())
    try:
        other.generate(ask("b"))
        assert first is not None and not first.alive
    finally:
        other.close()


def test_other_settings_start_another_server(engine: SglangEngine) -> None:
    engine.generate(ask("a"))
    engine.resize(max_batch=128)
    assert engine.max_batch == 128 and engine._server is None
    engine.submit(ask("b")[0])
    with pytest.raises(BadInput, match="settings cannot change while requests run"):
        engine.resize(max_batch=8)
    with pytest.raises(BadInput, match="decodes by regular, not by pipo"):
        engine.submit(request(id="c"))
