"""Tables 1 to 3 of the paper beside ours: quality by benchmark, output slots, what training settings cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports import training
from reports.exhibits import Exhibit
from reports.load import ALL_TASKS, LoadedRun
from reports.paper import MODEL, paper
from reports.settle import settled
from reports.text import DASH, folded, interval, listed, markdown, number, percent, plus_minus

Row = Mapping[str, Any]
LOOSE = "loose"
HERE = "here"


def loose_rows(run: LoadedRun) -> dict[tuple[str, str], Row]:
    """(variant, task) -> row under the loose budget."""
    return {(r["variant"], r["task"]): r for r in run.rows if r["budget"] == LOOSE}


def names(run: LoadedRun) -> list[str]:
    """The paper's methods first, in its order, then what else the run has."""
    ours = list(dict.fromkeys(r["variant"] for r in run.rows))
    theirs = list(paper()["overall"])
    return [*theirs, *(n for n in ours if n not in theirs)]


def absent(run: LoadedRun) -> str:
    """The paper's methods that a comparison lacks; empty where it has all."""
    ours = {r["variant"] for r in run.rows}
    gone = [n for n in paper()["overall"] if n not in ours]
    if not gone:
        return ""
    return f"{listed(gone)}; `pipo bench compare` has them all, or `--variant {gone[0]}=MODEL:METHOD` names one."


def standing(run: LoadedRun) -> str:
    """What of a comparison compares with the paper, and what does not."""
    known = paper()["table1"]["tasks"]
    shared = [t for t in run.tasks if t in known]
    models = listed(list(dict.fromkeys(v.model for v in run.run.variants)))
    if not shared:
        return (
            f"None of the tasks here ({listed(run.tasks)}) is one of the paper's benchmarks, and the models here are "
            f"{models}: compare how methods stand to regular decoding, not values."
        )
    rest = [t for t in run.tasks if t not in known]
    text = f"{listed(shared)}: the paper's questions, asked of {models}"
    text += f"; {listed(rest)}: other ones" if rest else ""
    counts = [f"{run.summary['items'][t]} of {t}" for t in shared if t in (run.summary.get("items") or {})]
    slots = [f"{t} {run.run.budgets[t][LOOSE]}" for t in shared if t in run.run.budgets]
    return f"{text}. Questions here: {listed(counts) or DASH}; slots: {listed(slots) or DASH} (the paper: 32768)."


def table1(run: LoadedRun) -> Exhibit | None:
    """avg@4 and pass@4 by benchmark and over all."""
    facts, ours = paper()["table1"], loose_rows(run)
    if not ours:
        return None
    models, k = list(paper()["table2"]), run.k
    columns = ["method"]
    columns += [f"the paper, {m}: {metric}@4 %" for m in models for metric in ("avg", "pass")]
    columns += [f"{HERE}, {'all tasks' if len(run.tasks) != 1 else run.tasks[0]}: avg@{k} %", f"pass@{k} %"]
    lines = []
    for name in names(run):
        theirs = [v for m in models for v in facts[m].get(name, [(None, None)])[-1]]
        mine = ours.get((name, ALL_TASKS), {})
        cells = [percent(mine.get("avg")), percent((mine.get("pass") or {}).get(str(k)))]
        lines.append([name, *(number(v, 2) for v in theirs), *cells])
    said = "The paper's columns are means over its four benchmarks."
    text = f"{said}\n\n{markdown(columns, lines)}\n\n{by_benchmark(run, ours)}"
    return Exhibit(
        "table1", "Table 1: quality by benchmark", quality_rows(run, ours), text, standing(run), absent(run)
    )  # fmt: skip


def pair_of(values: Sequence[float]) -> str:
    return " / ".join(number(v, 2) for v in values)


def ours_of(row: Row | None, k: int) -> str:
    return f"{percent(row.get('avg'))} / {percent((row.get('pass') or {}).get(str(k)))}" if row else DASH


def by_benchmark(run: LoadedRun, ours: Mapping[tuple[str, str], Row]) -> str:
    """The paper's whole table, with ours where the questions are the same; folded where none are."""
    facts = paper()["table1"]
    back = {theirs: task for task, theirs in facts["tasks"].items()}
    shared = [b for b in facts["benchmarks"] if back.get(b) in run.tasks]
    lines = []
    for name in paper()["overall"]:
        for model in paper()["table2"]:
            lines.append([name, model, *(pair_of(v) for v in facts[model][name])])
        if shared:
            cells = [ours_of(ours.get((name, back.get(b, ""))), run.k) for b in facts["benchmarks"][:-1]]
            every = set(back.values()) == set(run.tasks)
            lines.append([name, HERE, *cells, ours_of(ours.get((name, ALL_TASKS)), run.k) if every else DASH])
    table = markdown(["method", "model", *(f"{b} %" for b in facts["benchmarks"])], lines, left=2)
    return table if shared else folded("The paper's table, benchmark by benchmark", table)


def quality_rows(run: LoadedRun, ours: Mapping[tuple[str, str], Row]) -> list[dict[str, Any]]:
    """Table 1 as rows, fractions in [0, 1]: the paper's without intervals, then ours."""
    facts = paper()["table1"]
    rows: list[dict[str, Any]] = [
        {
            "source": "paper", "method": name, "model": model, "benchmark": benchmark, "budget": 32768, "k": 4,
            "avg": {"value": round(avg / 100, 6)}, "pass": {"value": round(best / 100, 6)},
        }
        for model in paper()["table2"] for name, cells in facts[model].items()
        for benchmark, (avg, best) in zip(facts["benchmarks"], cells, strict=True)
    ]  # fmt: skip
    for (name, task), r in ours.items():
        rows.append(
            {
                "source": HERE, "method": name, "model": r.get("model"), "benchmark": task,
                "budget": r.get("budget_slots"), "k": run.k, "avg": part(r.get("avg")),
                "pass": part((r.get("pass") or {}).get(str(run.k))),
            }
        )  # fmt: skip
    return rows


def part(item: Row | None) -> dict[str, Any]:
    """An estimate's value and interval alone."""
    return {side: item.get(side) for side in ("value", "low", "high")} if item else {}


def table2(run: LoadedRun) -> Exhibit | None:
    """Mean output slots, and how many times those of regular decoding."""
    facts, ours = paper()["table2"], loose_rows(run)
    if not ours:
        return None
    columns = ["method"]
    columns += [c for m in facts for c in (f"the paper, {m}: slots", "÷ regular")]
    columns += [f"{HERE}, all tasks: slots", "÷ regular"]
    base = (ours.get(("regular", ALL_TASKS), {}).get("slots") or {}).get("value")
    lines, rows = [], []
    for model, slots in facts.items():
        rows += [{"source": "paper", "method": n, "model": model, "task": ALL_TASKS, "slots": {"value": v}}
                 for n, v in slots.items()]  # fmt: skip
    for name in names(run):
        cells = [name]
        for slots in facts.values():
            cells += [number(slots.get(name), 0), over(slots.get(name), slots["regular"])]
        mine = ours.get((name, ALL_TASKS), {}).get("slots")
        lines.append([*cells, plus_minus(mine), over(mine and mine["value"], base)])
    rows += [{"source": HERE, "method": name, "model": r.get("model"), "task": task, "slots": part(r.get("slots"))}
             for (name, task), r in ours.items()]  # fmt: skip
    note = (
        "Slots a sample under the loose budget, cut samples included; tasks and models as in table 1. A slot of PIPO "
        "is a pair and holds up to two tokens."
    )
    return Exhibit("table2", "Table 2: mean output slots", rows, markdown(columns, lines), note, absent(run))


def over(value: float | None, base: float | None) -> str:
    return number(value / base, 2) if value is not None and base else DASH


CHANGES = {"pipo-sft": "default", "linear": "linear compressor", "shortest": "shortest right answers alone",
           "start-random": "random start of the compressor"}  # fmt: skip


def table3(run: LoadedRun) -> Exhibit | None:
    """What another compressor, start or choice of data costs PIPO-SFT."""
    facts, known = paper()["table3"], training.trainings(run)
    if "pipo-sft" not in known:
        return None
    default, k = facts["pipo-sft"], run.k
    lines, rows = [], []
    for name, values in facts.items():
        cells = [CHANGES[name], number(values[0], 2), number(values[1], 2)]
        cells.append(DASH if name == "pipo-sft" else " / ".join(
            number(v - d, 2, sign=True) for v, d in zip(values, default, strict=True)))  # fmt: skip
        rows.append({"source": "paper", "row": name, "model": MODEL, "avg": {"value": round(values[0] / 100, 6)},
                     "pass": {"value": round(values[1] / 100, 6)}})  # fmt: skip
        if name not in known:
            lines.append([*cells, DASH, DASH, DASH, DASH, DASH])
            continue
        point = training.shown_point(run, name)
        avg, best = point["avg"], point["pass"].get(str(k))
        gaps = [training.gap(run, name, "pipo-sft", m) for m in ("avg", f"pass@{k}")]
        lines.append(
            [
                *cells, avg["seeds"], percent(avg), percent(best),
                *(f"{interval(g, 100, 1, sign=True)}, {settled(g)}" if g else DASH for g in gaps),
            ]
        )  # fmt: skip
        rows.append({"source": HERE, "row": name, "model": known[name]["from"], "seeds": avg["seeds"], "avg": part(avg),
                     "pass": part(best), "avg_gap": part(gaps[0]), "pass_gap": part(gaps[1])})  # fmt: skip
    columns = ["PIPO-SFT with", "paper: avg@4 %", "pass@4 %", "− default", "seeds", f"{HERE}: avg@{k} %",
               f"pass@{k} %", f"avg@{k} − default [95%]", f"pass@{k} − default [95%]"]  # fmt: skip
    gone = [name for name in facts if name not in known]
    flags = " ".join(f"--row {name}" for name in gone)
    note = (
        f"The study's rows at threshold {training.THRESHOLD:g}, loose budget, on {listed(run.tasks)}: other tasks and "
        "models than the paper's. The paper trained each row once and gives no intervals."
    )
    lacking = f"{listed([CHANGES[n] for n in gone])}; `pipo ablate training {flags}`." if gone else ""
    return Exhibit("table3", "Table 3: compressor, start and data", rows, markdown(columns, lines), note, lacking)
