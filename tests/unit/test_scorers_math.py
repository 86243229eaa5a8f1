"""Scoring mathematics: reading boxes, cheap comparisons, algebra in processes that can be killed, hostile answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scorers import algebra, pool
from bench.scorers.pool import MathPool
from bench.scorers.reading import compare, last_boxed, normalised, number, score_choice
from pipo.errors import BadInput

pytestmark = pytest.mark.slow

CASES = tomllib.loads((Path(__file__).parent.parent / "hostile" / "answers.toml").read_text())["case"]
CPU_S = 0.3


@pytest.fixture(scope="module")
def scorer() -> Iterator[MathPool]:
    with MathPool(workers=1, cpu_s=CPU_S, wall_s=20) as made:
        made.score([("x", "y")])  # the start of the process is no part of any case
        yield made


def hostile(case: dict) -> tuple[str | None, str]:
    text = case.get("answer", "") + case.get("before", "") + case.get("piece", "") * case.get("times", 0)
    text += case.get("after", "")
    return last_boxed(text) if case.get("whole") else text, case.get("gold", "5")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_hostile_answer_ends_with_a_score_and_a_reason(case: dict, scorer: MathPool) -> None:
    start = time.monotonic()
    (verdict,) = scorer.score([hostile(case)])
    took = time.monotonic() - start
    assert verdict.reason
    assert verdict.right == case["right"] or case["right"] == "either", verdict
    assert took < 15, f"{took:.1f} s"


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{5}", "5"),
        (r"first \boxed{1}, then \boxed{ \frac{1}{2} } and more", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{[0, 1\}} and }", r"[0, 1\}"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{a \text{ if } b}", r"a \text{ if } b"),
        (r"{ an open brace \boxed{3}", "3"),
        (r"\fbox{4}", "4"),
        (r"\boxed 8.", "8"),
        (r"\boxed{}", ""),
        ("no box", None),
    ],
)
def test_last_box_is_read_with_balanced_braces(text: str, box: str | None) -> None:
    assert last_boxed(text) == box


@given(st.text(alphabet="ab1{}\\", max_size=40))
def test_box_around_a_balanced_text_is_that_text(inside: str) -> None:
    if algebra_safe(inside):
        assert last_boxed(f"x \\boxed{{1}} \\boxed{{{inside}}} y") == inside.strip()


def algebra_safe(text: str) -> bool:
    depth, skip = 0, False
    for sign in text:
        if skip or sign == "\\":
            skip = not skip
            continue
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0 and not skip


def test_box_of_a_megabyte_is_read_in_time() -> None:
    start = time.process_time()
    for text in (r"\boxed{" * 150_000, "{" * 10**6, r"\boxed{" + "{}" * 5 * 10**5 + "}", r"\boxed " * 140_000):
        last_boxed(text)
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    ("answer", "gold", "by"),
    [
        ("5", "5", "exact"),
        (r"\dfrac12", r"\frac{1}{2}", "normalised"),
        (r"10,\!080", "10080", "normalised"),
        ("0.5", r"\frac{1}{2}", "number"),
        ("1.8", r"1\frac{4}{5}", "number"),
        ("0.333333", r"\frac{1}{3}", "number"),
        ("40", "40_9", "number"),
        (r"\$18.9", r"\$18.90", "number"),
        ("90", r"90^\circ", "normalised"),
        ("B", r"\text{(B)}", "normalised"),
        ("evelyn", r"\text{Evelyn}", "normalised"),
        (r"50\%", r"\frac{1}{2}", "symbolic"),
        (r"\sqrt{20}", r"2\sqrt{5}", "symbolic"),
        ("1,-2", "-2,1", "symbolic"),
        (r"1-\sqrt{19}, 1+\sqrt{19}", r"1 \pm \sqrt{19}", "symbolic"),
        (r"(3,\pi/2)", r"\left( 3, \frac{\pi}{2} \right)", "symbolic"),
        ("5", "x=5", "symbolic"),
        ("(b+2)(a+5)", "(a+5)(b+2)", "symbolic"),
        (r"\frac{\cos x}{\sin x}", r"\cot x", "symbolic"),
        (r"-2 \le x \le 7", r"x \in [-2,7]", "symbolic"),
        ("5.4", r"5.4 \text{ cents}", "symbolic"),
    ],
)
def test_equal_answers_are_right(answer: str, gold: str, by: str, scorer: MathPool) -> None:
    (verdict,) = scorer.score([(answer, gold)])
    assert (verdict.right, verdict.by) == (True, by), verdict


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("6", "5"),
        ("5 6", "56"),
        (".0000673", ".0000672"),
        ("0.333", r"\frac{1}{3}"),
        ("40_9", "40"),
        ("40_8", "40_9"),
        ("(1,-2)", "(-2,1)"),
        ("-2, 1, 5", "-2,1"),
        ("[2,\\infty)", "(2,\\infty)"),
        ("12", r"12\pi"),
        ("x^2", "x^3"),
        (r"\text{odd}", r"\text{even}"),
        ("C", r"\text{(B)}"),
        ("", "5"),
        (None, "5"),
    ],
)
def test_other_answers_are_wrong(answer: str | None, gold: str, scorer: MathPool) -> None:
    (verdict,) = scorer.score([(answer, gold)])
    assert not verdict.right and verdict.reason, verdict


def test_cheap_ways_say_the_same_as_algebra() -> None:
    """What is decided without algebra is what algebra would say."""
    pairs = [("0.5", r"\frac{1}{2}"), (r"\frac24", "0.5"), ("7", "8"), ("-3", "3"), ("2.50", "2.5"), ("1/3", "2/6")]
    for answer, gold in pairs:
        cheap = compare(answer, gold)
        assert cheap is not None and cheap.right == algebra.compare(gold, answer)[0], (answer, gold)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_numbers_are_read_exactly(top: int, bottom: int) -> None:
    sign = "-" if top < 0 else ""
    value = number(normalised(f"{sign}\\dfrac{{{abs(top)}}}{{{bottom}}}"))
    assert value is not None and value * bottom == top
    assert number(normalised(f"{top:,}")) == top


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"so \boxed{B}", "B"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"A or B? \boxed{A} no, \boxed{(D)}", "D"),
        ("B", "B"),
        ("(B).", "B"),
        ("The answer is (C), since A is wrong.", "C"),
        (r"\boxed{BC} the answer is B", None),
        (r"\boxed{5}", None),
        ("nothing of the sort", None),
    ],
)
def test_choice_is_the_letter_in_the_last_box(text: str, letter: str | None) -> None:
    for gold in "ABCD":
        assert score_choice(text, gold).right == (gold == letter)


def test_order_and_repetition_change_no_verdict(scorer: MathPool) -> None:
    pairs = [(r"\sqrt{8}", r"2\sqrt{2}"), (r"\sqrt{8}", r"3\sqrt{2}"), ("x+x", "2x"), (None, "2x"), ("x+x", "2x")]
    with MathPool(workers=2, cpu_s=CPU_S) as other:
        assert other.score(pairs) == scorer.score(list(reversed(pairs)))[::-1]


def test_process_that_hears_no_signal_is_killed_and_the_next_answer_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_S", 0.2)
    with MathPool(workers=1, cpu_s=0.3) as made:
        bad, good = made.score([("1000000000!", "7"), (r"\sqrt{4}\sqrt{x}", r"2\sqrt{x}")])
    assert not bad.right and bad.limit and "CPU" in bad.reason, bad
    assert good.right and not good.limit


def test_comparison_that_waits_too_long_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    real = MathPool._start
    monkeypatch.setattr(MathPool, "_start", lambda self: (started.append(1), real(self))[1])
    monkeypatch.setattr(pool.Comparer, "cpu_s", lambda self: 0.0)  # as if it never got a CPU
    with MathPool(workers=1, cpu_s=60, wall_s=0.2) as made:
        (verdict,) = made.score([("1000000000!", "7")])
    assert not verdict.right and "2 tries" in verdict.reason and len(started) == 2, verdict


def test_processes_end_with_the_pool_and_with_its_owner() -> None:
    with MathPool(workers=1) as made:
        made.score([("x", "y")])
        pid = made.comparers[0].process.pid
    assert not Path(f"/proc/{pid}").exists()
    code = "import os\nfrom bench.scorers.pool import MathPool\np = MathPool(workers=1)\np.score([('x', 'y')])\n"
    code += "print(p.comparers[0].process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    left = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(100):
        if not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {done.stdout} outlives who asked")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput, match="workers 0"):
        MathPool(workers=0)
