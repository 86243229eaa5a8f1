"""Run folders of roll-outs written by hand, record by record: for tests of what is built from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import record
from bench.record import SampleRecord, ThroughputRecord

PAD = 0


def sample(item: str, number: int, correct: bool, tokens: int = 5, task: str = "toy", **more: Any) -> SampleRecord:
    ids = more.pop("ids", list(range(10, 10 + tokens)))
    usual: dict[str, Any] = {
        "seed": 7 * number, "finish": "eos", "text": f"{item} {number} <eos>", "prompt_tokens": 3, "places": ids,
        "pad_id": PAD, "slots": len(ids), "gold": "4",
    }  # fmt: skip
    return SampleRecord(variant="teacher", task=task, item=item, sample=number, correct=correct, tokens=len(ids),
                        **(usual | more))  # fmt: skip


def write_run(folder: Path, *samples: SampleRecord, questions: list[str] | None = None) -> Path:
    """A run folder; question ``qN`` has number N and the prompt ``what is qN``."""
    folder.mkdir(parents=True)
    names = questions or sorted({s.item for s in samples})
    rows = [{"number": int(q[1:]), "id": q, "task": "toy", "prompt": f"what is {q}", "answer": "4"} for q in names]
    (folder / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "run.json").write_text(json.dumps({"kind": "rollouts", "spec": {"k": 2, "seed": 7}, "provenance": {}}))
    (folder / "summary.json").write_text("{}")
    rate = ThroughputRecord(variant="teacher", task="toy", batch=4, wall_s=1.0, tokens=9, slots=9, steps=3)
    record.append(folder / "records.jsonl", [*samples[:1], rate, *samples[1:]])
    return folder
