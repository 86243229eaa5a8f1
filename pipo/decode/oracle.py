"""The slow, obvious twin of every method: one sequence, the whole Hugging Face forward again for every token.

No caches, no batches, no rollback; it shares with the fast path only the sampling functions, with the same seeds.
Tests hold the engine to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipo.decode.sampling import Purpose, Settings, Stream, draw, residual
from pipo.engine.types import Draft, Logprob, Request
from pipo.errors import BadInput
from pipo.model.draft_vocab import eos_ids

Decode = Callable[[list[int]], str]


@dataclass
class Sample:
    """What one request generates: real tokens, places with PADs, slots, every draft, why it ended.

    ``logprobs``: one a token, where the request asked for them.
    """

    tokens: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    slots: int = 0
    drafts: list[Draft] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    finish: str | None = None


@torch.inference_mode()
def generate(model: Any, request: Request, decode: Decode | None = None) -> Sample:
    """Generate one request with ``model`` (a PipoForCausalLM); what the torch engine must produce, slowly.

    ``decode``: text of token ids, needed for stop strings alone.
    """
    run = _Run(model, request, decode)
    steps = {"regular": run.regular, "mtp": run.mtp, "eagle": run.eagle, "pipo": run.pair, "random": run.pair}
    while run.out.finish is None:
        steps[request.method.name]()
    return run.out


class _Run:
    def __init__(self, model: Any, request: Request, decode: Decode | None) -> None:
        if request.method.pairs and not model.is_pipo:
            raise BadInput(f"method {request.method.name!r} needs a PIPO model; this is a regular one")
        if request.stop and decode is None:
            raise BadInput("stop strings are found in text; give the oracle a decode function")
        self.model, self.request, self.decode, self.out = model, request, decode, Sample()
        self.pad, self.vocab = model.config.pad_token_id, model.config.vocab_size
        self.settings = Settings([request.sampling], self.vocab, model.device)
        self.stream = Stream(request.seed)
        self.ids = list(request.prompt)
        if request.method.pairs and len(self.ids) % 2:
            self.ids.append(self.pad)

    def tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.model.device)

    def head(self, logits_V: Tensor) -> Tensor:
        """The backbone's raw logits [1, V], without PAD."""
        logits = logits_V.float()[None].clone()
        logits[0, self.pad] = -torch.inf
        return logits

    def draft_head(self, logits_V: Tensor) -> Tensor:
        """The MTP head's raw logits [1, V], without PAD and what is outside the draft vocabulary."""
        logits = self.head(logits_V)
        if self.model.draft_ids is None:
            return logits
        inside = torch.zeros_like(logits, dtype=torch.bool)
        inside[0, self.model.draft_ids] = True
        return logits.masked_fill(~inside, -torch.inf)

    def probabilities(self, logits_1V: Tensor, more: list[int] | None = None) -> Tensor:
        """The distribution [1, V] after what was generated so far and ``more``."""
        counts = torch.zeros_like(logits_1V)
        for token in self.out.tokens + (more or []):
            counts[0, token] += 1
        return self.settings.probabilities(logits_1V, counts)

    def uniform(self, purpose: Purpose, place: int) -> Tensor:
        return torch.tensor([self.stream.at(purpose, place)], dtype=torch.float64, device=self.model.device)

    def draw(self, p_1V: Tensor, purpose: Purpose, place: int) -> int:
        return int(draw(p_1V, self.uniform(purpose, place)))

    def is_end(self, token: int) -> bool:
        return token in eos_ids(self.model.config) and not self.request.ignore_eos

    def stopped(self) -> bool:
        """Whether a stop string stands in the text of the tokens so far."""
        if not self.request.stop:
            return False
        assert self.decode is not None
        text = self.decode(self.out.tokens)
        return any(s in text for s in self.request.stop)

    def budget(self) -> str | None:
        r, out = self.request, self.out
        if r.max_tokens is not None and len(out.tokens) >= r.max_tokens:
            return "tokens"
        return "slots" if r.max_slots is not None and out.slots >= r.max_slots else None

    def take(self, token: int, logits_1V: Tensor) -> str | None:
        """Let a token come out, with its log-probability under these raw logits; ``eos`` or ``stop`` where it ends."""
        self.out.tokens.append(token)
        if self.request.logprobs is not None:
            self.out.logprobs.append(self.logprob(token, logits_1V, self.request.logprobs))
        if self.is_end(token):
            return "eos"
        return "stop" if self.stopped() else None

    def logprob(self, token: int, logits_1V: Tensor, top: int = 0) -> Logprob:
        values = logits_1V[0].log_softmax(-1).tolist()
        likeliest = sorted((i for i in range(self.vocab) if values[i] > -torch.inf), key=lambda i: -values[i])
        return Logprob(values[token], tuple((i, values[i]) for i in likeliest[:top]))

    def add(self, token: int, logits_1V: Tensor) -> bool:
        """Commit one token of a token method; whether the request goes on."""
        out = self.out
        end = self.take(token, logits_1V)
        self.ids.append(token)
        out.places.append(token)
        out.slots += 1
        out.finish = end or self.budget()
        return out.finish is None

    def regular(self) -> None:
        logits = self.head(self.model.forward_regular(self.tensor([*self.ids, self.pad])).logits[0, -2])
        self.add(self.draw(self.probabilities(logits), Purpose.TOKEN, self.out.slots), logits)

    def mtp(self) -> None:
        self.regular()
        if self.out.finish is None:
            logits = self.draft_head(self.model.forward_regular(self.tensor(self.ids)).mtp_logits[0, -1])
            token = self.draw(self.probabilities(logits), Purpose.DRAFT, self.out.slots)
            self.out.drafts.append(Draft(token, True))
            self.add(token, logits)

    def eagle(self) -> None:
        if not self.out.slots:
            return self.regular()
        place, model = self.out.slots, self.model
        drafts: list[int] = []
        hidden = model.run_backbone(model.embed(self.tensor(self.ids)))[:, :-1]
        q = []
        for j in range(self.request.method.depth):
            d = model.mtp(model.embed(self.tensor(self.ids[1:] + drafts)), hidden)[:, -1:]
            q.append(self.probabilities(self.draft_head(model.lm_head(d)[0, 0]), drafts))
            drafts.append(self.draw(q[-1], Purpose.DRAFT, place + j))
            hidden = torch.cat([hidden, d], 1)
        h = model.run_backbone(model.embed(self.tensor(self.ids + drafts)))
        target = [self.head(x) for x in model.lm_head(h)[0, len(self.ids) - 1 :]]
        for j, x in enumerate(drafts):
            p = self.probabilities(target[j])
            if not self.uniform(Purpose.ACCEPT, place + j) * q[j][0, x] < p[0, x]:
                self.out.drafts += [Draft(y, False) for y in drafts[j:]]
                self.add(self.draw(residual(p, q[j]), Purpose.TOKEN, place + j), target[j])
                return
            self.out.drafts.append(Draft(x, True))
            if not self.add(x, target[j]):
                return
        self.add(self.draw(self.probabilities(target[-1]), Purpose.TOKEN, place + len(drafts)), target[-1])

    def pair(self) -> None:
        out, method, place = self.out, self.request.method, 2 * self.out.slots
        # the MTP head needs a place
        logits = self.head(self.model(self.tensor([*self.ids, self.pad, self.pad])).logits[0, -2])
        first, second = self.draw(self.probabilities(logits), Purpose.TOKEN, place), self.pad
        end = self.take(first, logits)
        if end is None and self.budget() != "tokens":
            after = self.model(self.tensor([*self.ids, first, self.pad]))
            logits = self.draft_head(after.mtp_logits[0, -1])
            draft = self.draw(self.probabilities(logits), Purpose.DRAFT, place + 1)
            c = None
            if method.name == "pipo":
                c = float(after.confidence_logits[0, -1].sigmoid())
                kept = method.threshold == 0 or (method.threshold < 1 and c >= method.threshold)
            else:
                kept = bool(self.uniform(Purpose.GATE, place + 1) < method.keep_rate)
            asked = self.request.logprobs is not None
            out.drafts.append(Draft(draft, kept, c, self.logprob(draft, logits).logprob if asked else None))
            if kept:
                second = draft
                end = self.take(draft, logits)
        out.places += [first, second]
        out.slots += 1
        self.ids += [first, second]
        out.finish = end or self.budget()
