"""Latency runs in a diff: ratios of medians (means by the paper's protocol) at each input length. Torch-free."""

from __future__ import annotations

import math

from bench import diff_stats as ds
from bench import stats
from bench.diff_rows import Found, Notes, Row, Settings, checked
from bench.diff_runs import Side
from pipo.errors import BadInput

TIMES = ("ttft", "first_pair", "tpot16", "tpot")
MOMENTS = "two runs are two moments of a machine; what changed on it between them is in no interval"


def rows(a: Side, b: Side, names: dict[str, str], settings: Settings, notes: Notes) -> list[Found]:
    """Rows of every input length that both runs have, for variants matched by ``names`` (new -> old)."""
    if settings.tasks:
        raise BadInput(f"--task {settings.tasks[0]} has no effect on latency runs; leave it out")
    metrics = checked(settings.metrics, list(TIMES), ["ttft", "tpot16" if a.statistic == "mean" else "tpot"])
    machines(a, b, notes)
    found = []
    for name, was in names.items():
        lengths = [n for arm, n in b.trials if arm == name and (was, n) in a.trials]
        odd = {n for arm, n in a.trials if arm == was} ^ {n for arm, n in b.trials if arm == name}
        if odd:
            notes.append((name, f"input lengths in one run only, not compared: {', '.join(map(str, sorted(odd)))}"))
        for length in sorted(lengths):
            for metric in metrics:
                old, new = (
                    [t for r in side.trials[arm, length] if (t := getattr(r, f"{metric}_s")) > 0]
                    for side, arm in ((a, was), (b, name))
                )
                if old and new:
                    at = {"variant": name, "was": was, "task": None, "input_tokens": length, "metric": metric}
                    found.append(_time(old, new, a.statistic, settings, at))
    if not found:
        raise BadInput("no input length in common; run one again with the other's --input-length")
    return found


def machines(a: Side, b: Side, notes: Notes) -> None:
    """Say where two runs were not timed alike."""
    for word, of in (("devices", "device"), ("numbers of cores", "cpu_count"), ("threads", "threads")):
        one, other = (getattr(side.run.provenance, of) for side in (a, b))
        if one != other:
            text = f"the {word} differ ({one}, {other}): the ratios say as much about machines as about the code"
            notes.append(("", text))
    notes.append(("", MOMENTS))


def _time(old: list[float], new: list[float], statistic: str, settings: Settings, head: Row) -> Found:
    a, b = (sum(x) / len(x) if statistic == "mean" else stats.quantile(x, 0.5) for x in (old, new))
    row = {
        **head, "how": "unpaired", "a": a, "b": b, "n": min(len(old), len(new)), "p_holm": None, "mcnemar": None,
        "detectable": None, "decides": True,
    }  # fmt: skip
    return Found(row, [ds.faster(new, old, statistic)], math.log1p(settings.margin / 100), -1.0, ratio=True)
