"""``pipo generate``: stop strings held back and cut out, log-probabilities beside the tokens, the command's flags."""

from __future__ import annotations

from typing import Any

import pytest

from bench import generate
from bench.generate import Pieces
from pipo.errors import BadInput


class Letters:
    """A tokenizer of characters; an id is a code point, 0 is special."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(i) for i in ids if i or not skip_special_tokens)


def pieces(text: str, *stops: str, finish: str = "tokens") -> list[str]:
    """What is sent after each character."""
    made, ids = Pieces(Letters(), stops), [ord(c) for c in text]
    return [made.next(ids[: n + 1], finish if n == len(ids) - 1 else None) for n in range(len(ids))]


def test_without_stop_strings_all_is_sent_at_once():
    assert pieces("abc") == ["a", "b", "c"]


def test_what_may_become_a_stop_string_is_held_back():
    assert pieces("a = bc", "= c") == ["a", " ", "", "", "= b", "c"]
    assert pieces("aab", "aac", "abd") == ["", "", "aab"], "the end of the sample sends what was held"
    assert pieces("aaab", "aab", finish="stop") == ["", "", "a", ""]
    assert pieces("x", "yyyyyyyyyy") == ["x"], "a text shorter than the stop string"


def test_the_stop_string_is_cut_out_the_first_one_where_there_are_two():
    assert "".join(pieces("one two three", "three", finish="stop")) == "one two "
    made, ids = Pieces(Letters(), ("o thr", "two th")), [ord(c) for c in "one two thr"]
    assert made.next(ids[:5]) == "one " and made.next(ids, "stop") == "", "one token may complete both"
    assert made.text(ids, "stop") == "one "
    assert "".join(pieces("stop", "stop", finish="stop")) == ""


@pytest.mark.parametrize("stops", [(), ("b",), ("aba",), ("ab", "bb"), ("abc", "cab")])
def test_pieces_together_are_the_text(stops: tuple[str, ...]):
    for number in range(3**6):
        text = "".join("abc"[number // 3**i % 3] for i in range(6))
        ends = [e for e in range(1, 7) if any(s in text[:e] for s in stops)]
        finish = "stop" if ends else "tokens"
        whole = text[: ends[0]] if ends else text
        sent = "".join(pieces(whole, *stops, finish=finish))
        assert sent == Pieces(Letters(), stops).text([ord(c) for c in whole], finish)
        assert not any(s in sent for s in stops) and whole.startswith(sent)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(BadInput, match="stop string is empty"):
        generate.GenerateSpec(model="m", prompt="p", stop=["a", ""])


# The command


def test_the_command_passes_stops_and_logprobs(monkeypatch: pytest.MonkeyPatch):
    from pipo.cli import follow, main

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(follow, "run_job", lambda kind, spec, **how: asked.append(spec))
    argv = ["generate", "lab/base", "a ?", "--stop", " so", "--stop", ";", "--logprobs", "0", "--min-p", "0.1"]
    with pytest.raises(SystemExit) as end:
        main([*argv, "--frequency-penalty", "0.5"])
    assert end.value.code in (0, None)
    assert asked[0]["stop"] == [" so", ";"] and asked[0]["logprobs"] == 0
    assert asked[0]["sampling"] == {"min_p": 0.1, "frequency_penalty": 0.5}


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--stop", ""], ["empty", "--stop"]),
        (["--logprobs", "-1"], ["--logprobs", "0"]),
        (["--logprobs", "101"], ["--logprobs", "100"]),
        (["--min-p", "1.5"], ["min_p 1.5"]),
    ],
)
def test_bad_flags_are_refused_before_a_job_is_submitted(flags, words, capsys: pytest.CaptureFixture[str]):
    from pipo.cli import main

    with pytest.raises(SystemExit) as end:
        main(["generate", "lab/base", "a ?", *flags])
    said = capsys.readouterr().err
    assert end.value.code == 2 and all(w in said for w in words), said


def test_log_probabilities_are_shown_after_the_text(capsys: pytest.CaptureFixture[str]):
    from pipo.cli.generate import _Stream

    known = {"token": 5, "text": "a", "logprob": -0.25}
    _Stream(silent=False).end({"text": "a b", "tokens": 2, "slots": 2, "finish": "stop", "logprobs": [
        {**known, "top": [known, {"token": 6, "text": "\n", "logprob": -1.5}]},
    ]})  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a b" and lines[-1].split() == ["'a'", "-0.2500", "'a'", "-0.2500", r"'\n'", "-1.5000"]
