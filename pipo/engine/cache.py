"""The arena: keys, values and recurrent states of all rows, allocated once by the memory plan.

Row r belongs to one request at a time. Each batch has a contiguous range of rows, so that its slices are views; who
ends is replaced by the batch's last row, and neighbours move (``pipo.engine.rows``). Keys and values beyond a row's
length are leftovers: masks hide them and later tokens overwrite them. A pass over several tokens reads a GatedDeltaNet
state without changing it and leaves behind what is needed to write any accepted part of it (``Pending``), so a method
that rejects tokens goes back exactly and keeps one state a row.

Shape legend: R rows, P places a row, n rows of a batch, S new tokens a row, N = n*S, D head size, C convolution
channels, K its taps, Hv value heads, B = n*Hv.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipo.engine.plan import SLACK, MemoryPlan
from pipo.engine.weights import LinearAttention, Weights


class Views(NamedTuple):
    """A batch's rows as views, made once a range: keys and values [n, kv_heads, P, D] of each full-attention layer, and
    each GatedDeltaNet layer's convolution tail [n, K-1, C] and state [B, Dk, Dv]."""

    k: list[Tensor]
    v: list[Tensor]
    conv: list[Tensor]
    state: list[Tensor]


class Plan(NamedTuple):
    """Where S new tokens of each of the n rows from ``first`` on go, shared by all layers of one pass."""

    first: int
    n: int
    S: int
    length: int  # places that the pass looks at
    write: Tensor  # [N] into the flattened rows and places
    cos: Tensor  # [N, 1, D]
    sin: Tensor
    mask: Tensor | None  # [n, 1, S * group or 1, length], added to the scores
    ends_n: Tensor  # places of each row that count after the pass
    views: Views
    keep: bool  # all S tokens stay, whatever comes of them


class KV:
    """Keys and values of one full-attention layer, [R, P, kv_heads * D] each; ``flat`` views are [R * P, ...]."""

    __slots__ = ("k", "v", "k_flat", "v_flat")

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v
        self.k_flat, self.v_flat = k.view(-1, k.shape[-1]), v.view(-1, v.shape[-1])


class Pending(NamedTuple):
    """What a pass over S tokens leaves for ``accept``: the conv window [n, K-1+S, C], keys [B, S, Dk], the values that
    the delta rule writes [B, S, Dv] and the cumulated log decay [B, S, 1]."""

    window: Tensor
    k: Tensor
    u: Tensor
    G: Tensor


class State:
    """State of one GatedDeltaNet layer: ``conv`` [R, K-1, C] and ``rec`` [R, Hv, Dk, Dv] in float32."""

    __slots__ = ("conv", "rec", "pending")

    def __init__(self, conv: Tensor, rec: Tensor) -> None:
        self.conv, self.rec = conv, rec
        self.pending: Pending | None = None


class Arena:
    """All rows' caches. ``lens`` [R]: committed places of each row, on the host; last of ``kv`` is the MTP layer."""

    def __init__(self, w: Weights, plan: MemoryPlan) -> None:
        self.w, self.plan = w, plan
        R, P = plan.rows, plan.places
        self.lens = np.zeros(R, dtype=np.int64)
        like = w.embed
        linear = [layer.mixer for layer in w.layers if isinstance(layer.mixer, LinearAttention)]
        self.kv = [
            KV(*(lazy_zeros(like, R, P, w.kv_heads * w.head_dim) for _ in range(2)))
            for _ in range(1 + len(w.layers) - len(linear))
        ]
        self.states = [
            State(
                like.new_zeros(R, a.conv_KC.shape[0] - 1, a.conv_KC.shape[1]),
                like.new_zeros(R, a.value_heads, a.key_dim, a.value_dim, dtype=torch.float32),
            )
            for a in linear
        ]
        self.cos_PD, self.sin_PD = angles(w, P)
        self._views: dict[tuple[int, int], Views] = {}
        self._starts = torch.arange(R, device=w.device) * P

    def place(self, first: int, pos_n: Tensor, S: int, length: int, ragged: bool, keep: bool = False) -> Plan:
        """Plan a pass over S tokens a row, the first at ``pos_n``; ``length``: no row looks beyond. Tensors only."""
        w, n = self.w, len(pos_n)
        pos_nS = pos_n[:, None] if S == 1 else pos_n[:, None] + torch.arange(S, device=w.device)
        flat = pos_nS.flatten()
        write = (self._starts[first : first + n, None] + pos_nS).flatten()
        mask = None
        if S > 1 or ragged:
            hidden = torch.arange(length, device=w.device) > pos_nS[:, :, None]
            mask = torch.zeros(hidden.shape, device=w.device, dtype=w.embed.dtype)
            mask = mask.masked_fill_(hidden, float("-inf"))
            if S > 1:
                mask = mask.repeat_interleave(w.heads // w.kv_heads, 1)
            mask = mask[:, None]
        cos, sin = self.cos_PD[flat], self.sin_PD[flat]
        return Plan(first, n, S, length, write, cos[:, None], sin[:, None], mask, pos_n + S, self.views(first, n), keep)

    def views(self, first: int, n: int) -> Views:
        """The views of a range of rows."""
        if (first, n) not in self._views:
            heads, rows = self.w.kv_heads, slice(first, first + n)
            k, v = ([t[rows].unflatten(2, (heads, -1)).transpose(1, 2) for t in side]
                    for side in ([kv.k for kv in self.kv], [kv.v for kv in self.kv]))  # fmt: skip
            self._views[first, n] = Views(
                k, v, [s.conv[rows] for s in self.states], [s.rec[rows].flatten(0, 1) for s in self.states]
            )
        return self._views[first, n]

    def accept(self, first: int, counts_n: Tensor) -> None:
        """Write the states of the first ``counts`` tokens of each row of the last pass; the others never were."""
        layers = [i for i, s in enumerate(self.states) if s.pending is not None]
        pending = [p for s in self.states if (p := s.pending) is not None]
        if not pending:
            return
        views, n = self.views(first, counts_n.shape[0]), counts_n.shape[0]
        taps, C = views.conv[0].shape[1:]
        at = counts_n[:, None] + torch.arange(taps, device=counts_n.device)
        at = at[:, :, None].expand(-1, -1, C)
        G = torch.stack([p.G for p in pending])
        count_B11 = counts_n.repeat_interleave(G.shape[1] // n)[:, None, None]
        last = G.gather(2, (count_B11 - 1).expand(len(pending), -1, -1, -1))
        beyond = torch.arange(G.shape[2], device=G.device)[:, None] >= count_B11
        weight = (last - G).masked_fill_(beyond, float("-inf")).exp_().unbind(0)
        decay = last.exp_().unbind(0)
        for layer, p, a, m in zip(layers, pending, decay, weight, strict=True):
            views.conv[layer].copy_(p.window.gather(1, at))
            views.state[layer].mul_(a).baddbmm_((p.k * m).transpose(1, 2), p.u)
            self.states[layer].pending = None

    def copy(self, source: int, target: int) -> None:
        """Make row ``target`` hold what row ``source`` holds."""
        length = int(self.lens[source])
        for kv in self.kv:
            kv.k[target, :length] = kv.k[source, :length]
            kv.v[target, :length] = kv.v[source, :length]
        for s in self.states:
            s.conv[target], s.rec[target] = s.conv[source], s.rec[source]
        self.lens[target] = length

    def clear(self, row: int, whole: bool = False) -> None:
        """Zero a row that may hold numbers that are not finite: masks hide leftovers, but 0 times NaN is NaN.

        ``whole``: beyond its length too.
        """
        places = self.plan.places if whole else int(self.lens[row]) + SLACK
        for kv in self.kv:
            kv.k[row, :places].zero_()
            kv.v[row, :places].zero_()
        for s in self.states:
            s.conv[row].zero_()
            s.rec[row].zero_()

    def noise(self, row: int, places: int) -> None:
        """Fill a row with random numbers as if so many places had been prefilled (timing only)."""
        for kv in self.kv:
            kv.k[row, :places].normal_()
            kv.v[row, :places].normal_()
        for s in self.states:
            s.conv[row].normal_()
            s.rec[row].normal_()
        self.lens[row] = places


def lazy_zeros(like: Tensor, *shape: int) -> Tensor:
    """Zeros like ``torch.zeros``; on a CPU in pages that cost nothing until they are written (calloc)."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    raw = np.zeros(math.prod(shape) * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(raw).view(like.dtype).view(shape)


def angles(w: Weights, places: int) -> tuple[Tensor, Tensor]:
    """Rotary tables, cosine and signed sine [places, D] each, in the engine's dimension order."""
    r, D = w.rotary_dim // 2, w.head_dim
    cos, sin = w.rotary(torch.empty(0, device=w.device), torch.arange(places, device=w.device)[None])
    rest = cos.new_ones(places, D // 2 - r)
    cos, sin = cos[0, :, :r], sin[0, :, :r]
    dtype = w.embed.dtype
    table = torch.cat([cos, rest, cos, rest], -1).to(dtype), torch.cat([-sin, 0 * rest, sin, 0 * rest], -1).to(dtype)
    return table
