"""Points on engines: greedy tokens under load are those alone, times by step, timeouts, closed loops, cancelling."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from bench.load import overhead
from bench.load.drive import Drive, How
from bench.load.records import PointRecord
from bench.load.workload import Ask
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import Cancelled
from pipo.model.testing import tiny_model

METHODS = {
    "regular": Method("regular"), "mtp": Method("mtp"), "eagle": Method("eagle", depth=2),
    "pipo": Method("pipo", threshold=0.5),
}  # fmt: skip
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def engines() -> dict[bool, TorchEngine]:
    return {pipo: TorchEngine(tiny_model(pipo=pipo, vocab=64, layers=2), max_batch=3) for pipo in (False, True)}


def asks(count: int = 8, gap: float = 0.002, tokens: int = 9) -> list[Ask]:
    return [
        Ask(i, gap * i, i, ids=tuple(range(5 + i, 12 + 2 * i)), max_tokens=tokens + i, ignore_eos=True)
        for i in range(count)
    ]


def drive(engine: Any, method: Method, **more: Any) -> Drive:
    return Drive(engine, method, GREEDY, "p", "v", **more)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("concurrency", [None, 2])
def test_greedy_tokens_under_load_are_those_alone(
    engines: dict[bool, TorchEngine], name: str, concurrency: int | None
) -> None:
    engine, method = engines[name == "pipo"], METHODS[name]
    driven = drive(engine, method).run(asks(), How(concurrency))
    assert [r.index for r in driven.records] == list(range(8)) and 1 < driven.most <= 8
    for a, r in zip(asks(), driven.records):
        alone = Request(
            id=f"alone{a.number}",
            prompt=a.ids,
            method=method,
            sampling=GREEDY,
            max_tokens=a.max_tokens,
            ignore_eos=True,
        )
        want = [t for e in engine.generate([alone])[alone.id] for t in e.tokens]
        assert r.ids == want and r.tokens == len(want) == a.max_tokens and r.finish == "tokens"


def test_a_pair_is_one_chunk_and_a_token_is_one(engines: dict[bool, TorchEngine]) -> None:
    pairs = drive(engines[True], Method("pipo", threshold=0.0)).run(asks(2), How()).records
    singles = drive(engines[False], METHODS["regular"]).run(asks(2), How()).records
    for r in pairs:
        assert set(r.chunk_tokens[:-1]) == {2} and len(r.chunk_s) == r.slots and r.kept >= r.offered - 1 > 0
        assert r.first_s <= r.chunk_s[0] == r.pair_s, "the first step's token may come before its draft"
    for r in singles:
        assert set(r.chunk_tokens) == {1} and r.first_s == r.chunk_s[0] and r.pair_s == r.chunk_s[1]


def test_times_ascend_from_due_to_the_end(engines: dict[bool, TorchEngine]) -> None:
    driven = drive(engines[True], METHODS["pipo"]).run(asks(6, 0.0), How())
    for r in driven.records:
        assert r.due_s <= r.sent_s and 0 <= r.queue_s <= r.first_s <= r.pair_s
        assert r.chunk_s == sorted(r.chunk_s) and r.due_s + r.chunk_s[-1] == pytest.approx(r.ended_s, abs=1e-3)
        assert r.ended_s <= driven.wall_s
    late = [r.queue_s for r in driven.records]
    assert max(late) > 2 * min(late), "three rows: the others wait in the queue"
    assert driven.own_s is not None and 0 <= driven.own_s < driven.wall_s


def test_requests_that_come_later_are_not_sent_before(engines: dict[bool, TorchEngine]) -> None:
    driven = drive(engines[False], METHODS["regular"]).run(asks(4, 0.08, 3), How())
    assert [r.due_s for r in driven.records] == pytest.approx([0.0, 0.08, 0.16, 0.24])
    assert all(0 <= r.sent_s - r.due_s < 0.06 for r in driven.records) and driven.wall_s > 0.24


def test_in_a_closed_loop_a_request_is_due_when_another_ends(engines: dict[bool, TorchEngine]) -> None:
    driven = drive(engines[False], METHODS["regular"]).run(asks(6), How(concurrency=2))
    ends = sorted(r.ended_s for r in driven.records)
    assert driven.most == 2
    assert sorted(r.due_s for r in driven.records)[2:] == pytest.approx(ends[:4], abs=1e-6)


def test_a_duration_ends_a_closed_loop(engines: dict[bool, TorchEngine]) -> None:
    many = [a._replace(number=i) for i in range(100_000) for a in asks(1)]
    driven = drive(engines[False], METHODS["regular"]).run(many, How(concurrency=2, duration_s=0.2))
    assert 2 <= len(driven.records) < 100_000 and max(r.due_s for r in driven.records) < 0.25


def test_a_request_that_cannot_fit_fails_alone(engines: dict[bool, TorchEngine]) -> None:
    given = asks(3)
    given[1] = given[1]._replace(ids=(5,) * 100_000)
    given[2] = given[2]._replace(ids=(5, 10**6))
    records = drive(engines[False], METHODS["regular"]).run(given, How()).records
    assert [r.status for r in records] == ["ok", "failed", "failed"]
    assert "shorten it" in (records[1].error or "") and "vocabulary" in (records[2].error or "")


def test_chunks_of_a_server_that_came_at_once_are_one() -> None:
    engine, now = overhead.NullEngine(4), time.perf_counter()
    times = iter([now + 1.0, now + 1.00001, now + 1.5, now + 1.9])
    plain = engine.step
    engine.step = lambda: [msgspec.structs.replace(e, time=next(times)) for e in plain()]  # type: ignore[method-assign]
    (r,) = drive(engine, METHODS["regular"], queues=False).run(asks(1), How()).records
    assert r.chunk_tokens == [4, 2, 2] and r.queue_s == -1 and len(r.chunk_s) == 3


def test_requests_that_cannot_fit_end_a_closed_loop(engines: dict[bool, TorchEngine]) -> None:
    given = [a._replace(ids=(5,) * 100_000) if a.number != 2 else a for a in asks(5)]
    records = drive(engines[False], METHODS["regular"]).run(given, How(concurrency=2)).records
    assert [r.status for r in records] == ["failed", "failed", "ok", "failed", "failed"]


def test_an_engine_that_loses_a_request_does_not_hang_the_job() -> None:
    engine = overhead.NullEngine(3)
    losing = drive(engine, METHODS["regular"], progress=lambda n: engine._left.clear())
    records = losing.run([a._replace(due_s=0.0) for a in asks(3)], How()).records
    assert {r.status for r in records} <= {"ok", "failed"} and len(records) == 3
    engine = overhead.NullEngine(10)
    engine.step = lambda: engine._left.clear() or []  # type: ignore[method-assign, func-returns-value]
    (r,) = drive(engine, METHODS["regular"]).run(asks(1), How()).records
    assert r.status == "failed" and r.error == "the engine lost it"


def test_a_request_out_of_time_is_cancelled(engines: dict[bool, TorchEngine]) -> None:
    given = [a._replace(max_tokens=20 if a.number else 400) for a in asks(2)]
    records = drive(engines[False], METHODS["regular"]).run(given, How(timeout_s=0.06)).records
    assert records[0].status == "timeout" and "after it was due" in (records[0].error or "")
    assert records[0].tokens > 0 and records[1].status in ("ok", "timeout") and not engines[False].busy


def test_a_cancelled_job_leaves_the_engine_idle(engines: dict[bool, TorchEngine]) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        drive(engines[True], METHODS["pipo"], check=check).run(asks(), How())
    assert not engines[True].busy


def test_progress_hears_of_every_end(engines: dict[bool, TorchEngine]) -> None:
    heard: list[int] = []
    drive(engines[False], METHODS["regular"], progress=heard.append).run(asks(5), How())
    assert heard == [1, 2, 3, 4, 5]


# The client itself


@pytest.mark.parametrize("measure", [overhead.of_engine, overhead.of_endpoint])
def test_the_client_is_measured_against_what_answers_at_once(measure: Any) -> None:
    began = time.perf_counter()
    c = measure()
    assert time.perf_counter() - began < 30
    assert c.requests == 100 and 0 < c.request_s["p50"] <= c.request_s["p99"] < 1
    assert 0 < c.chunk_s < 0.01 and 0 < c.send_delay_s["p50"] <= c.send_delay_s["p99"] < 1


def point(**more: Any) -> PointRecord:
    usual = {"point": "p", "variant": "v", "mode": "rate", "load": 1.0, "requests": 4, "wall_s": 4.0}
    return PointRecord(**(usual | more))


def client(side: Any) -> Any:
    return overhead.ClientRecord(
        side=side, requests=100, chunks=64, request_s={"p50": 0.002, "p99": 0.003}, chunk_s=0.0002,
        send_delay_s={"p50": 0.001, "p99": 0.002},
    )  # fmt: skip


def test_a_client_that_costs_little_is_not_warned_of() -> None:
    assert overhead.warnings(client("endpoint"), point(cpu_s=1.0), {"ttft": 0.05, "gap": 0.01}) == []
    assert overhead.warnings(client("engine"), point(own_s=0.1), {"ttft": 0.001, "gap": 0.001}) == []


def test_a_client_that_costs_over_a_twentieth_is_warned_of() -> None:
    said = overhead.warnings(client("endpoint"), point(lag_s={"p99": 0.003}), {"ttft": 0.03, "gap": 0.002})
    assert len(said) == 3 and "7% of the median first token" in said[0] and "10% of the median gap" in said[1]
    assert "late by 3.0 ms" in said[2]
    (disturbed,) = overhead.warnings(client("engine"), point(waited_s=1.0, own_s=0.01), {"ttft": 0.03, "gap": 0.002})
    assert "for 25% of the time this process was ready and had no CPU" in disturbed
    (own,) = overhead.warnings(client("engine"), point(own_s=0.4), {"ttft": 0.03, "gap": 0.002})
    assert "10% of the time" in own
