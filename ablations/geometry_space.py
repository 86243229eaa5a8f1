"""How the latent space looks (figure 12): spread by kind of pair, principal components, one cloud or two.

Two kinds of latents are made of every pair (a, b): C(a, b), both tokens real, and C(a, PAD), what a rejected draft
leaves. Intervals are delete-one-prompt jackknifes: principal components are no means over pairs.

Shape legend: n pairs, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.stats import LEVEL, Estimate, t_quantile

KINDS = ("both real", "second PAD")
SHOWN = 10  # components whose share is kept
POINTS = 250  # points of each kind that are kept for the figure
QUANTITIES = {
    "pad_spread_ratio": "spread of C(a, PAD) around its mean over that of C(a, b), mean squared distances",
    "centroid_cosine": "cosine between the means of both kinds",
    "between_share": "share of the whole variance that lies between the means of both kinds",
    "pc1": "share of the variance along the first principal component of both kinds together",
    "pc2": "share of the variance along the second",
    "dimensions": "participation ratio of the principal components, (sum l)^2 / sum l^2",
    "sum_dimensions": "the same of a + b and a + PAD, what the embeddings alone would give",
}


class Moments(NamedTuple):
    """Number, sum [H] and sum of outer products [H, H] of one prompt's latents of one kind."""

    n: int
    total: Tensor
    outer: Tensor

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.n - other.n, self.total - other.total, self.outer - other.outer)


def moments(z_nH: Tensor) -> Moments:
    """Moments of latents, float64."""
    return Moments(len(z_nH), z_nH.sum(0), z_nH.T @ z_nH)


def added(parts: Sequence[Moments]) -> Moments:
    """Moments of all parts together."""
    return Moments(sum(p.n for p in parts), sum(p.total for p in parts), sum(p.outer for p in parts))  # type: ignore[arg-type]


def _covariance(m: Moments) -> Tensor:
    mean = m.total / m.n
    return m.outer / m.n - torch.outer(mean, mean)


def _shares(cov_HH: Tensor) -> Tensor:
    """Shares of the variance by component, largest first."""
    values = torch.linalg.eigvalsh(cov_HH).flip(0).clamp(min=0)
    return values / values.sum().clamp(min=1e-300)


def looks(real: Moments, pad: Moments, summed: Moments) -> dict[str, float]:
    """Every quantity from the moments of C(a, b), C(a, PAD), and of the plain sums."""
    spreads = [float(torch.trace(_covariance(m))) for m in (real, pad)]
    centre = [m.total / m.n for m in (real, pad)]
    whole = _covariance(added([real, pad]))
    within = (real.n * spreads[0] + pad.n * spreads[1]) / (real.n + pad.n)
    shares, plain = _shares(whole), _shares(_covariance(summed))
    return {
        "pad_spread_ratio": spreads[1] / spreads[0] if spreads[0] > 0 else math.nan,
        "centroid_cosine": float(torch.cosine_similarity(centre[0], centre[1], dim=0)),
        "between_share": 1 - within / max(float(torch.trace(whole)), 1e-300),
        "pc1": float(shares[0]),
        "pc2": float(shares[1]) if len(shares) > 1 else 0.0,
        "dimensions": float(1 / (shares**2).sum()),
        "sum_dimensions": float(1 / (plain**2).sum()),
    }


def jackknife(n: int, without: Callable[[int | None], dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Estimates with delete-one intervals; ``without(i)`` is every quantity without prompt i, of None of all."""
    whole = without(None)
    if n < 2:
        return {name: Estimate(value, n=n).plain() for name, value in whole.items()}
    parts = [without(i) for i in range(n)]
    out = {}
    for name, value in whole.items():
        x = torch.tensor([p[name] for p in parts], dtype=torch.float64)
        se = math.sqrt((n - 1) / n * float(((x - x.mean()) ** 2).sum()))
        half = t_quantile(0.5 + LEVEL / 2, n - 1) * se
        out[name] = Estimate(value, se, value - half, value + half, n).plain()
    return out


def space(
    real: Sequence[Tensor], pad: Sequence[Tensor], summed: Sequence[Tensor]
) -> tuple[dict[str, dict[str, Any]], list[float], list[dict[str, Any]]]:
    """The latent space of one compressor; each argument: latents [n, H] of each prompt, float64.

    Returns:
        estimates by quantity; shares of the first principal components; points {kind, x, y} on the first two.
    """
    by_prompt = [[moments(z) for z in kind] for kind in (real, pad, summed)]
    every = [added(m) for m in by_prompt]

    def without(i: int | None) -> dict[str, float]:
        return looks(*(all_ if i is None else all_ - m[i] for all_, m in zip(every, by_prompt, strict=True)))

    both = added(every[:2])
    axes = torch.linalg.eigh(_covariance(both)).eigenvectors.flip(1)[:, :2]
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # the sign of a component is arbitrary
    points = []
    for kind, clouds in zip(KINDS, (real, pad), strict=True):
        z = torch.cat(list(clouds))
        z = z[torch.linspace(0, len(z) - 1, min(POINTS, len(z))).round().long()]
        at = (z - both.total / both.n) @ axes
        points += [{"kind": kind, "x": x, "y": y} for x, y in at.tolist()]
    return jackknife(len(real), without), _shares(_covariance(both))[:SHOWN].tolist(), points
