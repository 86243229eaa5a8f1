"""Rows of published sets of math and chats as questions. What each set's fields mean is said where it is read."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pipo.data.lines import short
from pipo.data.questions import Question

BOX = "Please reason step by step, and put your final answer within \\boxed{}."
# DAPO-Math frames each question by a first and a last paragraph that ask for "Answer: ...", which is not what we score.
DAPO_HEAD = re.compile(r"\ASolve the following math problem step by step\.[^\n]*\n+")
DAPO_TAIL = re.compile(r"\n+Remember to put your answer on its own line after \"Answer:\"[^\n]*\s*\Z")


class Skip(msgspec.Struct, frozen=True):
    """Why a row is no question of ours, though it is a row of its set."""

    reason: str


class BadRow(Exception):
    """A row that lacks what its set has; says which field, and what stands there."""


def text_of(row: dict[str, Any], *names: str) -> str:
    """The text of the first of these fields that is there. Raises BadRow."""
    for name in names:
        if row.get(name) is not None:
            if not isinstance(row[name], str):
                raise BadRow(f"field {name!r} is {short(row[name])}, no text")
            return str(row[name])
    raise BadRow(f"no field {' or '.join(map(repr, names))} among {short(sorted(row))}")


def ask(text: str, closing: str = BOX) -> list[dict[str, str]]:
    """One question as a chat of one message, with the way to answer behind it."""
    return [{"role": "user", "content": f"{text.strip()}\n\n{closing}"}]


def place(where: str) -> str:
    """The number at the end of a place, as the id of rows without one."""
    return re.split(r"[: ]", where)[-1]


def dapo_math(row: dict[str, Any], where: str) -> Question | Skip:
    """``prompt`` [{role, content}] (or a text), ``reward_model`` {ground_truth, style}, ``extra_info`` {index}."""
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], dict):
            raise BadRow(f"field 'prompt' is {short(prompt)}, not one message")
        prompt = text_of(prompt[0], "content")
    elif not isinstance(prompt, str):
        raise BadRow(f"field 'prompt' is {short(prompt)}, not a list of messages")
    reward = row.get("reward_model")
    if not isinstance(reward, dict) or reward.get("ground_truth") is None:
        raise BadRow(f"field 'reward_model' is {short(reward)}, without a 'ground_truth'")
    question = DAPO_TAIL.sub("", DAPO_HEAD.sub("", prompt.strip())).strip()
    answer = str(reward["ground_truth"]).strip()
    if not question or not answer:
        return Skip("no question or no answer in it")
    info = row.get("extra_info")
    index = info.get("index") if isinstance(info, dict) else None
    return Question(
        id=str(index if index is not None else place(where)), task="dapo-math", messages=ask(question), answer=answer
    )


def gsm8k(row: dict[str, Any], where: str) -> Question | Skip:
    """``question``, and ``answer``: a solution whose last line is ``#### 1,234``."""
    question, answer = gsm8k_pair(row)
    return Question(id=place(where), task="gsm8k", messages=ask(question), answer=answer)


def gsm8k_pair(row: dict[str, Any]) -> tuple[str, str]:
    """Question and answer of a row of GSM8K. Raises BadRow."""
    question, solution = text_of(row, "question"), text_of(row, "answer")
    _, mark, answer = solution.rpartition("####")
    if not mark:
        raise BadRow(f"field 'answer' {short(solution)} has no '####' before the answer")
    return question, answer.strip().replace(",", "").lstrip("$")


def math(row: dict[str, Any], where: str) -> Question | Skip:
    """``problem`` or ``question``, and ``expected_answer`` or ``answer`` (AIME, MATH-500 and the like)."""
    question, answer = math_pair(row)
    if not question.strip() or not answer:
        return Skip("no question or no answer in it")
    return Question(id=name_of(row, where), task="math", messages=ask(question), answer=answer)


def math_pair(row: dict[str, Any]) -> tuple[str, str]:
    """Question and answer of a row of a math set; either may be empty. Raises BadRow."""
    question = text_of(row, "problem", "question")
    known = {k: str(v) if isinstance(v, int | float) else v for k, v in row.items()}
    return question, text_of(known, "expected_answer", "answer").strip()


def name_of(row: dict[str, Any], where: str, *fields: str) -> str:
    """The id of a row: what stands in the first of these fields that is there, else its place."""
    return next((str(row[k]) for k in fields or ("id", "unique_id") if row.get(k) is not None), place(where))


def messages(row: dict[str, Any], where: str) -> Question | Skip:
    """``messages`` [{role, content}], without the assistant's last one, and ``answer``: the right one, if known."""
    given = row.get("messages")
    if not isinstance(given, list) or not all(isinstance(m, dict) for m in given):
        raise BadRow(f"field 'messages' is {short(given)}, not a list of messages")
    chat = [{"role": text_of(m, "role"), "content": text_of(m, "content")} for m in given]
    if row.get("system") is not None:
        chat.insert(0, {"role": "system", "content": text_of(row, "system")})
    if chat and chat[-1]["role"] == "assistant":
        chat.pop()
    if not any(m["role"] == "user" and m["content"].strip() for m in chat):
        return Skip("no question in it")
    known = {k: str(v) if isinstance(v, int | float) else v for k, v in row.items()}
    answer = text_of(known, "answer", "solution").strip() if {"answer", "solution"} & row.keys() else ""
    if not answer:
        return Skip("no answer to score by")
    name = str(row["id"]) if row.get("id") is not None else place(where)
    return Question(id=name, task=str(row.get("task") or "messages"), messages=chat, answer=answer)
