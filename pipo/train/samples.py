"""Samples of a model in training, for people to read: a few prompts, the same each time, decoded with the gate on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipo.engine.types import Method, Request
from pipo.jobs import JobContext
from pipo.train.rollouts import EmbeddedRollouts, pairs_of

PROMPTS, SLOTS, THRESHOLD = 2, 256, 0.95


class Samples:
    """Called with a step: decodes, appends to ``samples.jsonl``, tells whoever follows the job, returns the text."""

    def __init__(
        self, model: Any, tokenizer: Any, prompts: Sequence[list[int]], folder: Path, ctx: JobContext,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.dtype = dtype
        self.model, self.tokenizer, self.prompts = model, tokenizer, list(prompts[:PROMPTS])
        self.path, self.ctx = folder / "samples.jsonl", ctx

    def __call__(self, step: int) -> str:
        roller = EmbeddedRollouts(self.model, PROMPTS, pairs_of(self.prompts, SLOTS), self.dtype)
        training = self.model.training
        self.model.eval()
        with torch.random.fork_rng():
            roller.wake()
            found = roller.generate(
                Request(id=str(i), prompt=tuple(p), method=Method("pipo", threshold=THRESHOLD), max_slots=SLOTS)
                for i, p in enumerate(self.prompts)
            )
        self.model.train(training)
        self._cut(step)
        texts = []
        for i, prompt in enumerate(self.prompts):
            events = found[str(i)]
            drafts = [d for e in events for d in e.drafts]
            row = {
                "step": step,
                "prompt": self.tokenizer.decode(prompt, skip_special_tokens=False),
                "text": self.tokenizer.decode([t for e in events for t in e.tokens], skip_special_tokens=False),
                "slots": sum(e.slots for e in events),
                "kept": round(sum(d.kept for d in drafts) / max(1, len(drafts)), 3),
                "finish": events[-1].finish,
            }
            with open(self.path, "a") as f:
                f.write(json.dumps(row) + "\n")
            texts.append(f"{row['prompt'][-200:]} → {row['text']}")
        self.ctx.emit("log", text=f"step {step}: {texts[0]}")
        return "\n\n".join(texts)

    def _cut(self, step: int) -> None:
        """Drop samples of this step and later ones, left by a training that this one repeats."""
        if self.path.exists():
            kept = [x for x in self.path.read_text().split("\n")[:-1] if json.loads(x)["step"] < step]
            self.path.write_text("".join(x + "\n" for x in kept))
