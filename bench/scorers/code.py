"""Scoring code by running it: functions with tests (HumanEval), programs with inputs and outputs (LiveCodeBench,
Codeforces). Everything runs in the sandbox; what a program should print never gets in there. Torch-free.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from bench.sandbox.limits import MB, Limits, Outcome
from bench.sandbox.run import run
from bench.sandbox.view import Files, Way, python_argv
from bench.scorers.verdict import Verdict, shown
from pipo.data.benchmarks.items import Case, Program
from pipo.errors import BadInput

Language = Literal["python", "cpp"]
LANGUAGES: dict[str, Language] = {"python": "python", "cpp": "cpp"}
Checker = Callable[[str, str, str], str | None]  # input, expected, printed -> None if right, else why not
MOST_CODE = 1 * MB
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")  # where a bare completion goes on to something else
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
RUN = Limits()
COMPILE = Limits(cpu_s=30, memory=2048 * MB, disk=128 * MB, output=64 * MB)

# Runs inside. The token comes by stdin and goes out after the tests: code that ends early does not have it.
HARNESS = """
import io, os, sys
def main():
    token, write, end = sys.stdin.readline().encode(), os.write, os._exit
    sys.stdin = io.StringIO()
    space = {"__name__": "solution"}
    for name in ("solution.py", "tests.py"):
        with open(name, encoding="utf-8") as f:
            exec(compile(f.read(), name, "exec"), space)
    space["check"](space[sys.argv[1]])
    sys.stdout.flush()
    write(1, b"\\n" + token)
    end(0)
main()
"""
# Runs inside: arguments as JSON lines by stdin, the result as JSON after the token.
CALL = """
import io, json, os, sys
def main():
    token, *rows = sys.stdin.read().splitlines()
    write, end, dump, found = os.write, os._exit, json.dumps, [json.loads(r) for r in rows if r.strip()]
    sys.stdin = io.StringIO()
    space = {"__name__": "solution"}
    with open("solution.py", encoding="utf-8") as f:
        exec(compile(f.read(), "solution.py", "exec"), space)
    name = sys.argv[1]
    call = getattr(space["Solution"](), name) if "Solution" in space else space[name]
    result = dump(call(*found))
    sys.stdout.flush()
    data = ("\\n" + token + result).encode()
    while data:
        data = data[write(1, data):]
    end(0)
main()
"""


def last_block(text: str) -> str | None:
    """What the last fenced block of a text holds, or None where there is none."""
    blocks = FENCE.findall(text)
    return blocks[-1] if blocks else None


def function_source(prompt: str, answer: str, entry_point: str) -> str:
    """The program that an answer makes of a HumanEval prompt.

    A whole function (in the last fenced block, or bare) goes behind the prompt, whose imports and helpers it may use; a
    bare completion goes on with the prompt and ends where something else begins.
    """
    block = last_block(answer)
    body = answer if block is None else block
    if re.search(rf"^\s*(async\s+)?def\s+{re.escape(entry_point)}\b", body, re.MULTILINE):
        return f"{prompt.rstrip()}\n\n\n{body}\n"
    if block is None:
        ends = [at for stop in STOPS if (at := body.find(stop)) >= 0]
        body = body[: min(ends)] if ends else body
    return f"{prompt}{body}\n"


def score_code(program: Program, answer: str, *, way: Way) -> Verdict:
    """The code in an answer by what its item is judged by.

    A problem's own time limit holds in CPU seconds for C++; Python has ten at least, since limits are made for C++.

    Raises:
        BadInput: a form or language that is not known here. BadRecord: packed cases that cannot be read.
    """
    limits = own_limits(program)
    if program.form == "check":
        return score_function(program.stub, answer, program.test, program.entry_point, way=way, limits=limits)
    block = last_block(answer)
    source = answer if block is None else block
    if program.form == "function":
        return score_calls(source, program.entry_point, program.cases(), way=way, limits=limits)
    if program.form != "stdin" or program.language not in LANGUAGES:
        raise BadInput(f"programs of the form {program.form!r} in {program.language!r} cannot be judged here")
    checker = None if program.checker is None else python_checker(program.checker, way=way)
    return score_program(
        source, program.cases(), language=LANGUAGES[program.language], way=way, limits=limits, checker=checker
    )


def own_limits(program: Program) -> Limits:
    """The limits that a problem states, ours where it states none."""
    cpu_s = program.time_limit or RUN.cpu_s
    if program.language == "python":
        cpu_s = max(cpu_s, RUN.cpu_s)
    memory = int(program.memory_limit * MB) if program.memory_limit else 0
    return msgspec.structs.replace(RUN, cpu_s=cpu_s, memory=max(RUN.memory, memory), output=16 * MB)


def score_function(prompt: str, answer: str, test: str, entry_point: str, *, way: Way, limits: Limits = RUN) -> Verdict:
    """HumanEval: the answer to a prompt is right if ``check(entry_point)`` of its tests comes back."""
    source = function_source(prompt, answer, entry_point)
    if (refused := unfit(source)) is not None:
        return refused
    token = secrets.token_hex(16)
    files = {"main.py": HARNESS, "solution.py": source, "tests.py": test}
    outcome = run(
        [*python_argv("main.py", way), entry_point],
        files=encoded(files), stdin=f"{token}\n".encode(), limits=limits, way=way,
    )  # fmt: skip
    if outcome.good and outcome.stdout.endswith(f"\n{token}\n".encode()):
        return verdict(outcome, None, limits)
    return verdict(outcome, "it ended before its tests did" if outcome.good else why(outcome, limits), limits)


def score_calls(code: str, name: str, cases: Sequence[Case], *, way: Way, limits: Limits = RUN) -> Verdict:
    """LiveCodeBench's functions: ``name`` of ``Solution`` (or bare), each case's arguments as JSON lines, its result as
    JSON; right if all results are equal."""
    if (refused := unfit(code)) is not None:
        return refused

    def one(case: Case) -> tuple[Outcome, str | None]:
        token = secrets.token_hex(16)
        argv = [*python_argv("main.py", way), name]
        files = encoded({"main.py": CALL, "solution.py": code})
        outcome = run(argv, files=files, stdin=f"{token}\n{case.input}".encode(), limits=limits, way=way)
        if not outcome.good:
            return outcome, why(outcome, limits)
        _, found, result = outcome.stdout.decode(errors="replace").rpartition(f"\n{token}")
        if not found:
            return outcome, "it ended before it returned"
        try:
            same = json.loads(result) == json.loads(case.output)
        except (ValueError, RecursionError):
            same = False
        return outcome, None if same else f"returned {shown(result)}, not {shown(case.output)}"

    return all_of(cases, one, limits)


def score_program(
    code: str,
    cases: Sequence[Case],
    *,
    language: Language = "python",
    way: Way,
    limits: Limits = RUN,
    checker: Checker | None = None,
) -> Verdict:
    """A program is right if it prints what it has to for every case; the first that fails ends it.

    ``checker``: says whether an output is right where several are; without one lines count, blanks at their ends do
    not, and numbers compare as numbers.

    Raises:
        BadInput: no case.
    """
    if (refused := unfit(code)) is not None:
        return refused
    files: Files = encoded({"main.py": code})
    argv = python_argv("main.py", way)
    if language == "cpp":
        command = ["/bin/sh", "-c", "g++ -O2 -std=c++17 -o program main.cpp && cat program"]
        built = run(command, files=encoded({"main.cpp": code}), limits=COMPILE, way=way, compiler=True)
        if not built.good:
            return verdict(built, f"it does not compile: {why(built, COMPILE)}", COMPILE)
        files, argv = {"program": (built.stdout, True)}, ["./program"]

    def one(case: Case) -> tuple[Outcome, str | None]:
        outcome = run(argv, files=files, stdin=case.input.encode(errors="replace"), limits=limits, way=way)
        if not outcome.good:
            return outcome, why(outcome, limits)
        printed = outcome.stdout.decode(errors="replace")
        return outcome, (checker or same_output)(case.input, case.output, printed)

    return all_of(cases, one, limits)


def all_of(cases: Sequence[Case], one: Callable[[Case], tuple[Outcome, str | None]], limits: Limits) -> Verdict:
    """Case after case until one fails. Raises BadInput where there is none."""
    if not cases:
        raise BadInput("0 cases: a program needs at least one test; leave the item out")
    cpu = wall = waited = 0.0
    done = 0
    wrong: str | None = None
    while done < len(cases) and wrong is None:
        outcome, wrong = one(cases[done])
        cpu, wall, waited = cpu + outcome.cpu_s, wall + outcome.wall_s, waited + (outcome.waited_s or 0.0)
        done += 1
    known = None if outcome.waited_s is None else waited
    total = msgspec.structs.replace(outcome, cpu_s=cpu, wall_s=wall, waited_s=known)
    return verdict(total, None if wrong is None else f"case {done} of {len(cases)}: {wrong}", limits, len(cases))


def same_output(stdin: str, expected: str, printed: str) -> str | None:
    """None where two outputs are the same, line by line, else the first difference."""
    ours, theirs = ([line.rstrip() for line in t.rstrip().splitlines()] for t in (printed, expected))
    for number, (a, b) in enumerate(zip(ours, theirs), 1):
        if a != b and not same_numbers(a.split(), b.split()):
            return f"line {number} is {shown(a)}, not {shown(b)}"
    if len(ours) != len(theirs):
        return f"{len(ours)} lines, not {len(theirs)}"
    return None


def same_numbers(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two lines have the same words, numbers compared by value."""
    if len(ours) != len(theirs):
        return False
    try:
        return all(a == b or Decimal(a) == Decimal(b) for a, b in zip(ours, theirs))
    except InvalidOperation:
        return False


def python_checker(source: str, *, way: Way, limits: Limits = RUN) -> Checker:
    """A checker that is a Python program: it gets input.txt, correct_output.txt and solution_output.txt as arguments
    and prints 1 for right. It runs in the sandbox too: it reads what a model made."""

    def check(stdin: str, expected: str, printed: str) -> str | None:
        names = ("input.txt", "correct_output.txt", "solution_output.txt")
        files = {"checker.py": source, **dict(zip(names, (stdin, expected, printed)))}
        outcome = run([*python_argv("checker.py", way), *names], files=encoded(files), limits=limits, way=way)
        if not outcome.good:
            return f"the checker: {why(outcome, limits)}"
        said = outcome.stdout.decode(errors="replace").split()[:1]
        return None if said and same_numbers(said, ["1"]) else f"the checker says {shown(' '.join(said))}"

    return check


def unfit(code: str) -> Verdict | None:
    """A verdict on code that is not worth running: none, or far too much."""
    if not code.strip():
        return Verdict(False, "no code")
    if len(code) > MOST_CODE:
        return Verdict(False, f"{len(code)} characters of code, more than {MOST_CODE}", limit=True)
    return None


def encoded(files: dict[str, str]) -> Files:
    return {name: (text.encode(errors="replace"), False) for name, text in files.items()}


def why(outcome: Outcome, limits: Limits) -> str:
    """How a run ended, with the line of stderr that says most: a compiler's first error, else the last."""
    lines = outcome.stderr.decode(errors="replace").strip().splitlines()
    tell = [line for line in lines if " error: " in line][:1] or lines[-1:]
    said = f": {shown(tell[0], 160)}" if tell and outcome.ended in ("exit", "signal") else ""
    return outcome.why(limits) + said


def verdict(outcome: Outcome, wrong: str | None, limits: Limits, cases: int = 1) -> Verdict:
    ran = "its test came back" if cases == 1 else f"all {cases} cases came back"
    return Verdict(
        right=wrong is None, reason=ran if wrong is None else wrong, by="execution",
        limit=outcome.ended not in ("exit", "signal", "failed"), cpu_s=outcome.cpu_s, wall_s=outcome.wall_s,
        waited_s=outcome.waited_s,
    )  # fmt: skip
