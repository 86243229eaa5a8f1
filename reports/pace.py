"""How fast a variant is, in words: at batch 1 from a latency run, and for a whole batch from a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from reports.load import ALL_TASKS, BUDGETS, LoadedRun
from reports.settle import BETTER, OPEN, WORSE, settled
from reports.text import interval, number, share

MIXED, SAME = "mixed", "about the same"
TOLERANCE = 0.05  # of the reference's speed
SAID = {
    BETTER: "faster",
    WORSE: "slower",
    OPEN: "not shown to be faster",
    SAME: "about as fast",
}


class Pace(msgspec.Struct, frozen=True):
    """``word``: better, worse, mixed, about the same or not settled; ``text``: the figures as one or two sentences.

    ``parts``: words of the first token and of later ones, where they are not the same.
    """

    word: str = OPEN
    text: str = ""
    parts: tuple[str, str] | None = None

    @property
    def said(self) -> str:
        if self.parts is None:
            return SAID[self.word]
        first, later = (SAID[part] for part in self.parts)
        return f"{first} to the first token, {later} after it"


def ratio_word(ratio: Mapping[str, Any] | None) -> str:
    """What a ratio of speeds settles."""
    if ratio and ratio.get("low") is not None and abs(ratio["low"] - 1) < TOLERANCE > abs(ratio["high"] - 1):
        return SAME
    return settled(ratio, 1.0)


def batch_one(latency: LoadedRun, name: str) -> Pace:
    """First token and later tokens after the longest input, as times as fast as the reference."""
    ratios = [r for r in latency.summary.get("ratios", ()) if r["variant"] == name != latency.summary.get("reference")]
    if not ratios:
        return Pace()
    keep = None if any(r.get("keep") is None for r in ratios) else ratios[0]["keep"]
    length = max(r["input_tokens"] for r in ratios)
    at = {r["metric"]: r for r in ratios if r.get("keep") == keep and r["input_tokens"] == length}
    parts = ratio_word(at.get("ttft")), ratio_word(at.get("tpot"))
    words = set(parts)
    if {BETTER, WORSE} <= words:
        word = MIXED
    else:
        word = next(w for w in (BETTER, WORSE, OPEN, SAME) if w in words)
    forced = "" if keep is None else f", {share(keep, 0)} % of drafts kept by force"
    first, later = interval(at.get("ttft"), 1, 2), interval(at.get("tpot"), 1, 2)
    return Pace(
        word,
        f"At batch 1 after {length} tokens{forced}: first token {first} times, later tokens {later} times as fast as "
        f"{latency.summary.get('reference')}.",
        parts if len(words) > 1 else None,
    )


def whole_batch(run: LoadedRun, name: str) -> Pace:
    """Tokens per second of the whole batch against the first reference; settled where the two intervals are apart."""
    reference = next(iter(run.summary.get("references", ())), None)
    budget = [b for b in BUDGETS if any(r["budget"] == b for r in run.rows)][-1]
    rows = {r["variant"]: r for r in run.rows if r["task"] == ALL_TASKS and r["budget"] == budget}
    ours, theirs = ((rows.get(n) or {}).get("throughput") for n in (name, reference))
    if not ours or not theirs or not theirs.get("tokens_s"):
        return Pace()
    bounds = [side.get(end) for side in (ours, theirs) for end in ("low", "high")]
    word = OPEN
    if None not in bounds:
        word = BETTER if bounds[0] > bounds[3] else WORSE if bounds[1] < bounds[2] else OPEN
    ratio = number(ours["tokens_s"] / theirs["tokens_s"], 2)
    aside = " (not settled)" if word == OPEN else ""
    return Pace(word, f"In batches of {rows[name].get('batch')}: {ratio} times the tokens per second{aside}.")
