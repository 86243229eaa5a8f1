"""Tiny models, a task, and a job context that counts: what tests of the measuring jobs share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipo.jobs import LocalContext

K = 2
WORDS = ["<bos>", "chain", "a", "=", "4", "+", "2", ";", "b", "=", "a", "*", "7", "?"]


class Context(LocalContext):
    """Counts loads, keeps events, and cancels at the n-th check."""

    def __init__(self, folder: Path, cancel_at: int | None = None) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        super().__init__(folder, lambda kind, data: self.events.append((kind, data)))
        self.loads: list[str] = []
        self.checks, self.cancel_at = 0, cancel_at

    def check(self) -> None:
        self.checks += 1
        self.cancelled = self.checks == self.cancel_at
        super().check()

    def resident(self, key: str, load: Callable[[], Any]) -> Any:
        def counted() -> Any:
            self.loads.append(key)
            return load()

        return super().resident(key, counted)


def make_home(folder: Path) -> Path:
    """Two tiny models and a task of five items with budgets of 6 and 12 slots."""
    from pipo.lab.tokenizer import VOCAB_SIZE, lab_tokenizer
    from pipo.model import save_model
    from pipo.model.testing import tiny_model

    for name, pipo in (("regular", False), ("pipo", True)):
        save_model(tiny_model(pipo=pipo, vocab=VOCAB_SIZE, layers=2), folder / name, lab_tokenizer())
    rows = [{"id": f"i{n}", "prompt": " ".join(WORDS[: 6 + n]), "answer": "2", "level": n} for n in range(5)]
    (folder / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "task.toml").write_text('name = "toy"\nfile = "items.jsonl"\n[budgets]\ntight = 6\nloose = 12\n')
    return folder


def spec(home: Path, *names: str, **more: Any) -> dict[str, Any]:
    methods = {
        "regular": {"name": "regular"}, "mtp": {"name": "mtp"}, "eagle": {"name": "eagle", "depth": 2},
        "pipo": {"name": "pipo", "threshold": 0.5},
    }  # fmt: skip
    variants = [
        {"name": n, "model": str(home / ("pipo" if n == "pipo" else "regular")), "method": methods[n]} for n in names
    ]
    return {"variants": variants, "tasks": [str(home / "task.toml")], "k": K, "max_batch": 4, "seed": 7, **more}
