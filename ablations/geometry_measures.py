"""What a compressor does to a pair, measured on embeddings: the quantities of the paper's figures 8 to 11.

A pair (a, b) is two embeddings, C(a, b) its latent. The paper (arXiv 2605.27255, appendix E) gives names and values;
the exact formulas below are ours (docs/ABLATIONS.md). Everything runs in float64, on a copy of the weights.

Shape legend: n pairs, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jacrev, vmap

from pipo.model.modules import Compressor

QUANTITIES = {
    "first_slot_jacobian_share": "|dC/da| / (|dC/da| + |dC/db|), Frobenius norms of the exact Jacobians; 0.5: both "
    "tokens weigh alike",
    "swap_cosine": "cos(C(a, b), C(b, a)); 1: the order of a pair is lost",
    "raw_pair_cosine": "cos(a, b), of the embeddings alone",
    "cosine_to_sum": "cos(C(a, b), a + b); 1: the latent points where the sum does",
    "cosine_to_first": "cos(C(a, b), a)",
    "cosine_to_second": "cos(C(a, b), b)",
    "norm_ratio_to_sum": "|C(a, b)| / |a + b|",
    "pad_second_cosine_to_survivor": "cos(C(a, PAD), a), a the pair's first token; 1: a PAD in second place is neutral",
    "pad_first_cosine_to_survivor": "cos(C(PAD, b), b), b the pair's second token; no sequence has such a pair",
    "pad_pad_norm": "|C(PAD, PAD)| / |C(a, b)|, pair by pair; 0: two PADs say nothing",
}
MOST_NUMBERS = 16_000_000  # of a Jacobian that is held at a time


def exact(compressor: Compressor) -> Compressor:
    """A float64 copy on the CPU."""
    return deepcopy(compressor).cpu().double().eval()


def fold(compressor: Compressor, a_nH: Tensor, b_nH: Tensor) -> Tensor:
    """Latents [n, H] of pairs of embeddings."""
    out: Tensor = compressor(torch.stack([a_nH, b_nH], 1)).squeeze(1)
    return out


def jacobian_norms(compressor: Compressor, a_nH: Tensor, b_nH: Tensor) -> tuple[Tensor, Tensor]:
    """Frobenius norms of dC/da and dC/db, [n] each, by autograd."""

    def one(a_H: Tensor, b_H: Tensor) -> Tensor:
        return fold(compressor, a_H[None], b_H[None])[0]

    step = max(1, MOST_NUMBERS // (2 * a_nH.shape[1] ** 2))
    both = vmap(jacrev(one, argnums=(0, 1)), chunk_size=step)
    norms: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(a_nH), step):
        first, second = both(a_nH[start : start + step], b_nH[start : start + step])
        norms.append((first.flatten(1).norm(dim=1).detach(), second.flatten(1).norm(dim=1).detach()))
    return torch.cat([f for f, _ in norms]), torch.cat([s for _, s in norms])


def measure(
    compressor: Compressor, table_VH: Tensor, pad: int, pairs: Sequence[tuple[int, int]]
) -> dict[str, list[float]]:
    """Every quantity for every pair of token ids, in the order of ``pairs``; equal pairs are computed once."""
    unique = sorted(set(pairs))
    c, table = exact(compressor), table_VH.detach().cpu().double()
    with torch.no_grad():
        ids = torch.tensor(unique)
        a, b, p = table[ids[:, 0]], table[ids[:, 1]], table[pad].expand(len(unique), -1)
        z, total = fold(c, a, b), a + b
        found = {
            "swap_cosine": F.cosine_similarity(z, fold(c, b, a)),
            "raw_pair_cosine": F.cosine_similarity(a, b),
            "cosine_to_sum": F.cosine_similarity(z, total),
            "cosine_to_first": F.cosine_similarity(z, a),
            "cosine_to_second": F.cosine_similarity(z, b),
            "norm_ratio_to_sum": z.norm(dim=1) / total.norm(dim=1),
            "pad_second_cosine_to_survivor": F.cosine_similarity(fold(c, a, p), a),
            "pad_first_cosine_to_survivor": F.cosine_similarity(fold(c, p, b), b),
            "pad_pad_norm": fold(c, p, p).norm(dim=1) / z.norm(dim=1),
        }
    first, second = jacobian_norms(c, a, b)
    found["first_slot_jacobian_share"] = first / (first + second)
    where = {pair: i for i, pair in enumerate(unique)}
    at = torch.tensor([where[pair] for pair in pairs])
    return {name: found[name][at].tolist() for name in QUANTITIES}
