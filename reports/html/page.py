"""Putting the page together: text, style, script and data in one file, under a policy that forbids all else."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from reports.html.choose import RECORDS, Chosen, has_generations
from reports.html.escape import attribute, script_json
from reports.html.markup import Heading, render
from reports.html.tokens import ModelFolder, texts
from reports.kinds import KINDS
from reports.load import LoadedRun

ROOM = 9_000_000  # bytes of traces in a page
STYLES = ("page.css", "viewer.css")
SCRIPTS = ("tables.js", "steps.js", "player.js", "viewer.js")


def write(
    path: Path,
    markdown: str,
    runs: Sequence[LoadedRun],
    figures: Collection[str],
    model_folder: ModelFolder | None = None,
) -> Path:
    """Write the one-file page by rename, and return its path.

    Args:
        markdown: the text of report.md.
        figures: file names of its figures, which lie beside ``path``.
        model_folder: from a model's name in a run to its folder, for the text of tokens; without it names are paths.

    Raises:
        OSError: ``path`` cannot be written.
    """
    body = render(markdown, path.parent, figures)
    index, blobs = viewer_data(runs, model_folder)
    style, script = _files(STYLES), _files(SCRIPTS)
    parts = {
        "policy": _policy(style, script),
        "title": attribute(body.title),
        "style": style,
        "contents": _contents(body.headings, bool(blobs)),
        "body": body.html,
        "data": _data(index, blobs),
        "script": script,
    }
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(_fill(_files(("page.html",)), parts), encoding="utf-8", newline="\n")
    os.replace(draft, path)
    return path


def viewer_data(runs: Sequence[LoadedRun], model_folder: ModelFolder | None) -> tuple[dict[str, Any], list[str]]:
    """The picker's index over all runs with generations, and the traces of each item as JSON."""
    sampled = [run for run in runs if not KINDS[run.kind].plain and has_generations(run.folder / RECORDS)]
    chosen: list[Chosen] = []
    blobs: list[str] = []
    for n, run in enumerate(sampled):
        name = f"{n + 1}. {run.run.kind}" if len(sampled) > 1 else run.run.kind
        found = Chosen(run, name, ROOM // len(sampled), len(blobs))
        blobs += found.blobs
        chosen.append(found)
    vocabularies = _vocabularies(chosen, model_folder)
    return {"runs": [c.index for c in chosen], "vocabularies": vocabularies}, blobs


def _vocabularies(chosen: Sequence[Chosen], model_folder: ModelFolder | None) -> list[dict[str, Any]]:
    """Text by id, once for all variants that share it; each variant learns which one is its own."""
    ids = set().union(*(seen for c in chosen for seen in c.ids.values()))
    made: dict[tuple[str | None, str], int] = {}
    out: list[dict[str, Any]] = []
    for c in chosen:
        for variant, name in zip(c.index["variants"], c.models, strict=True):
            model = c.family, name
            if model not in made:
                found = texts(name, c.family, ids, model_folder)
                table = {"text": {str(i): t for i, t in sorted(found.known.items())}, "note": found.note}
                if table not in out:
                    out.append(table)
                made[model] = out.index(table)
            variant["vocabulary"] = made[model]
    return out


def _data(index: dict[str, Any], blobs: Sequence[str]) -> str:
    data = [("traces", script_json(index)), *((f"item-{n}", blob) for n, blob in enumerate(blobs))]
    return "\n".join(f'<script type="application/json" id="{name}">{text}</script>' for name, text in data)


def _contents(headings: Sequence[Heading], viewer: bool) -> str:
    rows = [f'<li class="l{h.level}"><a href="#{h.id}">{attribute(h.text)}</a></li>' for h in headings]
    if viewer:
        rows.append('<li class="l2 tool"><a href="#viewer">Trace viewer</a></li>')
    return "\n".join(rows)


def _files(names: Sequence[str]) -> str:
    folder = resources.files("reports.html")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _policy(style: str, script: str) -> str:
    """Nothing from anywhere, nothing sent anywhere; style and script by their hashes alone, figures as data."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _fill(template: str, parts: dict[str, str]) -> str:
    """Each ``{{name}}`` of the template replaced, once: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
