"""One generation as the viewer wants it: step by step, what came out, what was drafted and how much of it was kept.

A trace is a plain dict with short keys, since a page holds thousands::

    v variant (its place in the run's list), s sample, seed, ok (1 right, 0 wrong), ans, why (the verdict's reason),
    fin, err, slots, n (tokens), steps, ttft and tpot (seconds; absent where none), text,
    kind   "one" (a token a step), "pair" (two places a step), "two" (unverified mtp), "chain" (eagle),
    t      ticks of 0.1 ms since the step before (the first: since submission)
    o      ids that came out, step by step; a pair step with one id has a PAD in its second place
    d, k   ids drafted, and how many of them from the first on were kept; absent where nothing drafts
    c      confidence in each step's draft, in 1/10,000; absent where there is no gate
    gap    [steps shown before it, steps left out, tokens left out]; absent where all are shown
    lost   why drafts cannot be set beside tokens; absent where they are
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.record import SampleRecord
from reports.html.escape import label, visible

if TYPE_CHECKING:
    from pipo.engine.types import Draft, Method

    Step = tuple[list[int], list[Draft]]

TICK_S = 1e-4
STEP_BYTES = 30  # about what a step takes in JSON
HEAD = 0.7  # of a longer generation its beginning is shown, and its end, where the answer is


def trace(r: SampleRecord, variant: int, method: Method | None, room: int = 30_000) -> dict[str, Any]:
    """A record as a trace. ``method``: of its variant, None where the run's header does not name it.

    ``room``: about how many bytes it may have; a longer generation is shown by its beginning and its end.
    """
    kind, steps, lost = _steps(r, method)
    out: dict[str, Any] = {
        "v": variant, "s": r.sample, "seed": str(r.seed), "ok": int(r.correct), "ans": label(r.answer),
        "why": _why(r), "fin": r.finish, "err": label(r.error),
        "slots": r.slots, "n": r.tokens, "steps": r.steps,
        "text": _text(r.text, min(4500, max(400, room // 6))), "kind": kind,
    }  # fmt: skip
    if r.ttft_s >= 0:
        out["ttft"] = round(r.ttft_s, 4)
    out["tpot"] = _tpot(r, r.first_pair_s if kind in ("pair", "two") else r.ttft_s)
    out["lost"] = lost
    out.update(_columns(steps, _ticks(r, steps), min(1000, max(60, room // STEP_BYTES))))
    return {key: value for key, value in out.items() if value is not None and value != ""}


def _why(r: SampleRecord) -> str | None:
    if r.verdict is None:
        return None
    return label(r.verdict.reason if r.verdict.by == "none" else f"{r.verdict.reason} (by {r.verdict.by})")


def _tpot(r: SampleRecord, start: float) -> float | None:
    """Seconds a token after the first step, which ended at ``start`` (as bench/timing.py counts)."""
    after = [t for t in r.token_times_s if t > start]
    return round((after[-1] - start) / len(after), 6) if after and start >= 0 else None


def _steps(r: SampleRecord, method: Method | None) -> tuple[str, list[Step], str]:
    """Kind, steps, and why they have no drafts: kept ones must be the very tokens that came out, else none is shown."""
    if r.slots and len(r.places) == 2 * r.slots:
        return _checked(r, "pair", _pairs(r))
    if not r.drafts:
        return "one", [([x], []) for x in r.places], ""
    if method is not None and method.name == "eagle":
        return _checked(r, "chain", _chains(r, method.depth))
    return _checked(r, "two", _twos(r))


def _checked(r: SampleRecord, kind: str, steps: list[Step]) -> tuple[str, list[Step], str]:
    out = [x for tokens, _ in steps for x in tokens]
    used = sum(len(drafts) for _, drafts in steps)
    if out == _real(r) and used == len(r.drafts) and all(_agree(kind, *step) for step in steps):
        return kind, steps, ""
    kept = sum(d.kept for d in r.drafts)
    lost = f"{kept} of {len(r.drafts)} drafts were kept; the record does not say at which step"
    return "one", [([x], []) for x in _real(r)], lost


def _agree(kind: str, tokens: Sequence[int], drafts: Sequence[Draft]) -> bool:
    """Whether kept drafts are the tokens that came out, and none is kept after one that was not."""
    at = 0 if kind == "chain" else 1
    rejected = False
    for i, d in enumerate(drafts, at):
        if d.kept and (rejected or i >= len(tokens) or tokens[i] != d.id):
            return False
        rejected |= not d.kept
    return True


def _real(r: SampleRecord) -> list[int]:
    if r.slots and len(r.places) == 2 * r.slots:
        return [x for i, x in enumerate(r.places) if i % 2 == 0 or x != r.pad_id]
    return r.places


def _pairs(r: SampleRecord) -> list[Step]:
    """A pair a step. The last pair has no draft where its first token was the end."""
    steps = []
    for i in range(0, len(r.places), 2):
        first, second = r.places[i : i + 2]
        steps.append(([first] if second == r.pad_id else [first, second], r.drafts[i // 2 : i // 2 + 1]))
    return steps


def _twos(r: SampleRecord) -> list[Step]:
    """Unverified mtp: a token and its draft; the last step may lack the draft."""
    return [(r.places[i : i + 2], r.drafts[i // 2 : i // 2 + 1]) for i in range(0, len(r.places), 2)]


def _chains(r: SampleRecord, depth: int) -> list[Step]:
    """Eagle: the first token alone, then chains of ``depth`` drafts (the last may be cut) and one token more."""
    steps: list[Step] = [(r.places[:1], [])]
    at = 1
    for i in range(0, len(r.drafts), depth):
        chain = r.drafts[i : i + depth]
        tokens = r.places[at : at + sum(d.kept for d in chain) + 1]
        at += len(tokens)
        steps.append((tokens, chain))
    return steps


def _ticks(r: SampleRecord, steps: Sequence[Step]) -> list[int]:
    """When each step's last token was out, in ticks since submission; nothing where the record has no such times."""
    if len(r.token_times_s) != sum(len(tokens) for tokens, _ in steps):
        return []
    at, ticks = 0, []
    for tokens, _ in steps:
        at += len(tokens)
        ticks.append(round(r.token_times_s[at - 1] / TICK_S) if at else 0)
    return ticks


def _columns(steps: list[Step], ticks: list[int], most: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if len(steps) > most:
        head = int(HEAD * most)
        tail = len(steps) - (most - head)
        cut = steps[head:tail]
        out["gap"] = [head, len(cut), sum(len(tokens) for tokens, _ in cut)]
        steps, ticks = steps[:head] + steps[tail:], ticks[:head] + ticks[tail:]
    if ticks:
        out["t"] = [b - a for a, b in zip([0, *ticks], ticks)]
    out["o"] = [tokens for tokens, _ in steps]
    if any(drafts for _, drafts in steps):
        out["d"] = [[d.id for d in drafts] for _, drafts in steps]
        out["k"] = [sum(d.kept for d in drafts) for _, drafts in steps]
    if any(d.confidence is not None for _, drafts in steps for d in drafts):
        out["c"] = [_confidence(drafts) for _, drafts in steps]
    return out


def _confidence(drafts: Sequence[Draft]) -> int:
    c = drafts[0].confidence if drafts else None
    return -1 if c is None else round(1e4 * min(1.0, max(0.0, c)))


def _text(text: str, most: int) -> str:
    if len(text) > most:
        head = int(HEAD * most)
        text = f"{text[:head]}\n… {len(text) - most:,} characters left out …\n{text[head - most :]}"
    return visible(text)
