"""Roll-outs to training files: right answers for SFT, questions that are solved often enough for OPD. Torch-free.

Two passes over the records, neither of which holds more than one text: the first decides, the second writes, in the
order of the questions. So shards, in any order, give the file that the whole run gives. A report lies beside the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipo.data.filters import NGRAM, end_loop, most_repeats
from pipo.data.lines import short, write_json, write_lines
from pipo.data.runs import Asked, RolloutRun, Sample
from pipo.errors import BadInput

REPORT = ".report.json"
FEW = 20  # ids a report names for each reason


class Place(NamedTuple):
    """A sample in its run, in the order of output: question by question, sample by sample."""

    number: int
    task: str
    item: str
    sample: int
    run: int
    offset: int
    tokens: int
    prompt_tokens: int
    seed: int
    correct: bool


class Dropped(msgspec.Struct):
    """How many were dropped for a reason, and the first of them."""

    count: int = 0
    ids: list[str] = []

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.ids) < FEW:
            self.ids.append(name)


class Drops(dict[str, Dropped]):
    """Drops by reason."""

    def add(self, reason: str, name: str) -> None:
        self.setdefault(reason, Dropped()).add(name)


def build_sft(
    runs: Sequence[RolloutRun], out: Path, *, shortest: bool = False, max_length: int | None = None,
    max_repeats: int | None = None, ngram: int = NGRAM,
) -> dict[str, Any]:  # fmt: skip
    """Write the right answers of all runs as ``{"id", "task", "sample", "prompt", "response"}`` lines.

    ``shortest``: of each question only the right answer with the fewest tokens. ``max_length``: at most so many tokens,
    prompt and response together. ``max_repeats``: answers are dropped where the same ``ngram`` tokens stand more often
    than that, or where they end in a loop (pipo.data.filters). Answers that the budget cut are never right.

    Returns:
        The report, which lies in ``OUT.report.json`` too.

    Raises:
        BadInput: a setting out of range, a file that cannot be written, no answer that is kept (nothing is written).
        BadRecord: a record that is none.
    """
    for name, value, least in (("max_length", max_length, 2), ("max_repeats", max_repeats, 1), ("ngram", ngram, 2)):
        if value is not None and value < least:
            raise BadInput(f"{name} {value} must be at least {least}")
    drops = Drops()
    kept: list[Place] = []
    total = 0
    for place, sample in _samples(runs, drops):
        total += 1
        reason = _why_not(sample, max_length, max_repeats, ngram)
        if reason:
            drops.add(reason, _name(place))
        else:
            kept.append(place)
    if shortest:
        kept = _shortest(kept, drops)
    kept.sort()
    if not kept:
        raise BadInput(f"none of {total} samples is kept ({_say(drops)}); {out} is not written")
    settings = {"shortest": shortest, "max_length": max_length, "max_repeats": max_repeats, "ngram": ngram}
    write_lines(out, _sft_rows(runs, kept))
    return _report("sft", out, runs, settings, total, kept, drops)


def build_opd(runs: Sequence[RolloutRun], out: Path, *, rho: float = 0.5) -> dict[str, Any]:
    """Write the questions whose share of right samples, over all runs, is at least ``rho``, as prompts.

    Lines are ``{"id", "task", "prompt", "answer", "accuracy", "samples"}``. Returns and raises as ``build_sft``.
    """
    if not 0 <= rho <= 1:
        raise BadInput(f"rho {rho} must lie in [0, 1]; 0 keeps every question")
    drops = Drops()
    groups: dict[tuple[str, str], list[Place]] = {}
    for place, _ in _samples(runs, drops):
        groups.setdefault((place.task, place.item), []).append(place)
    kept, rows = [], []
    for key, group in sorted(groups.items(), key=lambda g: min(g[1])):
        right = sum(p.correct for p in group)
        if right < rho * len(group):
            drops.add("below rho", "/".join(key))
            continue
        first = min(group)
        kept.append(first)
        asked = _asked(runs, first)
        answer = {} if asked.answer is None else {"answer": asked.answer}
        rows.append({"id": asked.id, "task": asked.task, "prompt": asked.prompt, **answer,
                     "accuracy": right / len(group), "samples": len(group)})  # fmt: skip
    if not rows:
        raise BadInput(
            f"none of {len(groups)} questions is solved in {rho} of its samples; lower rho, {out} is not written"
        )
    write_lines(out, rows)
    return _report("opd", out, runs, {"rho": rho}, len(groups), kept, drops)


def _samples(runs: Sequence[RolloutRun], drops: Drops) -> Iterator[tuple[Place, Sample]]:
    """All samples of all runs, each once: a run that is named twice, or a shard that lies in two folders, adds nothing.

    Raises BadInput where two runs ask different questions under one id.
    """
    seen: set[tuple[str, str, int, int, int]] = set()
    prompts: dict[tuple[str, str], str] = {}
    for number, run in enumerate(runs):
        for key, asked in run.questions.items():
            if prompts.setdefault(key, asked.prompt) != asked.prompt:
                raise BadInput(
                    f"{run.folder}: question {'/'.join(key)} reads {short(asked.prompt)}, in an earlier run "
                    f"{short(prompts[key])}; build from runs of the same questions"
                )
        for offset, s in run.samples():
            place = Place(
                run.questions[s.task, s.item].number, s.task, s.item, s.sample, number, offset, s.tokens,
                s.prompt_tokens, s.seed, s.correct,
            )  # fmt: skip
            mark = s.task, s.item, s.sample, s.seed, hash(s.text)
            if mark in seen:
                drops.add("same sample twice", _name(place))
                continue
            seen.add(mark)
            yield place, s


def _why_not(s: Sample, max_length: int | None, max_repeats: int | None, ngram: int) -> str:
    """Why a sample is not trained on; empty where it is."""
    if s.finish == "failed":
        return "failed"
    if s.finish in ("slots", "tokens"):
        return "cut by the budget"
    if not s.correct:
        return "wrong"
    if max_length is not None and s.prompt_tokens + s.tokens > max_length:
        return "longer than max_length"
    if max_repeats is not None:
        ids = s.ids
        if end_loop(ids):
            return "ends in a loop"
        if most_repeats(ids, ngram) > max_repeats:
            return f"{ngram} tokens repeated more than {max_repeats} times"
    return ""


def _shortest(kept: Sequence[Place], drops: Drops) -> list[Place]:
    best: dict[tuple[str, str], Place] = {}
    for place in sorted(kept, key=lambda p: (p.tokens, p)):
        if best.setdefault((place.task, place.item), place) is not place:
            drops.add("not the shortest of its question", _name(place))
    return list(best.values())


def _sft_rows(runs: Sequence[RolloutRun], kept: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """Lines in the order of ``kept``; texts are read when they are written."""
    texts = [run.texts([p.offset for p in kept if p.run == number]) for number, run in enumerate(runs)]
    for place in kept:
        asked, sample = _asked(runs, place), next(texts[place.run])
        yield {"id": asked.id, "task": asked.task, "sample": place.sample, "prompt": asked.prompt,
               "response": sample.text}  # fmt: skip


def _asked(runs: Sequence[RolloutRun], place: Place) -> Asked:
    return runs[place.run].questions[place.task, place.item]


def _name(place: Place) -> str:
    return f"{place.task}/{place.item}/{place.sample}"


def _say(drops: Drops) -> str:
    return ", ".join(f"{reason}: {d.count}" for reason, d in sorted(drops.items())) or "there are none"


def _report(
    kind: str, out: Path, runs: Sequence[RolloutRun], settings: dict[str, Any], total: int, kept: Sequence[Place],
    drops: Drops,
) -> dict[str, Any]:  # fmt: skip
    questions = {(p.task, p.item) for p in kept}
    report: dict[str, Any] = {
        "kind": kind, "out": str(out), "considered": total, "kept": len(kept), "questions": len(questions),
        "questions_asked": len({key for run in runs for key in run.questions}),
        "dropped": msgspec.to_builtins(dict(sorted(drops.items()))),
        "tokens": spread([p.tokens for p in kept]) if kind == "sft" else None,
        "settings": settings, "sources": [run.source() for run in runs],
    }  # fmt: skip
    write_json(out.with_name(out.name + REPORT), report)
    return report


def spread(counts: Sequence[int]) -> dict[str, float]:
    """Sum, mean, median, standard deviation and quantiles of token counts."""
    points = np.quantile(counts, (0.05, 0.25, 0.5, 0.75, 0.95))
    names = ("p5", "p25", "median", "p75", "p95")
    return {
        "sum": int(np.sum(counts)), "mean": float(np.mean(counts)), "sd": float(np.std(counts)),
        "min": int(np.min(counts)), **{n: float(v) for n, v in zip(names, points, strict=True)},
        "max": int(np.max(counts)),
    }  # fmt: skip
