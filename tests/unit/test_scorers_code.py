"""Scoring code by running it: functions with tests, programs with inputs and outputs, checkers, cheats."""

from __future__ import annotations

import shutil

import pytest

from bench.sandbox import probe
from bench.sandbox.limits import Limits
from bench.scorers import code
from pipo.data.benchmarks.items import Case, Program
from pipo.errors import BadInput

pytestmark = pytest.mark.skipif(probe.why_not("namespaces") is not None, reason="no namespaces of our own here")
LIMITS = Limits(cpu_s=1, wall_s=30)
PROMPT = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """ The sum of xs. """\n'
TEST = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
SUMS = [Case("1 2\n", "3\n"), Case("20 22\n", "42\n")]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


def function(answer: str):
    return code.score_function(PROMPT, answer, TEST, "total", way="namespaces", limits=LIMITS)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("so\n```python\nx = 1\n```\nand\n```python\ny = 2\n```\nend", "y = 2\n"),
        ("```\na\n```\n```python\nnever ends", "a\n"),
        ("```cpp\nint a;\n```", "int a;\n"),
        ("x = 1", None),
    ],
)
def test_the_last_whole_block_is_the_program(text: str, block: str | None) -> None:
    assert code.last_block(text) == block


def program(source: str, cases: list[Case] = SUMS, **more):
    return code.score_program(source, cases, way="namespaces", limits=LIMITS, **more)


@pytest.mark.parametrize(
    "answer",
    [
        "    return sum(xs)\n",
        "    return sum(xs)\n\ndef main():\n    print(total(broken",  # what a base model goes on with
        "```python\ndef total(xs: List[int]) -> int:\n    return sum(xs)\n```",
        "First try:\n```\ndef total(xs): return 0\n```\nBetter:\n```python\nimport math\ndef total(xs):\n"
        "    return math.fsum(xs)\n```\nDone.",
        "def total(xs):\n    return sum(xs)\n\nif __name__ == '__main__':\n    raise SystemExit(1)\n",
    ],
)
def test_right_function_is_right(answer: str) -> None:
    verdict = function(answer)
    assert verdict.right and verdict.by == "execution", verdict


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("    return 3\n", "AssertionError"),
        ("    return sum(ys)\n", "NameError"),
        ("    return (\n", "SyntaxError"),
        ("    import os\n    os._exit(0)\n", "ended before"),
        ("    raise SystemExit(0)\n", "ended before"),
        ("    import sys\n    print(sys.stdin.read())\n    import os\n    os._exit(0)\n", "ended before"),
        ("    while True:\n        pass\n", "CPU seconds"),
        ("```python\ndef check(candidate):\n    pass\ndef total(xs):\n    return 7\n```", "AssertionError"),
        ("```python\n```", "AssertionError"),
    ],
)
def test_wrong_function_is_wrong_with_a_reason(answer: str, reason: str) -> None:
    verdict = function(answer)
    assert not verdict.right and reason in verdict.reason, verdict


def test_function_that_computes_for_ever_is_marked_as_ended_by_a_limit() -> None:
    verdict = function("    while True:\n        pass\n")
    assert verdict.limit and verdict.cpu_s > 1


def test_program_must_pass_every_case() -> None:
    right = program("print(sum(map(int, input().split())))")
    assert right.right and right.reason == "all 2 cases came back"
    wrong = program("print(3)")
    assert not wrong.right and wrong.reason == "case 2 of 2: line 1 is '3', not '42'"


def test_program_that_fails_says_so() -> None:
    assert "ZeroDivisionError" in program("1 / 0").reason


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("1 2\n3", True),
        ("1 2  \r\n3\n\n", True),
        ("1.0 2.00\n3e0", True),
        ("1 2 3", False),
        ("1\n2\n3", False),
        ("1 2\n3\n4", False),
        ("1 2\nnan", False),
        ("", False),
    ],
)
def test_outputs_are_compared_by_lines_and_numbers(printed: str, same: bool) -> None:
    assert (code.same_output("", "1 2\n3\n", printed) is None) == same


def test_checker_accepts_any_right_output() -> None:
    def checker(stdin: str, expected: str, printed: str) -> str | None:
        return None if sorted(printed.split()) == sorted(expected.split()) else "other words"

    assert program("print('b a')", [Case("", "a b")], checker=checker).right
    assert not program("print('b b')", [Case("", "a b")], checker=checker).right


def test_checker_that_is_a_program_runs_inside() -> None:
    source = "import sys\na, b, c = (open(p).read().split() for p in sys.argv[1:])\n"
    source += "print(1 if sorted(b) == sorted(c) else 0)"
    checker = code.python_checker(source, way="namespaces", limits=LIMITS)
    assert checker("", "a b", "b a") is None
    assert "says '0'" in str(checker("", "a b", "b b"))
    broken = code.python_checker("1 / 0", way="namespaces", limits=LIMITS)
    assert "ZeroDivisionError" in str(broken("", "a", "a"))


def test_calls_are_compared_as_json() -> None:
    source = "class Solution:\n    def pair(self, a, b):\n        print('noise')\n        return (b, a)"
    cases = [Case('1\n"x"', '["x", 1]')]
    assert code.score_calls(source, "pair", cases, way="namespaces", limits=LIMITS).right
    wrong = code.score_calls(source, "pair", [Case("1\n2", "[1, 2]")], way="namespaces", limits=LIMITS)
    assert wrong.reason == "case 1 of 1: returned '[2, 1]', not '[1, 2]'"
    early = "print('[2, 1]')\nimport os\nos._exit(0)"
    assert not code.score_calls(early, "pair", [Case("1\n2", "[2, 1]")], way="namespaces", limits=LIMITS).right


@needs_compiler
def test_cpp_program_is_compiled_and_run() -> None:
    source = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }"
    assert program(source, language="cpp").right
    broken = program(source.replace("a + b", "a + c"), language="cpp")
    assert not broken.right and broken.reason.startswith("it does not compile") and "error:" in broken.reason


@needs_compiler
def test_cpp_compiler_that_is_kept_busy_or_reads_the_host_gets_nowhere() -> None:
    leak = program('#include "/etc/passwd"\nint main() {}', language="cpp")
    assert not leak.right and "root:" not in leak.reason
    forever = "template <int N> struct A { static const int x = A<N - 1>::x + A<N - 2>::x; };"
    assert not program(f"#include __FILE__\n{forever}", language="cpp").right


def test_no_code_no_case_and_far_too_much_code() -> None:
    assert program("  \n").reason == "no code"
    assert "characters of code" in program("#" * 2**21).reason
    with pytest.raises(BadInput, match="0 cases"):
        program("print(1)", [])


def test_item_is_judged_by_its_form() -> None:
    check = Program(form="check", stub=PROMPT, entry_point="total", test=TEST)
    assert code.score_code(check, "    return sum(xs)\n", way="namespaces").right
    stdin = Program(form="stdin", tests=SUMS)
    assert code.score_code(
        stdin, "So:\n```python\nprint(sum(map(int, input().split())))\n```\n", way="namespaces"
    ).right
    calls = Program(form="function", entry_point="f", tests=[Case("1", "2")])
    assert code.score_code(calls, "class Solution:\n    def f(self, n):\n        return n + 1", way="namespaces").right
    checked = Program(form="stdin", tests=[Case("", "x")], checker="print(1)")
    assert code.score_code(checked, "print('anything')", way="namespaces").right
    with pytest.raises(BadInput, match="'rust'"):
        code.score_code(Program(form="stdin", language="rust", tests=SUMS), "fn main() {}", way="namespaces")


def test_limits_of_a_problem_hold_for_cpp_and_python_has_more() -> None:
    assert code.own_limits(Program(form="stdin", language="cpp", time_limit=2)).cpu_s == 2
    assert code.own_limits(Program(form="stdin", time_limit=2)).cpu_s == 10
    assert code.own_limits(Program(form="stdin", memory_limit=4096)).memory == 4096 * 2**20
