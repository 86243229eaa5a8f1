"""Reading of training files: shapes, borders of what is supervised, what is left out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipo.data.lines import Noted
from pipo.data.rows import Row, read_prompts, read_rows
from pipo.errors import BadInput, BadRecord
from pipo.lab import items
from pipo.lab.tokenizer import lab_tokenizer
from tests.unit.data_chat import LATE_TEMPLATE, chat, chat_tokenizer, write

QWEN = chat_tokenizer()
LAB = lab_tokenizer()
PLAIN = {"prompt": "<bos> chain a = 4 ?", "response": "a is 4 \\boxed{ 4 } <eos>"}


def one(tmp_path: Path, row: Any, tokenizer: Any = QWEN, **settings: Any) -> Row:
    (found,) = read_rows(write(tmp_path / "one.jsonl", row), tokenizer, **settings).rows
    return found


def test_texts_are_taken_as_they_are(tmp_path: Path) -> None:
    row = one(tmp_path, PLAIN, LAB)
    assert row.prompt == LAB.encode(PLAIN["prompt"]) and row.response == LAB.encode(PLAIN["response"])
    assert row.response[-1] == LAB.eos_token_id and row.source == "one.jsonl:1"


def test_thinking_prefix_belongs_to_the_prompt(tmp_path: Path) -> None:
    row = one(tmp_path, chat("what is two and two", "<think>\nso it is\n</think>\n\nfour"))
    assert (
        QWEN.decode(row.prompt) == "<|im_start|>user\nwhat is two and two<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert QWEN.decode(row.response) == "so it is\n</think>\n\nfour<|im_end|>"
    assert row.prompt[-2:] == QWEN.encode("<think>\n"), "two tokens"
    assert row.response[-1] == QWEN.eos_token_id, "the line break behind EOS is cut off"


def test_thinking_off_puts_the_empty_thought_into_the_prompt(tmp_path: Path) -> None:
    row = one(tmp_path, chat("two", "four"), thinking=False)
    assert QWEN.decode(row.prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert QWEN.decode(row.response) == "four<|im_end|>"


def test_thinking_on_is_this_templates_default(tmp_path: Path) -> None:
    row = chat("two", "<think>\nso\n</think>\n\nfour")
    assert one(tmp_path, row, thinking=True) == one(tmp_path, row)


def test_reasoning_content_is_what_was_thought(tmp_path: Path) -> None:
    parted = {"role": "assistant", "content": "four", "reasoning_content": "so"}
    row = {"messages": [{"role": "user", "content": "two"}, parted]}
    assert one(tmp_path, row) == one(tmp_path, chat("two", "<think>\nso\n</think>\n\nfour"))


def test_prefix_that_the_generation_prompt_lacks_is_moved_to_the_prompt(tmp_path: Path) -> None:
    late = chat_tokenizer(LATE_TEMPLATE)
    asked = late.apply_chat_template([{"role": "user", "content": "two"}], tokenize=False, add_generation_prompt=True)
    assert asked.endswith("assistant\n"), "this template leaves the marker to the model"
    row = chat("two", "<think>\nso\n</think>\n\nfour")
    assert one(tmp_path, row, late)[:2] == one(tmp_path, row)[:2]


def test_only_the_last_answer_is_supervised(tmp_path: Path) -> None:
    talk = [("system", "it is"), ("user", "two"), ("assistant", "four"), ("user", "and two"), ("assistant", "so")]
    row = one(tmp_path, {"messages": [{"role": r, "content": c} for r, c in talk]}, thinking=False)
    assert QWEN.decode(row.response) == "so<|im_end|>"
    assert "four<|im_end|>" in QWEN.decode(row.prompt) and QWEN.decode(row.prompt).startswith(
        "<|im_start|>system\nit is"
    )


def test_a_system_text_may_stand_beside_the_messages(tmp_path: Path) -> None:
    beside = chat("two", "four", system="it is")
    inside = {"messages": [{"role": "system", "content": "it is"}, *chat("two", "four")["messages"]]}
    assert one(tmp_path, beside, thinking=False) == one(tmp_path, inside, thinking=False)


def test_prompt_and_whole_are_one_sequence(tmp_path: Path) -> None:
    """Nothing is lost or doubled at the border: both parts together are the template's text up to EOS."""
    row = chat("what is two", "<think>\nso it is\nfour\n</think>\n\nfour and two")
    found = one(tmp_path, row)
    assert QWEN.decode(found.prompt + found.response) + "\n" == QWEN.apply_chat_template(
        row["messages"], tokenize=False
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text("atwo \n", min_size=1), thought=st.text("so it\n", min_size=1), answer=st.text("four 4\n"))
def test_border_lies_behind_the_thinking_prefix(tmp_path: Path, question: str, thought: str, answer: str) -> None:
    core = thought.strip("\n")
    assume(core.strip() and not core[0].isspace())  # a thought that begins with blanks may merge with the prefix
    row = one(tmp_path, chat(question, f"<think>\n{thought}\n</think>\n\n{answer}x"))
    prefix = QWEN.encode("<think>\n")
    assert row.prompt[-len(prefix) :] == prefix and row.response[: len(prefix)] != prefix
    assert QWEN.decode(row.response) == f"{core}\n</think>\n\n{(answer + 'x').lstrip(chr(10))}<|im_end|>"
    assert row.response.count(QWEN.eos_token_id) == 1


def test_prompts_end_with_the_thinking_prefix(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", {"messages": chat("two", "four")["messages"][:1]}, chat("two", "four"))
    first, second = read_prompts(file, QWEN)
    assert first == second, "an answer is left out"
    assert first[-2:] == QWEN.encode("<think>\n")
    assert read_prompts(file, QWEN, thinking=False)[0][-1:] == QWEN.encode("</think>\n\n")[-1:]


def test_prompts_of_texts_are_taken_as_they_are(tmp_path: Path) -> None:
    found = read_prompts(write(tmp_path / "p.jsonl", PLAIN, {"prompt": PLAIN["prompt"]}, end='{"pr'), LAB)
    assert found == [LAB.encode(PLAIN["prompt"])] * 2
    assert found.report.torn == Noted(1, [3]) and found.report.rows == 2


def test_rows_equal_those_read_one_by_one(tmp_path: Path) -> None:
    """Tokenised in packs, kept packed: the same ids as each text alone."""
    rows = [{"prompt": i.prompt, "response": i.solution} for i in items("lab-chain", "valid", 300)]
    found = read_rows(write(tmp_path / "many.jsonl", *rows), LAB)
    slow = [Row(LAB.encode(r["prompt"]), LAB.encode(r["response"]), f"many.jsonl:{n}") for n, r in enumerate(rows, 1)]
    assert list(found.rows) == slow and found.rows[3:5] == slow[3:5] and found.rows[-1] == slow[-1]
    assert found.rows.lengths() == [len(r.prompt) + len(r.response) for r in slow]
    assert found.rows.response_lengths() == [len(r.response) for r in slow]
    assert found.report.tokens == sum(found.rows.lengths())


def test_over_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    long = {"prompt": PLAIN["prompt"], "response": "a is 4 so " * 9 + "<eos>"}
    size = len(LAB.encode(PLAIN["prompt"])) + len(LAB.encode(PLAIN["response"]))
    found = read_rows(write(tmp_path / "x.jsonl", long, PLAIN, *[long] * 6), LAB, max_length=size)
    assert [r.source for r in found.rows] == ["x.jsonl:2"]
    assert found.report.over_long == Noted(7, [1, 3, 4, 5, 6])
    assert str(found.report) == f"1 rows, {size} tokens; over-long and left out: 7 (lines 1, 3, 4, 5, 6, ...)"
    with pytest.raises(BadRecord, match=rf"all 8 rows are longer than max_length {size - 1}"):
        read_rows(tmp_path / "x.jsonl", LAB, max_length=size - 1)


def test_a_torn_last_line_is_left_out_and_a_whole_one_kept(tmp_path: Path) -> None:
    torn = read_rows(write(tmp_path / "t.jsonl", PLAIN, end=json.dumps(PLAIN)[:-3]), LAB)
    assert (len(torn.rows), torn.report.torn) == (1, Noted(1, [2]))
    whole = read_rows(write(tmp_path / "w.jsonl", PLAIN, end=json.dumps(PLAIN)), LAB)
    assert (len(whole.rows), whole.report.torn) == (2, Noted()), "a file without a last line break is a file"


def test_blank_lines_are_passed_over_and_counted_as_lines(tmp_path: Path) -> None:
    found = read_rows(write(tmp_path / "b.jsonl", PLAIN, "", PLAIN), LAB)
    assert [r.source for r in found.rows] == ["b.jsonl:1", "b.jsonl:3"]


def test_responses_without_eos_are_told(tmp_path: Path) -> None:
    found = read_rows(write(tmp_path / "e.jsonl", PLAIN, {**PLAIN, "response": "a is 4"}), LAB)
    assert found.report.no_eos == Noted(1, [2]) and "without EOS at the end: 1 (line 2)" in str(found.report)


MESSAGES = chat("two", "four")["messages"]
BAD = {
    "no JSON": ('{"prompt": "a",', ["is no JSON", "'prompt' and 'response'"]),
    "no object": ("[1]", ["[1]", "no JSON object"]),
    "other keys": ({"text": "a"}, ["'text'", "neither"]),
    "both shapes": ({"prompt": "a", "messages": MESSAGES}, ["not both"]),
    "no response": ({"prompt": "two"}, ["no response"]),
    "number as prompt": ({"prompt": 3, "response": "four"}, ["prompt 3", "no text"]),
    "empty prompt": ({"prompt": " ", "response": "four"}, ["prompt ' ' is empty", "take the row out"]),
    "empty response": ({"prompt": "two", "response": ""}, ["response '' is empty"]),
    "end alone": ({"prompt": "two", "response": "<|im_end|>"}, ["nothing is left of the response"]),
    "PAD inside": ({"prompt": "two", "response": "four<|endoftext|>"}, ["'<|endoftext|>'", "place 1", "take it out"]),
    "PAD in a chat": (chat("two<|endoftext|>", "four"), ["PAD token"]),
    "no messages": ({"messages": []}, ["messages []", "list"]),
    "no list": ({"messages": "two"}, ["messages 'two'"]),
    "unknown role": ({"messages": [{"role": "judge", "content": "a"}]}, ["'judge'", "assistant"]),
    "no user": ({"messages": MESSAGES[1:]}, ["no message of the role 'user'"]),
    "no answer": ({"messages": MESSAGES[:1]}, ["last message is the user's"]),
    "empty answer": (chat("two", " \n"), ["is empty", "take the row out"]),
    "content in parts": (chat([{"type": "text", "text": "two"}], "four"), ["content", "no text", "one string"]),
    "no content": ({"messages": [{"role": "user"}, MESSAGES[1]]}, ["user has no content"]),
    "images": (chat("two", "four", images=["a.png"]), ["'images'", "only text"]),
    "two systems": (
        {"system": "a", "messages": [{"role": "system", "content": "b"}, *MESSAGES]},
        ["'system'", "beside"],
    ),
    "template refuses": (
        {"messages": [*MESSAGES[:1], {"role": "tool", "content": "3"}, MESSAGES[1]]},
        ["no tools here"],
    ),
    "no thought": (chat("two", "four"), ["differently from token", "thinking off"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_row_is_named_with_file_and_line(case: str, tmp_path: Path) -> None:
    row, words = BAD[case]
    good = chat("two", "<think>\nso\n</think>\n\nfour")
    file = write(tmp_path / "bad.jsonl", good, good, row, good)
    with pytest.raises(BadRecord) as error:
        read_rows(file, QWEN)
    said = str(error.value)
    assert said.startswith(f"{file}:3: ") and all(w in said for w in words), said


@pytest.mark.parametrize("read", [read_rows, read_prompts])
def test_files_without_rows_are_refused(read: Any, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"no\.jsonl is not a file; .* JSONL with 'prompt'"):
        read(tmp_path / "no.jsonl", LAB)
    for text in ("", "\n\n", '{"prompt": "a'):
        (tmp_path / "e.jsonl").write_text(text)
        with pytest.raises(BadRecord, match=r"e\.jsonl holds no whole line"):
            read(tmp_path / "e.jsonl", LAB)
    with pytest.raises(BadInput, match="max_length 1 must be at least 2"):
        read(tmp_path / "e.jsonl", LAB, max_length=1)


@pytest.mark.parametrize("read", [read_rows, read_prompts])
def test_messages_need_a_chat_template(read: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs a chat template, and the tokenizer has none; use a model folder"):
        read(write(tmp_path / "m.jsonl", chat("two", "four")), chat_tokenizer(None))


def test_a_file_for_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"5 of 5 tokens of the prompt are unknown to the tokenizer"):
        read_rows(write(tmp_path / "u.jsonl", {"prompt": "Janet sells her duck eggs", "response": "4"}), LAB)


def test_a_bad_byte_is_named(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_bytes(json.dumps(PLAIN).encode() + b'\n{"prompt": "\xff", "response": "a"}\n')
    with pytest.raises(BadRecord, match=r"b\.jsonl:2: .* is no JSON"):
        read_rows(file, LAB)
