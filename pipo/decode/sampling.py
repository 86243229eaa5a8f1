"""Distributions with all sampling settings applied, and seeded draws from them.

Settings apply in the order of SGLang: presence and frequency penalties over the tokens generated so far (the prompt
does not count), temperature, then top-k and top-p jointly, then min-p. Jointly: both count tokens of the whole
distribution, so a token stays where its rank is below k and the mass before it is at most p. (transformers and vLLM
renormalise after top-k, so their top-p keeps fewer tokens; with one of the two filters alone all agree.) Min-p compares
with the likeliest token, which every filter keeps; it takes nothing away from what top-p counts.
Draws are counter-based: the uniform number is a hash of (seed, place, purpose), so a sample depends on its own seed
alone, not on its batch mates or on how often others drew.

Shape legend: n rows, V vocabulary (or the N columns of a smaller draft head).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from pipo.engine.types import Logprob, Sampling


class Purpose(IntEnum):
    """What a uniform number is for; the same place needs several."""

    TOKEN = 0
    DRAFT = 1
    ACCEPT = 2
    GATE = 3


def uniforms(seed: int, first: int, count: int) -> list[float]:
    """Uniform numbers in [0, 1), multiples of 2^-32, of counters first .. first+count-1 (splitmix64 of the counter)."""
    mask = (1 << 64) - 1
    key = _mix(np.array([seed & mask, (seed >> 64) & mask], dtype=np.uint64))
    mixed = _mix(_mix(np.arange(first, first + count, dtype=np.uint64) ^ key[:1]) ^ (key[1:] + key[:1]))
    return ((mixed >> np.uint64(32)).astype(np.float64) * 2.0**-32).tolist()  # type: ignore[no-any-return]


def _mix(x: np.ndarray) -> np.ndarray:
    """The output function of splitmix64 (Steele, Lea and Flood 2014), wrapping modulo 2^64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Stream:
    """One sample's uniform numbers, made a block of places at a time."""

    PLACES = 32

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.blocks: dict[int, list[float]] = {}

    def at(self, purpose: Purpose, place: int) -> float:
        """The number for a place, counted in places from the first generated one."""
        block, i = divmod(place, self.PLACES)
        size = self.PLACES * len(Purpose)
        if block not in self.blocks:
            self.blocks[block] = uniforms(self.seed, block * size, size)
        return self.blocks[block][i * len(Purpose) + purpose]


COLUMNS = ("is_greedy", "temperature", "presence", "frequency", "top_k", "top_p", "min_p")


class Settings:
    """Sampling settings of n rows as tensors, with what is off in all rows left out of the work.

    ``counts``: whether any row has a penalty; counts of generated tokens need not be kept otherwise.
    """

    def __init__(self, rows: Sequence[Sampling], vocab: int, device: torch.device | str = "cpu") -> None:
        self.vocab, self.device = vocab, device
        self.greedy = [s.temperature == 0 for s in rows]
        self.all_greedy = all(self.greedy)
        self.is_greedy = torch.tensor(self.greedy, device=device)[:, None] if any(self.greedy) else None
        self.temperature = self._column([s.temperature or 1.0 for s in rows], off=1.0)
        self.presence = self._column([s.presence_penalty for s in rows], off=0.0)
        self.frequency = self._column([s.frequency_penalty for s in rows], off=0.0)
        self.counts = not (self.presence is None and self.frequency is None)
        ks = [min(s.top_k, vocab) or vocab for s in rows]
        self.k_max = max(ks)
        self.top_k = torch.tensor(ks, device=device)[:, None] if min(ks) < self.k_max else None
        self.top_p = self._column([s.top_p for s in rows], off=1.0)
        self.min_p = self._column([s.min_p for s in rows], off=0.0)

    def _column(self, values: list[float], off: float) -> Tensor | None:
        """Values as [n, 1]; None where all rows have the setting off."""
        if set(values) == {off}:
            return None
        return torch.tensor(values, device=self.device, dtype=torch.float32)[:, None]

    def copied(self, take: Callable[[Tensor], Tensor]) -> Settings:
        """The same settings with ``take`` applied to each column [n, 1] (of some rows, of more, at other addresses)."""
        other = copy(self)
        for name in COLUMNS:
            if (column := getattr(self, name)) is not None:
                setattr(other, name, take(column))
        return other

    def repeated(self, times: int) -> Settings:
        """Settings in which each row stands ``times`` times in a row (several places of one request)."""
        return self.copied(lambda column: column.repeat_interleave(times, 0))

    def penalised(self, logits_nV: Tensor, counts_nV: Tensor | None) -> Tensor:
        """Logits less the penalties, by how often each token was generated (``counts`` [n, V] float32)."""
        if counts_nV is None:
            return logits_nV
        if self.presence is not None:
            logits_nV = torch.addcmul(logits_nV, counts_nV.clamp(max=1), self.presence, value=-1)
        if self.frequency is not None:
            logits_nV = torch.addcmul(logits_nV, counts_nV, self.frequency, value=-1)
        return logits_nV

    def probabilities(self, logits_nV: Tensor, counts_nV: Tensor | None = None) -> Tensor:
        """The distributions that rows are sampled from, [n, V] float32; greedy rows get all mass on the argmax.

        V is the width of ``logits``, which may be less than the vocabulary (a draft head's columns).
        """
        x = self.penalised(logits_nV, counts_nV)
        best = x.argmax(-1, keepdim=True) if self.is_greedy is not None else None
        if self.all_greedy:
            assert best is not None
            return torch.zeros_like(x).scatter_(1, best, 1.0)
        if self.temperature is not None:
            x = x / self.temperature
        if self.k_max < x.shape[1] or self.top_k is not None or self.top_p is not None:
            p = self._filtered(x)
        else:
            p = self._without_unlikely(x.softmax(-1))
        if self.is_greedy is not None and best is not None:
            p = torch.where(self.is_greedy, torch.zeros_like(p).scatter_(1, best, 1.0), p)
        return p

    def _filtered(self, x_nV: Tensor) -> Tensor:
        """The likeliest tokens that top-k and top-p leave, then min-p; renormalised."""
        p_nV = x_nV.softmax(-1)
        if self.k_max < x_nV.shape[1]:
            p, index = p_nV.topk(self.k_max, dim=-1)
        else:
            p, index = p_nV.sort(dim=-1, descending=True)
        before = p.cumsum(-1, dtype=torch.float64) - p
        if self.top_k is not None:
            rank = torch.arange(p.shape[1], device=p.device)
            p = p.masked_fill(rank >= self.top_k, 0.0)
        if self.top_p is not None:
            p = p.masked_fill((before >= self.top_p) & (self.top_p < 1), 0.0)
        p = p / p.sum(-1, keepdim=True)
        return torch.zeros_like(x_nV).scatter_(1, index, self._without_unlikely(p))

    def _without_unlikely(self, p: Tensor) -> Tensor:
        """Min-p: tokens less likely than that share of the likeliest one left out, the rest renormalised."""
        if self.min_p is None:
            return p
        p = p.masked_fill(p < self.min_p * p.amax(-1, keepdim=True), 0.0)
        return p / p.sum(-1, keepdim=True)


def draw(p_nV: Tensor, u_n: Tensor) -> Tensor:
    """Ids [n] by inverse CDF; ``p`` need not sum to one, ``u`` [n] float64 below 1 - 2^-33.

    The sum runs in float64, so u * total stays below the total and a token without mass is never drawn. A row that
    is not finite gives V, which is no token: the engine fails that request alone.
    """
    cdf_nV = p_nV.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cdf_nV, u_n[:, None] * cdf_nV[:, -1:], right=True).squeeze(1)


def greedy(logits_nV: Tensor) -> Tensor:
    """Argmax [n]; V where the largest is not a number (see ``draw``)."""
    best, ids = logits_nV.max(-1)
    return ids.masked_fill_(best.isnan(), logits_nV.shape[1])


def residual(p_nV: Tensor, q_nV: Tensor) -> Tensor:
    """What to sample from after a draft from q was rejected: (p - q)+, or p where rounding left none."""
    rest = (p_nV - q_nV).clamp_(min=0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p_nV)


def chosen_logprobs(logits_nV: Tensor, ids_n: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the ids that came out and of the likeliest ones, under the model's own distribution.

    Args:
        logits_nV: raw logits, PAD's -inf already; no temperature, filter or penalty.
        ids_n: columns of ``logits``; V, which marks a failed row, reads the last column.
        top: how many of the likeliest to give, at least 0; fewer come where V is smaller.

    Returns:
        logprob [n] float32, top_ids [n, top] int64 and top_logprobs [n, top] float32, likeliest first. A token that
        cannot come out (PAD) stands at the end with -inf; ``logprob_rows`` leaves it out.
    """
    log_p_nV = logits_nV.float().log_softmax(-1)
    width = log_p_nV.shape[1]
    logprob_n = log_p_nV.gather(1, ids_n.clamp(max=width - 1)[:, None]).squeeze(1)
    values, ids = log_p_nV.topk(min(top, width), dim=-1)
    return logprob_n, ids, values


def logprob_rows(logprob_n: Tensor, top_ids: Tensor, top_logprobs: Tensor) -> list[Logprob]:
    """What ``chosen_logprobs`` found, a row each, for events; one transfer a tensor."""
    rows = zip(logprob_n.tolist(), top_ids.tolist(), top_logprobs.tolist(), strict=True)
    return [
        Logprob(own, tuple((i, v) for i, v in zip(ids, values, strict=True) if v > float("-inf")))
        for own, ids, values in rows
    ]
