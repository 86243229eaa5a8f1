"""The gated delta rule of GatedDeltaNet over one token, over a few tokens that may be taken back, and over a prompt.

S_t = a_t S_(t-1) + k_t^T u_t with u_t = b_t (v_t - k_t a_t S_(t-1)) and o_t = q_t S_t (Yang et al., 2024). ``few``
solves the few tokens' u at once from the state before them, which it only reads; ``Arena.accept`` writes the state.

Shape legend: n rows, S tokens a row, Hv value heads, B = n*Hv, Dk and Dv key and value size, T prompt places.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 1 << 18  # numbers of a layer's states up to which fewer calls count more than passes over them


def one(state: Tensor, qk: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """One token: updates ``state`` [B, Dk, Dv] in place and returns the output [B, 1, Dv] (unscaled query).

    ``qk`` [B, 2, Dk] unit vectors, ``v`` [B, 1, Dv], ``decay`` (not its log) and ``beta`` [B, 1, 1].
    """
    k = qk.narrow(1, 1, 1)
    state.mul_(decay)
    u = torch.baddbmm(v, k, state, alpha=-1).mul_(beta)
    state.baddbmm_(k.transpose(1, 2), u)
    return torch.bmm(qk.narrow(1, 0, 1), state)


def in_turn(state: Tensor, qk: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """S tokens a row, one after the other, all of which stay: updates ``state``; arguments and output as of ``few``."""
    n, _, heads, _, Dk = qk.shape
    decay, Dv = g.exp(), v.shape[-1]
    steps = (t.unbind(1) for t in (qk, v, decay, beta))
    out = [
        one(state, a.reshape(-1, 2, Dk), b.reshape(-1, 1, Dv), c.reshape(-1, 1, 1), d.reshape(-1, 1, 1))
        for a, b, c, d in zip(*steps, strict=True)
    ]
    return torch.stack([o.view(n, heads, Dv) for o in out], 1).flatten(0, 1)


def few(state: Tensor, qk: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """S tokens a row from the state before them, [B, Dk, Dv], which stays as it is.

    Args:
        qk: [n, S, Hv, 2, Dk] unit vectors; ``v`` [n, S, Hv, Dv]; ``g`` (log decay) and ``beta`` [n, S, Hv].

    Returns:
        outputs [n*S, Hv, Dv] (unscaled query), keys [B, S, Dk], written values u [B, S, Dv], cumulated log decay
        [B, S, 1].
    """
    n, S, heads, _, Dk = qk.shape
    Dv = v.shape[-1]
    x = qk.permute(0, 2, 3, 1, 4).reshape(n * heads, 2 * S, Dk)
    k = x.narrow(1, S, S)
    past_q, past_k = torch.bmm(x, state).split(S, 1)
    gram_q, gram_k = torch.bmm(x, k.transpose(1, 2)).split(S, 1)
    G, b = (t.transpose(1, 2).reshape(-1, S, 1) for t in (g, beta))
    G = G.cumsum(1)
    between = (G - G.transpose(1, 2)).exp_().tril_()
    since = G.exp()
    u = torch.addcmul(v.transpose(1, 2).reshape(-1, S, Dv), past_k, since, value=-1).mul_(b)
    u = solve_lower(gram_k * (between * b), u)
    o = torch.baddbmm(past_q * since, gram_q * between, u)
    return o.view(n, heads, S, Dv).transpose(1, 2).reshape(n * S, heads, Dv), k, u, G


def solve_lower(lower: Tensor, right: Tensor) -> Tensor:
    """x of (1 + L) x = right, L the part of ``lower`` [B, S, S] below its diagonal; ``right`` [B, S, Dv].

    Up to four rows as a product: L^4 is 0, so the inverse is (1 - L)(1 + L^2), in few calls.
    """
    S = lower.shape[1]
    if S > 4:
        return torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    lower = lower.tril_(-1)
    if S > 2:
        right = torch.baddbmm(right, torch.bmm(lower, lower), right)
    return torch.baddbmm(right, lower, right, alpha=-1)


def many(
    rec: Tensor | None, qk: Tensor, v: Tensor, g: Tensor, beta: Tensor, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """T tokens a row, in blocks of ``size`` that are solved at once and then scanned for the state between them.

    Args:
        rec: state before, [n, Hv, Dk, Dv]; None: zeros. It stays as it is.
        qk: [n, T, Hv, 2, Dk] unit vectors; ``v`` [n, T, Hv, Dv]; ``g`` (log decay) and ``beta`` [n, T, Hv].

    Returns:
        outputs [n, T, Hv, Dv] (unscaled query) and the new state, both float32.
    """
    n, T, heads, _, Dk = qk.shape
    Dv, C = v.shape[-1], size or block_size(T, Dk)
    m = -(-T // C)
    if m * C > T:  # zeros neither decay nor write
        room = m * C - T
        qk, v = F.pad(qk, (0, 0, 0, 0, 0, 0, 0, room)), F.pad(v, (0, 0, 0, 0, 0, room))
        g, beta = F.pad(g, (0, 0, 0, room)), F.pad(beta, (0, 0, 0, room))
    # everything [m, B, C, ...], so that a block is a slice
    x = qk.reshape(n, m, C, heads, 2, Dk).permute(1, 0, 3, 4, 2, 5).reshape(m * n * heads, 2 * C, Dk)
    v = v.reshape(n, m, C, heads, Dv).permute(1, 0, 3, 2, 4).reshape(-1, C, Dv)
    G, b = (t.reshape(n, m, C, heads).permute(1, 0, 3, 2).reshape(-1, C, 1) for t in (g, beta))
    G = G.cumsum(1)
    q, k = x[:, :C], x[:, C:]
    gram = torch.bmm(x, k.transpose(1, 2))
    between = (G - G.transpose(1, 2)).exp_().tril_()
    since = G.exp()
    written = torch.linalg.solve_triangular(
        gram[:, C:] * between * b, torch.cat([v, k * since], 2) * b, upper=False, unitriangular=True
    )
    u = written[:, :, :Dv].reshape(m, -1, C, Dv)
    reads = torch.cat([written[:, :, Dv:], q * since], 1).view(m, -1, 2 * C, Dk)
    last = G[:, -1:]
    keys = (k * (last - G).exp_()).transpose(1, 2).view(m, -1, Dk, C)
    decay = last.exp().view(m, -1, 1, 1)
    state = qk.new_zeros(n * heads, Dk, Dv) if rec is None else rec.reshape(-1, Dk, Dv).clone()
    out = torch.empty(m, n * heads, C, Dv, device=v.device)
    for i in range(m):
        past = torch.bmm(reads[i], state)
        u[i].sub_(past[:, :C])
        out[i] = past[:, C:]
        state.mul_(decay[i]).baddbmm_(keys[i], u[i])
    o = out.view(-1, C, Dv).baddbmm_(gram[:, :C] * between, u.view(-1, C, Dv))
    o = o.view(m, n, heads, C, Dv).permute(1, 0, 3, 2, 4).reshape(n, m * C, heads, Dv)[:, :T]
    return o, state.view(n, heads, Dk, Dv)


def block_size(T: int, Dk: int) -> int:
    """Places of a block: what a block costs grows with its square, what the scan costs with the number of blocks."""
    return min(64, max(16, Dk), 1 << (T - 1).bit_length())


@cache
def kernel(device: torch.device) -> Any:
    """flash-linear-attention's kernel over a prompt, or None where it is not installed or there is no GPU."""
    if device.type != "cuda" or find_spec("fla") is None:
        return None
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return chunk_gated_delta_rule


def over_prompt(
    rec: Tensor | None, qk: Tensor, v: Tensor, g: Tensor, beta: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """``many`` by the fastest means at hand; a kernel takes queries, keys and values in ``dtype``."""
    if (run := kernel(v.device)) is None:
        return many(rec, qk, v, g, beta)
    q, k = (t.to(dtype) for t in qk.unbind(3))
    out, state = run(q, k, v.to(dtype), g=g, beta=beta, scale=1.0, initial_state=rec, output_final_state=True)
    return out.float(), state
