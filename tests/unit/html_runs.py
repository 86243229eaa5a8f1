"""Runs for the tests of report.html: real generations by tiny models, records made by hand, hostile text."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

from bench import record
from bench.record import SampleRecord
from pipo.engine.types import Draft
from tests.unit.reports_runs import compare_summary, write_run

HOSTILE = (
    "</script><script>window.owned = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.owned = 1'>",
    "![x](http://example.invalid/a.png) [y](javascript:window.owned=1) <http://example.invalid>",
    "\u202eright to left\u202c \u2066isolate\u2069 \u200bnothing",
    "\x00\x07\x1b[31mred\x7f\x9b",
    "'\"><svg onload=window.owned=1>",
    "{{script}} {{body}}",
    "</details></section></main></style><style>*{display:none}</style>",
    "line\u2028separator \ufeff mark",
)


def sample(item: str = "i0", variant: str = "regular", number: int = 0, **more: Any) -> SampleRecord:
    """One record of a regular generation, with times; fields by name."""
    places = more.pop("places", [5, 6, 7])
    known = {
        "task": "lab-chain", "seed": 11, "places": places, "pad_id": 0, "text": "a b c", "answer": "4", "gold": "4",
        "correct": True, "slots": len(places), "tokens": len(places), "steps": len(places), "ttft_s": 0.1,
        "first_pair_s": 0.2, "token_times_s": [round(0.1 * (i + 1), 4) for i in range(len(places))],
    }  # fmt: skip
    return SampleRecord(variant=variant, item=item, sample=number, **(known | more))


def pair(item: str = "i0", number: int = 0, **more: Any) -> SampleRecord:
    """Three pairs: a kept draft, one that was not kept, and an end without a draft."""
    drafts = [Draft(6, True, 0.97), Draft(8, False, 0.3)]
    known = {"places": [5, 6, 7, 0, 2, 0], "slots": 3, "tokens": 4, "steps": 3, "drafts": drafts,
             "token_times_s": [0.1, 0.2, 0.3, 0.4]}  # fmt: skip
    return sample(item, "pipo-sft", number, **(known | more))


def made_run(folder: Path, records: list[SampleRecord]) -> Path:
    """The run folder of tests/unit/reports_runs.py with these records."""
    write_run(folder, compare_summary())
    (folder / "records.jsonl").unlink()
    record.append(folder / "records.jsonl", records)
    return folder


class Parsed(html.parser.HTMLParser):
    """A page as a browser's parser sees it: tags with attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag in ("script", "style")
        if self._inside:
            self.blocks.append((dict(attrs) | {"tag": tag}, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.blocks[-1] = (self.blocks[-1][0], self.blocks[-1][1] + data)
        else:
            self.text += data

    def data(self, name: str) -> Any:
        """The JSON of a data block."""
        (found,) = [text for attrs, text in self.blocks if attrs.get("id") == name]
        return json.loads(found)

    def scripts(self) -> list[str]:
        """What would run."""
        return [text for attrs, text in self.blocks if attrs["tag"] == "script" and "type" not in attrs]

    def addresses(self) -> list[str]:
        """All that an element points to, and what style points to; figures inside are left out."""
        found = [str(a[key]) for _, a in self.tags for key in ("src", "href", "action", "srcset", "poster") if key in a]
        found += [
            u for attrs, text in self.blocks if attrs["tag"] == "style" for u in re.findall(r"url\(|@import", text)
        ]
        return [u for u in found if not re.match(r"data:image/(png|svg\+xml);base64,", u)]
