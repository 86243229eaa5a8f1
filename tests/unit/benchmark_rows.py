"""Rows by the published schemas of benchmarks whose items may not be shown or were not at hand; made by hand."""

from __future__ import annotations

import base64
import csv
import json
import pickle
import zlib
from pathlib import Path
from typing import Any


def gpqa_row(n: int = 1, **more: str) -> dict[str, str]:
    return {
        "Pre-Revision Question": "not this one", "Question": f"How many, case {n}?\nAs a \"number\", please.",
        "Correct Answer": f"right {n}\n", "Incorrect Answer 1": f"wrong a {n}", "Incorrect Answer 2": f"wrong b {n}",
        "Incorrect Answer 3": f"wrong c {n}", "Explanation": "because", "High-level domain": "Physics",
        "Record ID": f"rec{n}", **more,
    }  # fmt: skip


def write_csv(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    with open(path, "w", newline="", encoding=encoding) as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def packed(cases: list[dict[str, str]], raw: bytes | None = None) -> str:
    """Tests as LiveCodeBench packs them: base 64 of deflated pickle of JSON text."""
    raw = pickle.dumps(json.dumps(cases)) if raw is None else raw
    return base64.b64encode(zlib.compress(raw)).decode()


def lcb_row(n: int = 1, day: str = "2025-02-08", function: bool = False, **more: Any) -> dict[str, Any]:
    kind = "functional" if function else "stdin"
    case = {"input": f"{n}\n", "output": f"{2 * n}\n", "testtype": kind}
    hidden = {"input": f"{n + 1}\n", "output": f"{2 * n + 2}\n", "testtype": kind}
    return {
        "question_title": f"Double {n}", "question_content": f"Given ${n}$, print twice it.", "platform": "atcoder",
        "question_id": f"q{n}", "contest_id": "c", "contest_date": f"{day}T00:00:00", "difficulty": "easy",
        "starter_code": "class Solution:\n    def twice(self, n: int) -> int:\n        " if function else "",
        "public_test_cases": json.dumps([case]), "private_test_cases": packed([hidden]),
        "metadata": json.dumps({"func_name": "twice"} if function else {}), **more,
    }  # fmt: skip


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path
