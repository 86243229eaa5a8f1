"""A stream gives the same answer however its bytes are cut, and no bytes make it raise anything but BadStream."""

from __future__ import annotations

import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from bench.load.records import RequestRecord
from bench.load.sse import Answer, BadStream, Lines
from tests.unit.load_servers import DONE, event

STREAM = b"".join(
    [b": hello\r\n\r\n", event("a ", token_ids=[5, 6]), event("é☃ ", token_ids=[7]).replace(b"\n", b"\r\n"),
     event("b", token_ids=[8, 9]), event("", "length"), DONE]
)  # fmt: skip


def record() -> RequestRecord:
    return RequestRecord(point="p", variant="v", index=0, due_s=0, sent_s=0, ended_s=0)


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_cuts_change_times_but_not_what_came(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    answer = Answer(0.0)
    for i, (a, b) in enumerate(itertools.pairwise(places)):
        answer.feed(STREAM[a:b], float(i))
    answer.end(99.0)
    r = record()
    answer.fill(r)
    assert (r.text, r.ids, r.finish, r.tokens) == ("a é☃ b", [5, 6, 7, 8, 9], "tokens", 5)
    assert r.chunk_s == sorted(set(r.chunk_s)) and r.first_s == r.chunk_s[0] <= r.pair_s


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_bytes_end_in_an_answer_or_a_reason(parts: list[bytes]) -> None:
    answer = Answer(0.0)
    with contextlib.suppress(BadStream):
        for i, part in enumerate(parts):
            answer.feed(part, float(i))
        answer.end(99.0)
    r = record()
    answer.fill(r)
    assert r.tokens >= 0


@given(st.lists(st.sampled_from([b"data: ", b"\n", b"\r\n", b"x", b":", b"data:{}", b"\n\n"]), max_size=60), st.data())
def test_lines_do_not_depend_on_cuts(words: list[bytes], data: st.DataObject) -> None:
    text = b"".join(words)
    whole = Lines()
    want = [*whole.feed(text), *whole.rest()]
    cut = data.draw(st.integers(0, len(text)))
    parts = Lines()
    assert [*parts.feed(text[:cut]), *parts.feed(text[cut:]), *parts.rest()] == want
