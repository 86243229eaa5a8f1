"""Caches of a batch: keys and values with room to grow, recurrent states that can go back, places of new tokens.

Rows are kept compact: 0 .. n-1 are in use. A row that ends is replaced by the last one, so slices stay views.
Keys and values beyond a row's length are leftovers; masks hide them and later tokens overwrite them. The states of
GatedDeltaNet are whole tensors that each step replaces; a step of several tokens keeps the states in between, so
that a method that rejects tokens can go back to exactly the accepted one.

Shape legend: n rows, S new tokens a row, P places with room, D head size, C convolution channels, K its taps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipo.engine.weights import LinearAttention, Weights


class Plan(NamedTuple):
    """Where S new tokens of each of n rows go, shared by all layers of one pass."""

    n: int
    S: int
    length: int
    write: Tensor  # [n * S * kv_heads] into the flattened keys and values
    cos: Tensor  # [n * S, 1, D]
    sin: Tensor
    mask: Tensor | None  # [n, 1, S * group or 1, length], added to the scores


class Angles:
    """Rotary tables in the engine's dimension order, grown by doubling; shared by all caches of an engine."""

    def __init__(self, weights: Weights) -> None:
        self.w = weights
        self.size = 0
        self.cos_PD = self.sin_PD = torch.empty(0)

    def reserve(self, places: int) -> None:
        """Make the tables cover positions 0 .. places-1."""
        if places <= self.size:
            return
        self.size = max(256, 2 * self.size, places)
        r, D = self.w.rotary_dim // 2, self.w.head_dim
        positions = torch.arange(self.size, device=self.w.device)[None]
        cos, sin = self.w.rotary(torch.empty(0, device=self.w.device), positions)
        rest = cos.new_ones(self.size, D // 2 - r)
        cos, sin = cos[0, :, :r], sin[0, :, :r]
        dtype = self.w.embed.dtype
        self.cos_PD = torch.cat([cos, rest, cos, rest], -1).to(dtype)
        self.sin_PD = torch.cat([-sin, 0 * rest, sin, 0 * rest], -1).to(dtype)


class KV:
    """Keys and values of one full-attention layer, [rows, kv_heads, P, D] each."""

    __slots__ = ("k", "v", "k_flat", "v_flat")

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v
        self.k_flat, self.v_flat = k.view(-1, k.shape[-1]), v.view(-1, v.shape[-1])


class State:
    """State of one GatedDeltaNet layer: ``conv`` [n, K-1, C] and ``rec`` [n, Hv, Dk, Dv] in float32.

    After a step of several tokens ``window`` [n, K-1+S, C] and ``recs`` (S states) wait for ``Cache.accept``.
    """

    __slots__ = ("conv", "rec", "window", "recs")

    def __init__(self, conv: Tensor, rec: Tensor) -> None:
        self.conv, self.rec = conv, rec
        self.window: Tensor | None = None
        self.recs: list[Tensor] = []


class Cache:
    """Caches of n rows for the backbone's layers and, as the last of ``kv``, the MTP layer's."""

    def __init__(self, weights: Weights, angles: Angles, lens: list[int], places: int) -> None:
        """Caches for new rows of ``lens`` tokens, to be filled by a prefill, with room for ``places`` at first."""
        self.w, self.angles = weights, angles
        self.lens = list(lens)
        self.rows = len(lens)
        self.places = 0
        self.kv: list[KV] = []
        self.states: list[State] = []
        self._allocate(self.rows, max(64, places))

    @property
    def n(self) -> int:
        return len(self.lens)

    def _allocate(self, rows: int, places: int) -> None:
        """(Re)allocate keys and values for so many rows and places, keeping what is there."""
        w = self.w
        count = 1 + sum(not isinstance(layer.mixer, LinearAttention) for layer in w.layers)
        grown = []
        for i in range(count):
            pair = [w.embed.new_zeros(rows, w.kv_heads, places, w.head_dim) for _ in range(2)]
            if self.kv:
                old = self.kv[i]
                have = old.k.shape
                pair[0][: have[0], :, : have[2]] = old.k
                pair[1][: have[0], :, : have[2]] = old.v
            grown.append(KV(*pair))
        self.kv, self.rows, self.places = grown, rows, places
        self._index()

    def _index(self) -> None:
        """Where each row's places start in the flattened keys, [rows, 1, kv_heads]."""
        w, rows, places = self.w, self.rows, self.places
        self._write_base = (
            (torch.arange(rows, device=w.device)[:, None] * w.kv_heads + torch.arange(w.kv_heads, device=w.device))
            * places
        )[:, None]

    def plan(self, positions: list[int], S: int) -> Plan:
        """Plan a pass over S tokens a row, the first at ``positions``; grows the caches where needed."""
        n, w = len(positions), self.w
        length = max(positions) + S
        if length > self.places:
            self._allocate(self.rows, max(2 * self.places, length))
        self.angles.reserve(length)
        pos = torch.tensor(positions, device=w.device)
        pos_nS = pos[:, None] if S == 1 else pos[:, None] + torch.arange(S, device=w.device)
        write = (self._write_base[:n] + pos_nS[:, :, None]).flatten()
        flat = pos_nS.flatten()
        mask = None
        if S > 1 or min(positions) + S < length:
            hidden = torch.arange(length, device=w.device) > pos_nS[:, :, None]
            mask = torch.zeros(hidden.shape, device=w.device, dtype=w.embed.dtype)
            mask = mask.masked_fill_(hidden, float("-inf"))
            if S > 1:
                mask = mask.repeat_interleave(w.heads // w.kv_heads, 1)
            mask = mask[:, None]
        cos, sin = self.angles.cos_PD[flat], self.angles.sin_PD[flat]
        return Plan(n, S, length, write, cos[:, None], sin[:, None], mask)

    def accept(self, counts: list[int]) -> None:
        """Commit the first ``counts`` tokens of each row of the last several-token step; the others never were."""
        same = counts[0] if min(counts) == max(counts) else 0
        if self.states and not same:
            taken = torch.tensor(counts, device=self.w.device)
            row = torch.arange(self.n, device=self.w.device)
            taps = self.states[0].conv.shape[1]
            places = taken[:, None] + torch.arange(taps, device=self.w.device)
        for s in self.states:
            assert s.window is not None
            if same:
                s.conv, s.rec = s.window[:, same : same + s.conv.shape[1]], s.recs[same - 1]
            else:
                s.conv, s.rec = s.window[row[:, None], places], torch.stack(s.recs)[taken - 1, row]
            s.window, s.recs = None, []
        self.lens = [have + c for have, c in zip(self.lens, counts, strict=True)]

    def advance(self, S: int) -> None:
        """Commit all S tokens of the last step."""
        if S > 1:
            self.accept([S] * self.n)
        else:
            self.lens = [have + 1 for have in self.lens]

    def keep(self, rows: list[int]) -> None:
        """Keep these rows, in this order; ``rows[i] >= i`` or a row further back moved forward (swap with the last)."""
        for i, r in enumerate(rows):
            if i != r:
                for kv in self.kv:
                    kv.k[i, :, : self.lens[r]] = kv.k[r, :, : self.lens[r]]
                    kv.v[i, :, : self.lens[r]] = kv.v[r, :, : self.lens[r]]
        index = torch.tensor(rows, device=self.w.device, dtype=torch.long)
        for s in self.states:
            s.conv, s.rec = s.conv[index], s.rec[index]
        self.lens = [self.lens[r] for r in rows]

    def repeat(self, rows: list[int]) -> Cache:
        """A new cache whose row i is a copy of this one's row ``rows[i]`` (requests that share a prefill)."""
        other = Cache.__new__(Cache)
        other.w, other.angles, other.lens = self.w, self.angles, [self.lens[r] for r in rows]
        index = torch.tensor(rows, device=self.w.device)
        other.kv = [KV(kv.k[index], kv.v[index]) for kv in self.kv]
        other.states = [State(s.conv[index], s.rec[index]) for s in self.states]
        other.rows, other.places = len(rows), self.places
        other._index()
        return other

    def join(self, other: Cache) -> None:
        """Append the rows of ``other`` to this cache."""
        n, m = self.n, other.n
        length = max(other.lens)
        rows = self.rows if n + m <= self.rows else max(n + m, 2 * self.rows)
        if rows != self.rows or length > self.places:
            self._allocate(rows, max(self.places, length))
        for mine, theirs in zip(self.kv, other.kv, strict=True):
            mine.k[n : n + m, :, :length] = theirs.k[:m, :, :length]
            mine.v[n : n + m, :, :length] = theirs.v[:m, :, :length]
        for a, b in zip(self.states, other.states, strict=True):
            a.conv, a.rec = torch.cat([a.conv, b.conv]), torch.cat([a.rec, b.rec])
        self.lens += other.lens
