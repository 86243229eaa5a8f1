r"""Reading an answer out of a text, and comparing two in the cheap ways: as they stand, normalised, as numbers.

All of it takes time in proportion to the text, whatever that is: a megabyte of ``\boxed{`` too. Torch-free.
"""

from __future__ import annotations

import re
from fractions import Fraction

from bench.scorers.verdict import Verdict, shown

MOST_ANSWER = 2000  # characters of a formula that is worth comparing
MOST_DIGITS = 80
_MARK = re.compile(r"\\(?:(?:boxed|fbox)\s*\{|boxed\s+(?=[^\s{\\])|.)|[{}]", re.DOTALL)
_WRAPPED = re.compile(r"^(?:\$\$?(?P<a>.*?)\$\$?|\\\((?P<b>.*)\\\)|\\\[(?P<c>.*)\\\])$", re.DOTALL)
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf|textit|mathbf|textrm)\s*\{([^{}]*)\}")
_NOISE = re.compile(
    r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\[!,;: ]|\\(?:quad|qquad)(?![A-Za-z])|~|\\[$%]|[$%]"
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|°")
_SHORT = re.compile(r"\\frac\s*(?:(\d)\s*(\d)(?!\d)|(\d)\s*\{|\{([^{}]*)\}\s*(\d)(?!\d))")
_ROOT = re.compile(r"\\sqrt\s*(\d)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_PLAIN = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)")
_RATIO = re.compile(r"([+-]?)(\d*)(?:\\frac\{([+-]?\d+)\}\{(\d+)\}|(?<!\d)(\d+)/(\d+))")
_BASE = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")
_LETTER = re.compile(r"\(?([A-J])\)?[.:]?")
_SAID = re.compile(r"answer\s*(?:is|:)?\s*\**\s*\(?([A-J])\)?(?![A-Za-z])", re.IGNORECASE)


def last_boxed(text: str) -> str | None:
    r"""What the last complete ``\boxed{...}`` of a text holds, outer blanks cut, or None.

    Braces are balanced as TeX does it: ``\{`` and ``\}`` are signs, not braces. Of boxes in boxes it is the inner one.
    """
    open_at: list[int | None] = []  # for each open brace: where the box's content begins, None for other braces
    start, end = -1, -1
    for mark in _MARK.finditer(text):
        sign = mark.group()
        if sign == "{":
            open_at.append(None)
        elif sign == "}":
            began = open_at.pop() if open_at else None
            if began is not None and began > start:
                start, end = began, mark.start()
        elif sign[-1] == "{" and len(sign) > 2:
            open_at.append(mark.end())
        elif len(sign) > 2:  # \boxed 5: TeX takes the next sign, people mean the next word
            start = mark.end()
            end = start + len(re.match(r"[^\s$.,;]*", text[start : start + 100]).group())  # type: ignore[union-attr]
    return text[start:end].strip() if start >= 0 else None


def normalised(answer: str) -> str:
    """An answer without what does not change it: layout, dollars, degrees, per cent, short forms of fractions."""
    text = answer.strip()
    if (wrapped := _WRAPPED.match(text)) is not None:
        text = next(g for g in wrapped.groups() if g is not None)
    text = _DEGREES.sub("", _NOISE.sub("", text))
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cfrac", "\\frac")
    text = _WORDS.sub(r"\1", text)
    text = _SHORT.sub(_long_fraction, text)
    text = _ROOT.sub(r"\\sqrt{\1}", text).replace("−", "-")
    text = re.sub(r"\s+(?!\d)|(?<!\d)\s+", "", text).rstrip(".")  # 5 6 is not 56
    while len(text) > 1 and text[0] == "{" and text[-1] == "}" and "{" not in text[1:-1] and "}" not in text[1:-1]:
        text = text[1:-1]
    return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text


def _long_fraction(found: re.Match[str]) -> str:
    a, b, c, d, e = found.groups()
    if a is not None:
        return f"\\frac{{{a}}}{{{b}}}"
    return f"\\frac{{{c}}}{{" if c is not None else f"\\frac{{{d}}}{{{e}}}"


def number(text: str) -> Fraction | None:
    """The value of a normalised answer that is an integer, a decimal, a fraction or a mixed number, else None."""
    if len(text) > MOST_DIGITS:
        return None
    if _PLAIN.fullmatch(text):
        return Fraction(text)
    if (found := _RATIO.fullmatch(text)) is None:
        return None
    sign, whole, top, bottom, top2, bottom2 = found.groups()
    if int(bottom or bottom2) == 0:
        return None
    value = int(whole or 0) + Fraction(int(top or top2), int(bottom or bottom2))
    return -value if sign == "-" else value


def _rounded(decimal: Fraction, exact: Fraction) -> bool:
    """Whether a decimal is a fraction without end such as 1/3 to six digits; two decimals have to be equal."""
    return _ends(decimal) and not _ends(exact) and abs(decimal - exact) <= abs(exact) / 10**6


def _ends(value: Fraction) -> bool:
    """Whether a fraction is a decimal of as many digits as are read here."""
    return 10**MOST_DIGITS * value.numerator % value.denominator == 0


def compare(answer: str | None, gold: str) -> Verdict | None:
    """A verdict by the cheap ways, or None where only algebra can tell."""
    if answer is None:
        return Verdict(False, "no complete \\boxed{} in the answer")
    if answer.strip() == gold.strip():
        return Verdict(True, "the same text", "exact")
    if len(answer) > MOST_ANSWER:
        return Verdict(False, f"an answer of {len(answer)} characters, more than {MOST_ANSWER}", limit=True)
    a, g = normalised(answer), normalised(gold)
    if not a:
        return Verdict(False, "an empty answer")
    if a == g:
        return Verdict(True, "the same after normalising", "normalised")
    if (based := _bases(a, g)) is not None:
        return based
    x, y = number(a), number(g)
    if x is not None and y is not None and (x == y or ("%" in answer) == ("%" in gold)):
        same = x == y or _rounded(x, y) or _rounded(y, x)
        return Verdict(same, "the same number" if same else f"{shown(a)} is not {shown(g)}", "number")
    if _WORDS.fullmatch(gold.strip()) is not None:
        letters = (_LETTER.fullmatch(a), _LETTER.fullmatch(g))
        same = bool(letters[0] and letters[1] and letters[0][1] == letters[1][1]) or a.casefold() == g.casefold()
        return Verdict(same, "the same word" if same else f"{shown(a)} is not {shown(g)}", "normalised")
    return None


def _bases(a: str, g: str) -> Verdict | None:
    """Numbers such as 204_5: digits and base must be the same; a base that the gold has may be left out."""
    ours, theirs = _BASE.fullmatch(a), _BASE.fullmatch(g)
    if ours and theirs:
        same = ours.groups() == theirs.groups()
    elif theirs and number(a) is not None:
        same = a == theirs[1]
    elif ours and number(g) is not None:
        same = False
    else:
        return None
    return Verdict(same, "the same digits" if same else f"{shown(a)} is not {shown(g)}", "number")


def choice_of(text: str) -> str | None:
    """The letter in the last box, or a text that is a letter alone, or the last "answer is X"; else None."""
    boxed = last_boxed(text)
    found = _LETTER.fullmatch(normalised(text if boxed is None else boxed)[:MOST_ANSWER])
    if found or boxed is not None:
        return found[1] if found else None
    said = _SAID.findall(text)
    return said[-1].upper() if said else None


def score_choice(text: str, gold: str) -> Verdict:
    """A choice by its letter (``choice_of``)."""
    letter = choice_of(text)
    if letter is None:
        boxed = last_boxed(text)
        where = "the text" if boxed is None else f"the box {shown(boxed)}"
        return Verdict(False, f"no single letter in {where}")
    right = letter == gold.strip().strip("()").upper()
    return Verdict(right, "the same letter" if right else f"{letter}, not {gold}", "letter")
