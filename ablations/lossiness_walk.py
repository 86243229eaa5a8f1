"""One given text read by a method, place by place: what each would draw the next token from.

Teacher-forced: all methods read the same text, so that their distributions can be compared. A PIPO model reads it as
its gate would have written it: the confidence depends on the pair's first token alone, not on the draft that is drawn,
so a text has exactly one row of pairs and PADs for a threshold. Plain Hugging Face forward passes with their caches;
it shares nothing with the engine but the sampling functions, and tests hold its distributions to the engine's samples.

Shape legend: n places of the text, T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from pipo.decode.sampling import Purpose, Settings, Stream, residual
from pipo.engine.types import Method, Sampling

FIRST, DRAFT, AFTER_PAD, MIXED, VERIFIED = "first", "draft", "after PAD", "mixed", "verified"
SECOND = (DRAFT, AFTER_PAD, MIXED)  # places that a draft was offered for


class Place(NamedTuple):
    """Where one token of the text comes from.

    ``p`` [V] float64: the distribution that the method draws it from. At places that a draft is offered for: ``draft``
    [V], what the draft is drawn from, ``instead`` [V], what a PAD would be followed by, and the gate's confidence.
    """

    source: str
    p: Tensor
    draft: Tensor | None = None
    instead: Tensor | None = None
    confidence: float | None = None


class Drawing:
    """Turns raw logits into what is drawn from at a place of the text: settings, penalties on the text before it."""

    def __init__(self, sampling: Sampling, text: Sequence[int], vocab: int) -> None:
        self.settings = Settings([sampling], vocab)
        self.counts_nV = None
        if self.settings.counts:
            one_hot = torch.nn.functional.one_hot(torch.tensor(list(text)), vocab).double()
            self.counts_nV = torch.cat([torch.zeros(1, vocab).double(), one_hot.cumsum(0)])

    def __call__(self, logits_V: Tensor, place: int) -> Tensor:
        """Distribution [V] float64 at a place of the text or right behind it; ``logits`` lack what cannot be drawn."""
        counts = None if self.counts_nV is None else self.counts_nV[place][None]
        return self.settings.probabilities(logits_V.double().cpu()[None], counts)[0]


def backbone_logits(model: Any, hidden_H: Tensor) -> Tensor:
    """The backbone's raw logits [V] float32, without PAD."""
    logits: Tensor = model.lm_head(hidden_H).float().clone()
    logits[..., model.config.pad_token_id] = -torch.inf
    return logits


def draft_logits(model: Any, draft_H: Tensor) -> Tensor:
    """The MTP head's raw logits [V] float32, without PAD and what is outside the draft vocabulary."""
    logits = backbone_logits(model, draft_H)
    if model.draft_ids is None:
        return logits
    outside = torch.ones_like(logits, dtype=torch.bool)
    outside[..., model.draft_ids] = False
    return logits.masked_fill(outside, -torch.inf)


class PairReader:
    """A PIPO model that has read a prompt and some pairs; an odd prompt gets its PAD."""

    def __init__(self, model: Any, prompt: Sequence[int]) -> None:
        self.model, self.pad = model, model.config.pad_token_id
        ids = [*prompt, self.pad] if len(prompt) % 2 else list(prompt)
        self.firsts = ids[2::2]  # the MTP head reads them, each beside the hidden of the pair before
        self.cache = DynamicCache(config=model.config)
        self.hidden_1LH = self._run(self._tensor(ids), self.cache)

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.model.device)

    def _run(self, ids_1T: Tensor, cache: DynamicCache) -> Tensor:
        out: Tensor = self.model.backbone(
            inputs_embeds=self.model.compress(ids_1T), past_key_values=cache, use_cache=True
        ).last_hidden_state
        return out

    def first(self) -> Tensor:
        """Logits [V] of the next pair's first token."""
        return backbone_logits(self.model, self.hidden_1LH[0, -1])

    def draft(self, first: int) -> tuple[Tensor, float]:
        """Logits [V] of the draft that follows ``first``, and the confidence in whatever is drawn from them."""
        embed = self.model.embed(self._tensor([*self.firsts, first]))
        d_1LH = self.model.mtp(embed, self.hidden_1LH)
        c = self.model.confidence_head(self.hidden_1LH[:, -1:], d_1LH[:, -1:])
        return draft_logits(self.model, d_1LH[0, -1]), float(c.float().sigmoid())

    def instead(self, first: int) -> Tensor:
        """Logits [V] of what would follow (``first``, PAD); the reader stays where it is."""
        return backbone_logits(self.model, self._run(self._tensor([first, self.pad]), deepcopy(self.cache))[0, -1])

    def commit(self, first: int, second: int) -> None:
        """Read one pair."""
        self.firsts.append(first)
        self.hidden_1LH = torch.cat([self.hidden_1LH, self._run(self._tensor([first, second]), self.cache)], 1)


def kept(method: Method, confidence: float) -> bool:
    """Whether the gate keeps a draft; 0 keeps all and 1 none, whatever the sigmoid rounds to."""
    return method.threshold == 0 or (method.threshold < 1 and confidence >= method.threshold)


@torch.inference_mode()
def pairs(
    model: Any, prompt: Sequence[int], text: Sequence[int], method: Method, sampling: Sampling, seed: int = 0
) -> list[Place]:
    """Every place of the text under ``pipo`` or ``random``.

    ``random``: at places that a draft is offered for, the mixture of draft and what follows a PAD by ``keep_rate``,
    given the coins of the past, which come from the sample's seed as in the engine.
    """
    reader, draw = PairReader(model, prompt), Drawing(sampling, text, model.config.vocab_size)
    coins = Stream(seed)
    out: list[Place] = []
    slots = at = 0
    while at < len(text):
        if at == len(out):  # else it was the second place of the pair before, and its draft was rejected
            out.append(Place(FIRST, draw(reader.first(), at)))
        if at + 1 == len(text):
            break
        logits, c = reader.draft(text[at])
        random = method.name == "random"
        keep = coins.at(Purpose.GATE, 2 * slots + 1) < method.keep_rate if random else kept(method, c)
        q = draw(logits, at + 1)
        if keep:
            other = draw(reader.instead(text[at]), at + 1)
            reader.commit(text[at], text[at + 1])
        else:  # what follows the PAD is the next pair's first token
            reader.commit(text[at], reader.pad)
            other = draw(reader.first(), at + 1)
        if random:
            r = method.keep_rate
            out.append(Place(MIXED, r * q + (1 - r) * other, q, other))
        else:
            out.append(Place(DRAFT if keep else AFTER_PAD, q if keep else other, q, other, c))
        at, slots = at + 1 + keep, slots + 1
    return out


class Plain(NamedTuple):
    """A regular model over prompt and text: raw logits [n, V] of each place, hiddens [T, H], and all ids."""

    logits_nV: Tensor
    hidden_TH: Tensor
    ids: list[int]
    start: int


@torch.inference_mode()
def read_plain(model: Any, prompt: Sequence[int], text: Sequence[int]) -> Plain:
    """One forward pass of a regular model over everything."""
    ids = [*prompt, *text]
    h_TH = model.run_backbone(model.embed(torch.tensor([ids], device=model.device)))[0]
    return Plain(backbone_logits(model, h_TH[len(prompt) - 1 : -1]), h_TH, ids, len(prompt))


def regular(plain: Plain, draw: Drawing) -> list[Tensor]:
    """Regular decoding's distribution at every place, [V] float64 each."""
    return [draw(logits, at) for at, logits in enumerate(plain.logits_nV)]


@torch.inference_mode()
def mtp(model: Any, plain: Plain, draw: Drawing) -> list[Place]:
    """Unverified MTP: even places from the backbone, odd ones from the head, given the text before them alone."""
    exact = regular(plain, draw)
    embed = model.embed(torch.tensor([plain.ids[1:-1]], device=model.device))
    d_TH = model.mtp(embed, plain.hidden_TH[None, :-2])[0]  # at i: hidden i with token i+1 predicts token i+2
    out = []
    for at, p in enumerate(exact):
        if at % 2:
            q = draw(draft_logits(model, d_TH[plain.start + at - 2]), at)
            out.append(Place(DRAFT, q, q, p))
        else:
            out.append(Place(FIRST, p))
    return out


def effective(p_V: Tensor, q_V: Tensor) -> Tensor:
    """What a verified draft from q comes out as: min(p, q) where it is accepted, the engine's residual otherwise."""
    accepted = torch.minimum(p_V, q_V)
    rest = residual(p_V[None], q_V[None])[0]
    return accepted + (1 - accepted.sum()) * rest / rest.sum()


@torch.inference_mode()
def eagle(model: Any, plain: Plain, draw: Drawing, depth: int) -> list[Place]:
    """EAGLE: the effective distribution of each place of chains whose drafts were all accepted.

    The first token comes from the prefill, then chains of ``depth`` drafts and the token after them; drafts of a chain
    are the text's own tokens, since only accepted ones lead on. In float32, as the engine verifies.
    """
    out = [Place(FIRST, draw(plain.logits_nV[0], 0))]
    for start in range(1, len(plain.logits_nV), depth + 1):
        chain = _chain(model, plain, start, depth)
        for at in range(start, min(start + depth + 1, len(plain.logits_nV))):
            p = draw(plain.logits_nV[at], at)
            logits = next(chain, None)
            if logits is None:  # after the last draft: nothing was proposed
                out.append(Place(FIRST, p))
                continue
            q = draw(logits, at)
            out.append(Place(VERIFIED, effective(p.float(), q.float()).double(), q, p))
    return out


def _chain(model: Any, plain: Plain, start: int, depth: int) -> Iterator[Tensor]:
    """Draft logits [V] of a chain that starts at place ``start``; each step reads the text's token and its own output.

    ``depth`` at most, the MTP head's full pass again for each.
    """
    newest = plain.start + start  # ids before this one are committed
    hidden_1TH = plain.hidden_TH[None, : newest - 1]
    for j in range(depth):
        embed = model.embed(torch.tensor([plain.ids[1 : newest + j]], device=model.device))
        d_1TH = model.mtp(embed, hidden_1TH)[:, -1:]
        yield draft_logits(model, d_1TH[0, -1])
        hidden_1TH = torch.cat([hidden_1TH, d_1TH], 1)
