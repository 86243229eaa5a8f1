"""The geometry study in a report: figures 8 to 12 beside the paper's values, and PADs.

Schema: ablations/geometry_summary.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import geometry_figures as figures
from reports.load import LoadedRun
from reports.paper import paper
from reports.settle import OPEN, settled
from reports.style import Look
from reports.text import DASH, folded, image, interval, listed, markdown, number, plus_minus

ALT = (
    "Jacobian share, swap, additivity and PAD quantities of each compressor beside the paper's",
    "Latents of pairs and of pairs with a PAD on their principal components",
    "Where PADs fall, and what confidence is worth",
)
SPACE = {
    "dimensions": "dimensions", "sum_dimensions": "of the sums", "pc1": "component 1 %", "pc2": "component 2 %",
    "between_share": "between kinds %", "pad_spread_ratio": "spread PAD / real", "centroid_cosine": "cos of centroids",
}  # fmt: skip


def what(run: LoadedRun) -> str:
    """One line: what was looked at."""
    s = run.summary
    return (
        f"Compressors of {listed(s['subjects'])} on {s['pairs']} pairs of {s['prompts']} prompts, written by "
        f"{s['source']} at threshold {s['threshold']:g}."
    )


def series(run: LoadedRun) -> list[str]:
    """None: its figures have looks of their own."""
    return []


def draw(run: LoadedRun, stem: str, styles: Mapping[str, Look]) -> dict[str, Any]:
    """Figures 8 to 11, figure 12, and PADs."""
    found = {stem: figures.quantities(run), f"{stem}-space": figures.space(run)}
    return found | ({f"{stem}-pads": figures.pads(run)} if run.summary["pads"] else {})


def lists(run: LoadedRun) -> dict[str, Any]:
    """Rows of further tables."""
    pads = [{"entry": figures.entry_name(e), **e} for e in run.summary["pads"]]
    nested = ("by_part", "runs", "after", "confidence")
    out = {name: run.summary.get(name) for name in ("differences", "spaces", "explained", "points")}
    out["pads"] = [{k: v for k, v in e.items() if k not in nested} for e in pads]
    for name in nested:
        out[f"pads-{name.replace('_', '-')}"] = [{"entry": e["entry"], **row} for e in pads for row in e[name]]
    return out


def answer(run: LoadedRun) -> str:
    """What the first model's compressor is, in one bullet."""
    found, facts = figures.values(run), paper()["appendix_e"]
    s = run.summary["source"]

    def one(quantity: str) -> str:
        return f"{number(found[s, quantity]['value'], 2)} (paper {facts[quantity]:.2f})"

    return (
        f"- **Compressor of {s}**: the first slot has {one('first_slot_jacobian_share')} of the Jacobian; swapping a "
        f"pair leaves a cosine of {one('swap_cosine')}; the cosine to the plain sum is {one('cosine_to_sum')}; a pair "
        f"with a PAD keeps {one('pad_second_cosine_to_survivor')} of its survivor's direction."
    )


def section(run: LoadedRun, names: list[str]) -> list[str]:
    """The study's part of a page."""
    images = [image(name, alt) for name, alt in zip(names, ALT, strict=False)]
    s = run.summary
    parts = [
        "## Geometry of the compressor",
        f"C(a, b): the latent of a pair of embeddings. {s['pairs']} pairs ({s['different_pairs']} different ones) of "
        f"two real tokens from {s['prompts']} prompts; the same pairs for every compressor. *start …* is untrained, "
        f"over the embeddings of {s['source']}. The paper gives no formulas; ours stand below the table.",
        *images[:1],
        "### Figures 8 to 11: quantities of pairs",
        quantities_table(run),
        folded("What each quantity is", _definitions(run, figures.WORDS)),
        f"### Differences to {s['source']}, pair by pair",
        differences_table(run),
        "### Figure 12: the latent space",
        *images[1:2],
        space_table(run),
        folded("What each column is", _definitions(run, SPACE)),
    ]
    if s["pads"]:
        parts += ["### PADs in decoding", *images[2:3], pads_table(run), _pads_words()]
    return parts


def quantities_table(run: LoadedRun) -> str:
    """Quantities down, compressors across, the paper last."""
    found, facts, subjects = figures.values(run), paper()["appendix_e"], run.summary["subjects"]
    lines = [
        [figures.FIGURES[q], word, *(plus_minus(found.get((s, q)), digits=3) for s in subjects), f"{facts[q]:.2f}"]
        for q, word in figures.WORDS.items()
    ]
    return markdown(["figure", "quantity", *subjects, "paper"], lines, left=2)


def differences_table(run: LoadedRun) -> str:
    """Each compressor minus the first model's, with what is settled in bold."""
    gaps = {(d["subject"], d["quantity"]): d for d in run.summary["differences"]}
    subjects = [s for s in run.summary["subjects"] if s != run.summary["source"]]

    def cell(d: Mapping[str, Any] | None) -> str:
        text = interval(d, 1, 4, sign=True) if d else DASH
        return f"**{text}**" if d and settled(d) != OPEN else text

    lines = [[word, *(cell(gaps.get((s, q))) for s in subjects)] for q, word in figures.WORDS.items()]
    return markdown(["quantity", *subjects], lines)


def space_table(run: LoadedRun) -> str:
    """One row a compressor."""
    lines = []
    for row in run.summary["spaces"]:
        cells = [
            plus_minus(row[q], 100 if word.endswith("%") else 1, 1 if word.endswith("%") or "dim" in q else 2)
            for q, word in SPACE.items()
        ]
        lines.append([row["subject"], *cells])
    return markdown(["compressor", *SPACE.values()], lines)


def pads_table(run: LoadedRun) -> str:
    """One row a variant that writes PADs."""
    lines = []
    for e in run.summary["pads"]:
        shares = [plus_minus(e[key], 100) for key in ("pad_share", "pad_chance_after_pad", "pad_chance_after_kept")]
        lines.append(
            [figures.entry_name(e), e["samples"], e["slots"], *shares, plus_minus(e["run_length"], digits=2),
             plus_minus(e["agreement"], 100), plus_minus(e["agreement_expected"], 100),
             plus_minus(e["chance_kept"], 100)]
        )  # fmt: skip
    columns = ["variant", "samples", "drafts", "PAD %", "after a PAD %", "after a kept one %", "run of PADs",
               "rejected came next %", "expected %", "kept would come %"]  # fmt: skip
    return markdown(columns, lines)


def _pads_words() -> str:
    return (
        "*rejected came next*: rejected drafts that were the very next first token. *expected*: the chance that the "
        "model gives them there, from a forward pass; the two must agree. *kept would come*: the chance that a kept "
        "draft is what the model says after a PAD in its place. *after a PAD*, *after a kept one*: share of drafts "
        "rejected right behind such a slot; equal shares mean that PADs do not come in bursts."
    )


def _definitions(run: LoadedRun, names: Mapping[str, str]) -> str:
    known = run.summary["definitions"]
    return "\n".join(f"- {names[q]}: {known[q]}" for q in names if q in known)
