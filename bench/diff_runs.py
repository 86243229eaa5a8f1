"""The two runs of a diff: read, and checked against each other. Torch-free.

Nothing is read from a summary but that it is there: differences are made from the records.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench import record
from bench.load import records as load_records
from bench.load.records import RequestRecord
from bench.record import SCHEMA, LatencyRecord, Run, SampleRecord
from bench.scoring import Items
from pipo.errors import BadInput, BadRecord

SAMPLED = ("compare", "eval", "ablate-threshold")
LATENCY, LOAD = "latency", "load"
KINDS = (*SAMPLED, LATENCY, LOAD)
LIKE = {"eval": "compare"}  # kinds whose runs have the same form as another one's
# Settings that must agree in timed runs, by the words for them; what is left out of a spec follows from the rest.
SAME_TIMING = {
    LATENCY: {"shape": "shape of the model", "protocol": "protocol", "tokens": "tokens a trial", "dtype": "dtype"},
    LOAD: {"task": "task", "trace": "trace", "speedup": "speed-up of the trace", "scale": "scale of the trace",
           "arrivals": "arrivals", "burstiness": "burstiness", "input_tokens": "tokens of a prompt",
           "output_tokens": "tokens of an answer", "slots": "budget"},
}  # fmt: skip


class Side(msgspec.Struct, frozen=True):
    """One of the two runs. ``samples``: (variant, task) -> item -> its samples; ``drafts``: offered and kept in them.

    ``trials``: (arm, input length) -> its records. ``requests``: (variant, mode, load) -> a point's, by number.
    """

    folder: Path
    run: Run
    samples: dict[tuple[str, str], Items] = {}
    drafts: dict[tuple[str, str], tuple[int, int]] = {}
    trials: dict[tuple[str, int], list[LatencyRecord]] = {}
    requests: dict[tuple[str, str, float], list[RequestRecord]] = {}

    @property
    def kind(self) -> str:
        return LIKE.get(self.run.kind, self.run.kind)

    @property
    def names(self) -> list[str]:
        """Variants with records, in the run's order, those that its header does not name after them."""
        found = dict.fromkeys(
            [k[0] for k in self.samples] + [k[0] for k in self.trials] + [k[0] for k in self.requests]
        )
        told = [v.name for v in self.run.variants if v.name in found]
        return list(dict.fromkeys([*told, *found]))

    @property
    def k(self) -> int:
        return int(self.run.spec.get("k") or 0)

    @property
    def statistic(self) -> str:
        """Latency: what of the trials counts, by the run's protocol."""
        return "mean" if self.run.spec.get("protocol") == "paper" else "p50"


def read(folder: Path) -> Side:
    """A finished run with its records, without what a diff does not need.

    Raises:
        BadRecord: no run folder, another schema, records that are torn or missing, a run that is not finished.
        BadInput: a run of a kind that has no diff.
    """
    if not folder.is_dir():
        raise BadRecord(f"{folder} is not a folder; name the run folder of a finished job, see `pipo jobs list`")
    run = record.read_run(folder)
    if run.schema != SCHEMA:
        raise BadRecord(f"{folder / 'run.json'} is of schema {run.schema}, this version reads {SCHEMA}; run again")
    if run.kind not in KINDS:
        raise BadInput(f"{folder} holds a run of kind {run.kind!r}; a diff compares {', '.join(KINDS)}")
    if not (folder / "summary.json").is_file():
        raise BadRecord(f"{folder} has no summary.json: the run is not finished; give its command again, it goes on")
    _check_header(folder, run)
    path = folder / "records.jsonl"
    if not path.is_file():
        raise BadRecord(f"{path} does not exist; a diff is made from the records, keep them beside run.json")
    samples, drafts = _samples(path, run) if run.kind in SAMPLED else ({}, {})
    side = Side(
        folder, run, samples=samples, drafts=drafts,
        trials=_trials(path) if run.kind == LATENCY else {}, requests=_requests(path) if run.kind == LOAD else {},
    )  # fmt: skip
    if not (side.samples or side.trials or side.requests):
        raise BadRecord(f"{path} holds no whole record; run the job again, it goes on from what is there")
    return side


def _check_header(folder: Path, run: Run) -> None:
    """Raise BadRecord where a header lacks what a diff reads from it."""
    pass_at = run.spec.get("pass_at") or []
    good = isinstance(run.spec.get("k") or 0, int) and isinstance(pass_at, list)
    good = good and all(isinstance(k, int) for k in pass_at)
    good = good and all({"tight", "loose"} <= budgets.keys() for budgets in run.budgets.values())
    if not good:
        raise BadRecord(
            f"{folder / 'run.json'}: k, pass_at or budgets are not as a run has them; restore it, or run again"
        )


def _samples(path: Path, run: Run) -> tuple[dict[tuple[str, str], Items], dict[tuple[str, str], tuple[int, int]]]:
    """Samples without what is bulky, and by variant and task how many drafts were offered and kept."""
    found: dict[tuple[str, str], Items] = defaultdict(lambda: defaultdict(list))
    drafts: dict[tuple[str, str], tuple[int, int]] = {}
    for r in record.each(path):
        if isinstance(r, SampleRecord):
            if not r.judged:
                raise BadInput(f"{path.parent} has samples that are not judged yet (the first: {r.variant}, {r.task}, "
                               f"item {r.item}); `pipo eval score {path.parent}` judges them")  # fmt: skip
            budgets = run.budgets.get(r.task) or {}
            beyond = r.slots > min(budgets.values(), default=0)
            slim = msgspec.structs.replace(
                r, text="", drafts=[], token_times_s=[], places=r.places if beyond else [],
                variant=sys.intern(r.variant), task=sys.intern(r.task), item=sys.intern(r.item),
            )  # fmt: skip
            found[r.variant, r.task][r.item].append(slim)
            offered, kept = drafts.get((r.variant, r.task), (0, 0))
            drafts[r.variant, r.task] = offered + len(r.drafts), kept + sum(d.kept for d in r.drafts)
    for items in found.values():
        for samples in items.values():
            samples.sort(key=lambda r: r.sample)
    return {key: dict(items) for key, items in found.items()}, drafts


def _trials(path: Path) -> dict[tuple[str, int], list[LatencyRecord]]:
    found: dict[tuple[str, int], list[LatencyRecord]] = defaultdict(list)
    for r in record.each(path):
        if isinstance(r, LatencyRecord):
            found[r.variant, r.input_tokens].append(msgspec.structs.replace(r, token_times_s=[]))
    return {key: sorted(records, key=lambda r: r.trial) for key, records in found.items()}


def _requests(path: Path) -> dict[tuple[str, str, float], list[RequestRecord]]:
    found = load_records.points(load_records.read(path))
    return {(point.variant, point.mode, point.load): requests for point, requests in found if requests}


def match(old: Side, new: Side, asked: Mapping[str, str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Names of the new run -> names of the old one, and what is said about those left over. ``asked``: old -> new.

    A run of one variant is compared with another one of one variant whatever they are called.

    Raises:
        BadInput: a name that is no variant, or no variant in common.
    """
    for was, name in asked.items():
        for known, side, word in ((was, old, "the first"), (name, new, "the second")):
            if known not in side.names:
                raise BadInput(f"--map {was}={name}: {known!r} is no variant of {word} run; they are "
                               f"{', '.join(side.names)}")  # fmt: skip
    if len(set(asked.values())) < len(asked):
        raise BadInput(f"--map names a variant of the second run twice ({', '.join(asked.values())}); name each once")
    found = {name: was for was, name in asked.items()}
    free = [n for n in old.names if n not in asked]
    found |= {n: n for n in new.names if n in free and n not in found}
    notes = []
    if not found and len(old.names) == len(new.names) == 1:
        found = {new.names[0]: old.names[0]}
        notes.append(("", f"variants matched although they have other names: {old.names[0]} and {new.names[0]}"))
    if not found:
        raise BadInput(f"no variant in common: {', '.join(old.names)} and {', '.join(new.names)}; say which belongs to "
                       "which with --map OLD=NEW")  # fmt: skip
    for names, word in (([n for n in old.names if n not in found.values()], "first"),
                        ([n for n in new.names if n not in found], "second")):  # fmt: skip
        if names:
            notes.append(("", f"only in the {word} run, not compared: {', '.join(names)}"))
    return {n: found[n] for n in new.names if n in found}, notes


def check_kinds(old: Side, new: Side) -> None:
    """Raise BadInput where the runs are of different kinds, or timed differently."""
    if old.kind != new.kind:
        raise BadInput(f"{old.folder} is a run of kind {old.run.kind}, {new.folder} one of {new.run.kind}; a diff "
                       "needs two of the same kind")  # fmt: skip
    for key, word in SAME_TIMING.get(old.kind, {}).items():
        a, b = (side.run.spec.get(key) for side in (old, new))
        if a != b:
            raise BadInput(f"the runs differ in {word} ({a!r}, {b!r}), so their times do not compare; run one again")


def common_tasks(old: Side, new: Side, asked: list[str]) -> list[str]:
    """The tasks to compare: those asked for, else all of them, which must be the same ones.

    Raises:
        BadInput: another k, other tasks, or a task with another budget or scorer.
    """
    if old.k != new.k:
        raise BadInput(f"{old.k} samples an item in the first run, {new.k} in the second; avg@k and pass@k do not "
                       "compare: run one again with --k")  # fmt: skip
    tasks = asked or list(new.run.budgets)
    for task in tasks:
        for side, word in ((old, "first"), (new, "second")):
            if task not in side.run.budgets:
                common = [t for t in new.run.budgets if t in old.run.budgets]
                way = f"compare what both have with {' '.join(f'--task {t}' for t in common)}" if common else \
                    "they have no task in common"  # fmt: skip
                raise BadInput(f"task {task!r} is not in the {word} run; {way}")
    if not asked and set(old.run.budgets) != set(tasks):
        missing = [t for t in old.run.budgets if t not in tasks]
        raise BadInput(f"task {missing[0]!r} is not in the second run; compare what both have with "
                       f"{' '.join(f'--task {t}' for t in tasks)}")  # fmt: skip
    for task in tasks:
        a, b = old.run.budgets[task], new.run.budgets[task]
        if a != b:
            raise BadInput(f"{task} has budgets {a} in the first run and {b} in the second; quality under different "
                           "budgets does not compare: run one again with --slots")  # fmt: skip
        scorers = [_scorer(side, task) for side in (old, new)]
        if scorers[0] != scorers[1]:
            raise BadInput(f"{task} was scored by {scorers[0]!r} in the first run and {scorers[1]!r} in the second; "
                           "score both the same way")  # fmt: skip
    return tasks


def _scorer(side: Side, task: str) -> str:
    """Scorer of a task with its version; runs made before versions were kept name it alone, or had the exact one."""
    marks = side.run.spec.get("scorers") or {}
    source = (side.run.spec.get("benchmarks") or {}).get(task) or {}
    return str(marks.get(task) or source.get("scorer", "exact"))


def why_unpaired(old: Side, new: Side, task: str, pair: tuple[str, str]) -> tuple[str, bool]:
    """Why questions of a task cannot be paired (empty: they can), and whether samples have the same seeds.

    ``pair``: names of the variant in the old run and in the new one.
    """
    was, now = old.samples[pair[0], task], new.samples[pair[1], task]
    if was.keys() != now.keys():
        both = len(was.keys() & now.keys())
        return f"other questions ({len(was)} and {len(now)}, {both} of them in both)", False
    marks = [(side.run.spec.get("tasks") or {}).get(task) for side in (old, new)]
    golds = all(was[i][0].gold == now[i][0].gold for i in was)
    if not golds or (isinstance(old.run.spec.get("tasks"), dict) and marks[0] != marks[1]):
        return "questions of the same names, but with another text or answer", False
    seeds = all([(r.sample, r.seed) for r in was[i]] == [(r.sample, r.seed) for r in now[i]] for i in was)
    return "", seeds


def grouped(notes: Sequence[tuple[str, str]]) -> list[str]:
    """Notes as (subject, text), each text once with all of its subjects; without a subject the text alone."""
    by_text: dict[str, list[str]] = {}
    for subject, text in notes:
        by_text.setdefault(text, []).append(subject)
    return [
        f"{', '.join(dict.fromkeys(subjects))}: {text}" if subjects[0] else text for text, subjects in by_text.items()
    ]
