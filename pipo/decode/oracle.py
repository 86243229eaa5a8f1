"""The slow, obvious twin of every method: one sequence, the whole Hugging Face forward again for every token.

No caches, no batches, no rollback; it shares with the fast path only the sampling functions, with the same seeds.
Tests hold the engine to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose, Settings, Stream, draw, residual
from pipo.engine.types import Draft, Request
from pipo.errors import BadInput


@dataclass
class Sample:
    """What one request generates: real tokens, places with PADs, slots, every draft, why it ended."""

    tokens: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    slots: int = 0
    drafts: list[Draft] = field(default_factory=list)
    finish: str | None = None


@torch.inference_mode()
def generate(model: Any, request: Request) -> Sample:
    """Generate one request with ``model`` (a PipoForCausalLM); what the torch engine must produce, slowly."""
    run = _Run(model, request)
    steps = {"regular": run.regular, "mtp": run.mtp, "eagle": run.eagle, "pipo": run.pair, "random": run.pair}
    while run.out.finish is None:
        steps[request.method.name]()
    return run.out


class _Run:
    def __init__(self, model: Any, request: Request) -> None:
        if request.method.pairs != model.is_pipo:
            raise BadInput(f"method {request.method.name!r} does not fit this model")
        self.model, self.request, self.out = model, request, Sample()
        self.pad, self.vocab = model.config.pad_token_id, model.config.vocab_size
        self.settings = Settings([request.sampling], self.vocab, model.device)
        self.stream = Stream(request.seed)
        self.ids = list(request.prompt)
        if request.method.pairs and len(self.ids) % 2:
            self.ids.append(self.pad)

    def tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.model.device)

    def probabilities(self, logits_V: Tensor, more: list[int] | None = None) -> Tensor:
        """The distribution [1, V] after what was generated so far and ``more``."""
        logits = logits_V.float()[None].clone()
        logits[0, self.pad] = -torch.inf
        seen = torch.zeros_like(logits)
        seen[0, self.out.tokens + (more or [])] = 1
        return self.settings.probabilities(logits, seen)

    def uniform(self, purpose: Purpose, place: int) -> Tensor:
        return torch.tensor([self.stream.at(purpose, place)], dtype=torch.float64, device=self.model.device)

    def draw(self, p_1V: Tensor, purpose: Purpose, place: int) -> int:
        return int(draw(p_1V, self.uniform(purpose, place)))

    def is_end(self, token: int) -> bool:
        return token == self.model.config.eos_token_id and not self.request.ignore_eos

    def budget(self) -> str | None:
        r, out = self.request, self.out
        if r.max_tokens is not None and len(out.tokens) >= r.max_tokens:
            return "tokens"
        return "slots" if r.max_slots is not None and out.slots >= r.max_slots else None

    def add(self, token: int) -> bool:
        """Commit one token of a token method; whether the request goes on."""
        out = self.out
        self.ids.append(token)
        out.tokens.append(token)
        out.places.append(token)
        out.slots += 1
        out.finish = "eos" if self.is_end(token) else self.budget()
        return out.finish is None

    def regular(self) -> None:
        logits = self.model.forward_regular(self.tensor(self.ids + [self.pad])).logits[0, -2]
        self.add(self.draw(self.probabilities(logits), Purpose.TOKEN, self.out.slots))

    def mtp(self) -> None:
        self.regular()
        if self.out.finish is None:
            logits = self.model.forward_regular(self.tensor(self.ids)).mtp_logits[0, -1]
            token = self.draw(self.probabilities(logits), Purpose.DRAFT, self.out.slots)
            self.out.drafts.append(Draft(token, True))
            self.add(token)

    def eagle(self) -> None:
        if not self.out.slots:
            return self.regular()
        place, model = self.out.slots, self.model
        drafts: list[int] = []
        hidden = model.run_backbone(model.embed(self.tensor(self.ids)))[:, :-1]
        q = []
        for j in range(self.request.method.depth):
            d = model.mtp(model.embed(self.tensor(self.ids[1:] + drafts)), hidden)[:, -1:]
            q.append(self.probabilities(model.lm_head(d)[0, 0], drafts))
            drafts.append(self.draw(q[-1], Purpose.DRAFT, place + j))
            hidden = torch.cat([hidden, d], 1)
        h = model.run_backbone(model.embed(self.tensor(self.ids + drafts)))
        target = model.lm_head(h)[0, len(self.ids) - 1 :]
        for j, x in enumerate(drafts):
            p = self.probabilities(target[j])
            if not self.uniform(Purpose.ACCEPT, place + j) * q[j][0, x] < p[0, x]:
                self.out.drafts += [Draft(y, False) for y in drafts[j:]]
                self.add(self.draw(residual(p, q[j]), Purpose.TOKEN, place + j))
                return
            self.out.drafts.append(Draft(x, True))
            if not self.add(x):
                return
        self.add(self.draw(self.probabilities(target[-1]), Purpose.TOKEN, place + len(drafts)))

    def pair(self) -> None:
        out, method, place = self.out, self.request.method, 2 * self.out.slots
        logits = self.model(self.tensor([*self.ids, self.pad, self.pad])).logits[0, -2]  # the MTP head needs a place
        first = self.draw(self.probabilities(logits), Purpose.TOKEN, place)
        out.tokens.append(first)
        second = self.pad
        if not self.is_end(first) and self.budget() != "tokens":
            after = self.model(self.tensor([*self.ids, first, self.pad]))
            draft = self.draw(self.probabilities(after.mtp_logits[0, -1]), Purpose.DRAFT, place + 1)
            c = None
            if method.name == "pipo":
                c = float(after.confidence_logits[0, -1].sigmoid())
                kept = method.threshold == 0 or (method.threshold < 1 and c >= method.threshold)
            else:
                kept = bool(self.uniform(Purpose.GATE, place + 1) < method.keep_rate)
            out.drafts.append(Draft(draft, kept, c))
            if kept:
                second = draft
                out.tokens.append(draft)
        out.places += [first, second]
        out.slots += 1
        self.ids += [first, second]
        ended = self.is_end(first) or (second != self.pad and self.is_end(second))
        out.finish = "eos" if ended else self.budget()
