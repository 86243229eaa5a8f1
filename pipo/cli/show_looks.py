"""Results of ``pipo ablate geometry`` and ``lossiness`` as short tables for a terminal."""

from __future__ import annotations

from typing import Any

from pipo.cli.output import print_table

OVERALL = "overall"


def geometry(result: dict[str, Any]) -> None:
    """Quantities down, compressors across, the paper's value last; then each model's PADs."""
    from reports.paper import paper

    facts = paper()["appendix_e"]
    value = {(r["subject"], r["quantity"]): r["value"] for r in result.get("rows", ())}
    subjects = result.get("subjects", ())
    print(
        f"{result.get('pairs')} pairs of {result.get('prompts')} prompts, written by {result.get('source')}; ± half of "
        "the 95% interval, clustered by prompt\n"
    )
    quantities = list(dict.fromkeys(q for _, q in value))
    print_table(
        ["quantity", *subjects, "paper"],
        [
            [q.replace("_", " "), *(number(value.get((s, q)), 3) for s in subjects), f"{facts[q]:.2f}"]
            for q in quantities
        ],
    )
    print()
    columns = ["PADs of", "slots", "PAD %", "after PAD %", "after kept %", "run", "rejected = next %", "expected %"]
    print_table(columns, [_pads(entry) for entry in result.get("pads", ())])


def _pads(entry: dict[str, Any]) -> list[str]:
    keys = ("pad_share", "pad_chance_after_pad", "pad_chance_after_kept")
    name = f"{entry['variant']} ({entry['run'].rsplit('/', 1)[-1]})" if entry["run"] else entry["variant"]
    return [
        name, str(entry["slots"]), *(number(entry[key], 1, 100) for key in keys), number(entry["run_length"], 2),
        number(entry["agreement"], 1, 100), number(entry["agreement_expected"], 1, 100),
    ]  # fmt: skip


def lossiness(result: dict[str, Any]) -> None:
    """A line a method and model over all texts: total variation by kind of place, KL, distance to the own twin."""
    print(
        f"{result.get('texts')} texts of {result.get('base')}, temperature "
        f"{result.get('sampling', {}).get('temperature')}; TV: total variation to regular decoding of it, percent; ± "
        "half of the 95%\ninterval, clustered by item; KL in nats; twin: the same model at threshold 1; accepted: by a "
        "verifier over the base\n"
    )
    tasks = result.get("tasks", ())
    whole = OVERALL if len(tasks) > 1 else tasks[0]
    rows = {(r["method"], r["model"], r["place"]): r for r in result.get("rows", ()) if r["task"] == whole}
    table = []
    for method, model in dict.fromkeys((m, name) for m, name, _ in rows):
        at = {place: rows.get((method, model, place), {}) for place in ("all", "first", "second", "draft")}
        table.append(
            [
                method, model, *(number(at[place].get("tv"), 2, 100) for place in at),
                number(at["all"].get("kl_reference"), 3), number(at["all"].get("kl_method"), 3),
                number(at["all"].get("twin_tv"), 2, 100), number(at["second"].get("accept_reference"), 1, 100),
            ]
        )  # fmt: skip
    columns = ["method", "model", "TV all", "first", "second", "kept draft", "KL(reg||m)", "KL(m||reg)", "TV twin",
               "accepted %"]  # fmt: skip
    print_table(columns, table, left=["model"])
    found = result.get("lossless") or {}
    print(
        f"\neagle loses nothing: {'yes' if found.get('holds') else 'NO'}, largest total variation "
        f"{found.get('largest_tv', 0):.1e} over {found.get('places')} verified places"
    )


def number(estimate: dict[str, Any] | None, digits: int, scale: float = 1.0) -> str:
    """``0.665 ±0.007``: an estimate times ``scale`` and half of its interval; ``-`` for none."""
    if not estimate:
        return "-"
    value = f"{scale * estimate['value']:.{digits}f}"
    if estimate.get("low") is None:
        return value
    return f"{value} ±{scale * (estimate['high'] - estimate['low']) / 2:.{digits}f}"
