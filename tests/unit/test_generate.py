"""``pipo generate``: stop strings held back and cut out, log-probabilities beside the tokens, the command's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import generate
from bench.generate import Pieces
from pipo.errors import BadInput
from tests.unit.bench_jobs import WORDS, Context, make_home


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


# The job


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


METHODS = {
    "regular": {"name": "regular"}, "mtp": {"name": "mtp"}, "eagle": {"name": "eagle", "depth": 2},
    "pipo": {"name": "pipo", "threshold": 0.5}, "random": {"name": "random", "keep_rate": 0.5},
}  # fmt: skip


def run(home: Path, folder: Path, method: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The job's result and its token events."""
    ctx = Context(folder)
    model = home / ("pipo" if method in ("pipo", "random") else "regular")
    asked = {"model": str(model), "prompt": " ".join(WORDS), "method": METHODS[method], "seed": 3, "max_tokens": 12}
    result = generate.run({**asked, **more}, ctx)
    return result, [data for event, data in ctx.events if event == "token"]


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_string_ends_the_sample_and_is_left_out(method: str, home: Path, tmp_path: Path):
    whole, _ = run(home, tmp_path, method)
    words = whole["text"].split()
    for stop in (f"{words[3]} {words[4]}", words[6], f"{words[5]} ", " "):
        result, events = run(home, tmp_path, method, stop=[stop, "never there"])
        assert result["finish"] == "stop" and result["text"] == whole["text"][: whole["text"].index(stop)]
        assert "".join(e["text"] for e in events) == result["text"]
        assert result["tokens"] < whole["tokens"] == 12
    result, events = run(home, tmp_path, method, stop=["never there"])
    assert result["finish"] == whole["finish"] and result["text"] == whole["text"]
    assert "".join(e["text"] for e in events) == whole["text"]


@pytest.mark.parametrize("method", METHODS)
def test_log_probabilities_come_with_each_token_and_in_the_result(method: str, home: Path, tmp_path: Path):
    plain, events = run(home, tmp_path, method)
    assert "logprobs" not in plain and all("logprobs" not in e for e in events)
    result, events = run(home, tmp_path, method, logprobs=2)
    assert result["text"] == plain["text"] and len(result["logprobs"]) == result["tokens"]
    assert [x for e in events if e["kept"] is not False for x in e["logprobs"]] == result["logprobs"]
    for known in result["logprobs"]:
        assert set(known) == {"token", "text", "logprob", "top"} and known["logprob"] <= known["top"][0]["logprob"]
        assert [set(x) for x in known["top"]] == [{"token", "text", "logprob"}] * 2
        assert known["top"][0]["logprob"] >= known["top"][1]["logprob"]
    assert [x["text"] for x in result["logprobs"] if x["token"] > 2 and x["text"]] == result["text"].split()
    rejected = [e for e in events if e["kept"] is False]
    assert all(len(e["logprobs"]) == (method in ("pipo", "random")) for e in rejected)
    assert all(not e["logprobs"][0]["top"] for e in rejected if e["logprobs"])


def test_settings_of_the_request_are_refused_by_name(home: Path, tmp_path: Path):
    with pytest.raises(BadInput, match=r"logprobs 101 must lie in \[0, 100\]"):
        run(home, tmp_path, "regular", logprobs=101)
    with pytest.raises(BadInput, match="stop string is empty"):
        run(home, tmp_path, "regular", stop=[""])
    with pytest.raises(BadInput, match="min_p 2"):
        run(home, tmp_path, "regular", sampling={"min_p": 2})


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
