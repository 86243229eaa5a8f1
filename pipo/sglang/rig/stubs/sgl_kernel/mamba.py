"""Gated DeltaNet on a CPU in plain torch: the causal convolution, the gated delta rule and the gated norm.

Signatures are those of the calls in SGLang 0.5.23 (``gdn_backend.py``, ``gdn_triton.py``). States live in pools with a
slot a request. Decoding has no loop over the batch; prompts go through the blocks of ``pipo.engine.delta.many``.

Shape legend: n sequences, T places of all of them together, S places a sequence where all have as many, D channels of
the convolution, W its width, H key heads, Hv value heads, Dk and Dv their sizes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipo.engine.delta import many

from .common import alike, only

# The convolution


def _windows(seq: Tensor, weight: Tensor, bias: Tensor | None, activation: Any) -> Tensor:
    """[..., L, D] under a filter [D, W] to [..., L-W+1, D], float32. Four sums are cheaper here than a conv1d."""
    W = weight.shape[1]
    L = seq.shape[-2] - W + 1
    taps = weight.float().unbind(1)
    out = seq.narrow(-2, 0, L) * taps[0]
    for j in range(1, W):
        out.addcmul_(seq.narrow(-2, j, L), taps[j])
    if bias is not None:
        out += bias
    return F.silu(out) if activation in ("silu", "swish", True) else out


def causal_conv1d_fn_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    query_start_loc: Tensor | None = None,
    cache_indices: Tensor | None = None,
    has_initial_state: Tensor | None = None,
    conv_states: Tensor | None = None,
    activation: Any = "silu",
    seq_lens_cpu: list[int] | None = None,
    **rest: Any,
) -> Tensor:
    """The convolution over n prompts one behind the other; their last W-1 places go into ``conv_states``.

    Args:
        x: [D, T]. ``weight`` [D, W]. ``query_start_loc`` [n+1]. ``cache_indices`` [n]: slots.
        has_initial_state: [n], whether the slot's state comes before the prompt; zeros otherwise.
        conv_states: [slots, D, W-1].

    Returns:
        [D, T], dtype of ``x``.
    """
    only("causal_conv1d_fn_cpu", **rest)
    room, slots = weight.shape[1] - 1, cache_indices.long()
    n, (D, T) = len(slots), x.shape
    lens = query_start_loc.long().diff()
    # every prompt behind room for the state before it
    place = torch.arange(T) + torch.arange(1, n + 1).mul_(room).repeat_interleave(lens)
    start = query_start_loc[:-1].long() + torch.arange(n) * room
    state = start[:, None] + torch.arange(room)
    seq = torch.empty(T + n * room, D)
    seq[place] = x.t().float()
    seq[state] = (conv_states[slots] * has_initial_state.view(n, 1, 1)).transpose(1, 2).float()
    conv_states[slots] = seq[state + lens[:, None]].transpose(1, 2).to(conv_states.dtype)
    return _windows(seq, weight, bias, activation)[place - room].to(x.dtype).t()


def causal_conv1d_update_cpu(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Any = None,
    conv_state_indices: Tensor | None = None,
    intermediate_conv_window: Tensor | None = None,
    intermediate_state_indices: Tensor | None = None,
    retrieve_next_token: Tensor | None = None,
    retrieve_next_sibling: Tensor | None = None,
    retrieve_parent_token: Tensor | None = None,
    **rest: Any,
) -> Tensor:
    """The convolution over the next place of n sequences, or over S places each that may be taken back.

    Args:
        x: [n, D] or [n, D, S]. ``conv_state`` [slots, D, W-1]. ``conv_state_indices`` [n]: slots.
        intermediate_conv_window: [rows, at least S, D, W-1]. Where given, the state after each of the S places goes
            there, into the rows ``intermediate_state_indices`` [n], and ``conv_state`` stays as it is.

    Returns:
        as ``x``. A draft tree (``retrieve_parent_token``) is refused.
    """
    only("causal_conv1d_update_cpu", retrieve_parent_token=retrieve_parent_token, **rest)
    slots, places = conv_state_indices.long(), x.unsqueeze(2) if x.dim() == 2 else x
    S, room = places.shape[2], weight.shape[1] - 1
    seq = torch.cat([conv_state[slots].float(), places.float()], 2).transpose(1, 2).contiguous()
    if intermediate_conv_window is None:
        conv_state[slots] = seq[:, S:].transpose(1, 2).to(conv_state.dtype)
    else:
        rows = intermediate_state_indices[: len(slots)].long()
        after = seq.unfold(1, room, 1)[:, 1:]  # [n, S, D, W-1]
        intermediate_conv_window[rows, :S] = after.to(intermediate_conv_window.dtype)
    return _windows(seq, weight, bias, activation).to(x.dtype).transpose(1, 2).view(x.shape)


# The gated delta rule


def fused_gdn_gating_cpu(A_log: Tensor, a: Tensor, b: Tensor, dt_bias: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Log decay and write strength, [1, T, Hv] float32 each, of ``a`` and ``b`` [T, Hv]."""
    g = F.softplus(a.float() + dt_bias.float()) * A_log.float().exp().neg_()
    return g[None], b.float().sigmoid()[None]


def _unit(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """``q`` and ``k`` [T, H, Dk] as unit vectors of every value head, [T, Hv, 2, Dk] float32."""
    qk = torch.stack([q, k], 2).float()
    qk *= torch.rsqrt(qk.square().sum(-1, keepdim=True) + 1e-6)
    return qk.repeat_interleave(heads // qk.shape[1], 1)


def chunk_gated_delta_rule_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor,
    cu_seqlens: Tensor,
    initial_state_indices: Tensor,
    head_first: bool = False,
    use_qk_l2norm_in_kernel: bool = True,
    **rest: Any,
) -> tuple[Tensor, None, None]:
    """The rule over n prompts one behind the other; ``initial_state`` moves to the state after them.

    Args:
        q: [1, T, H, Dk], and ``k``; ``v`` [1, T, Hv, Dv]; ``g`` (log decay) and ``beta`` [1, T, Hv].
        initial_state: [slots, Hv, Dv, Dk]. ``initial_state_indices`` [n]: slots. ``cu_seqlens`` [n+1].

    Returns:
        outputs [1, T, Hv, Dv] in the dtype of ``v``; in place of the states two None: nothing reads them on a CPU.
    """
    only("chunk_gated_delta_rule_cpu", **rest)
    assert not head_first and use_qk_l2norm_in_kernel
    heads = v.shape[2]
    qk, values = _unit(q[0], k[0], heads), v[0].float()
    start, lens, slots = cu_seqlens[:-1].long(), cu_seqlens.long().diff(), initial_state_indices.long()
    out = torch.empty_like(v)
    for rows, longest in alike(lens):
        inside = torch.arange(longest) < lens[rows, None]
        place = (start[rows, None] + torch.arange(longest)).where(inside, start[rows, None])
        live = inside[:, :, None]  # places behind a prompt's end neither decay nor write
        state = initial_state[slots[rows]].transpose(2, 3).float()
        o, state = many(state, qk[place], values[place], g[0, place] * live, beta[0, place] * live)
        out[0, place[inside]] = (o[inside] * q.shape[-1] ** -0.5).to(out.dtype)
        initial_state[slots[rows]] = state.transpose(2, 3).to(initial_state.dtype)
    return out, None, None


def fused_sigmoid_gating_delta_rule_update_cpu(
    A_log: Tensor,
    dt_bias: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state_source: Tensor,
    initial_state_indices: Tensor,
    cu_seqlens: Tensor,
    use_qk_l2norm_in_kernel: bool = True,
    softplus_beta: float = 1.0,
    softplus_threshold: float = 20.0,
    is_kda: bool = False,
    disable_state_update: bool = False,
    intermediate_states_buffer: Tensor | None = None,
    intermediate_state_indices: Tensor | None = None,
    cache_steps: int | None = None,
    retrieve_parent_token: Tensor | None = None,
) -> Tensor:
    """The rule over the next S places of n sequences (S = T / n: 1 to decode, the drafts of a step to verify).

    Args:
        q: [1, T, H, Dk], and ``k``; ``v`` [1, T, Hv, Dv]; ``a`` and ``b`` [T, Hv]; ``A_log`` and ``dt_bias`` [Hv].
        initial_state_source: [slots, Hv, Dv, Dk]; stays as it is under ``disable_state_update``.
        intermediate_states_buffer: [rows, at least S, Hv, Dv, Dk]. Where given, the state after each place goes there,
            into the rows ``intermediate_state_indices`` [n].

    Returns:
        outputs [1, T, Hv, Dv] in the dtype of ``v``. A draft tree (``retrieve_parent_token``) is refused, and so are
        sequences that differ in the number of places.
    """
    where = "fused_sigmoid_gating_delta_rule_update_cpu"
    only(where, retrieve_parent_token=retrieve_parent_token, is_kda=is_kda or None)
    assert use_qk_l2norm_in_kernel and softplus_beta == 1.0 and softplus_threshold == 20.0
    (_, T, Hv, Dv), Dk, n = v.shape, q.shape[-1], len(cu_seqlens) - 1
    S = T // n
    if S * n != T:
        raise NotImplementedError(f"{where} was called with {T} places of {n} sequences; as many of each are needed")
    slots = initial_state_indices[:n].long()
    rows = None if intermediate_states_buffer is None else intermediate_state_indices[:n].long()
    g, beta = fused_gdn_gating_cpu(A_log, a.reshape(T, Hv), b.reshape(T, Hv), dt_bias)
    query, key = _unit(q[0], k[0], Hv).view(n, S, Hv, 2, Dk).unbind(3)
    value, decay, beta = v.float().view(n, S, Hv, Dv), g.exp_().view(n, S, Hv), beta.view(n, S, Hv)
    state = initial_state_source[slots].float().view(n * Hv, Dv, Dk)
    out = torch.empty_like(value)
    for s in range(S):
        k_B1K = key[:, s].reshape(-1, 1, Dk)
        state *= decay[:, s].reshape(-1, 1, 1)
        u = torch.baddbmm(value[:, s].reshape(-1, Dv, 1), state, k_B1K.transpose(1, 2), alpha=-1)
        state.baddbmm_(u.mul_(beta[:, s].reshape(-1, 1, 1)), k_B1K)
        out[:, s] = torch.bmm(state, query[:, s].reshape(-1, Dk, 1)).view(n, Hv, Dv)
        if rows is not None:
            intermediate_states_buffer[rows, s] = state.view(n, Hv, Dv, Dk).to(intermediate_states_buffer.dtype)
    if not disable_state_update:
        initial_state_source[slots] = state.view(n, Hv, Dv, Dk).to(initial_state_source.dtype)
    return out.mul_(Dk**-0.5).view(1, T, Hv, Dv).to(v.dtype)


def scatter_verified_states_cpu(
    mamba_caches: Any,
    state_indices_tensor: Tensor,
    last_correct_step_indices: Tensor,
    mamba_track_indices: Tensor | None = None,
    mamba_steps_to_track: Tensor | None = None,
    src_indices_raw: Tensor | None = None,
) -> None:
    """Of each verified sequence, the state after its last accepted place into its slot, in every layer.

    SGLang 0.5.23 has this for a GPU only (``scatter_mamba_states_after_mtp_verify``, whose arguments these are).

    Args:
        mamba_caches: ``temporal`` [layers, slots, ..] and ``intermediate_ssm`` [layers, rows, S, ..]; lists ``conv``
            and ``intermediate_conv_window`` of the same for convolutions.
        state_indices_tensor: [n], slots. ``last_correct_step_indices`` [n], below 0 where nothing moves.
        mamba_track_indices: as slots, with ``mamba_steps_to_track`` as steps: a second copy, for prefixes.
        src_indices_raw: [n], rows of the intermediate states; the first n where it is None.
    """
    pairs = [(mamba_caches.temporal, mamba_caches.intermediate_ssm)]
    pairs += zip(mamba_caches.conv, mamba_caches.intermediate_conv_window)
    moves = [(state_indices_tensor, last_correct_step_indices)]
    if mamba_track_indices is not None:
        moves.append((mamba_track_indices, mamba_steps_to_track))
    for slots, steps in moves:
        rows = torch.arange(len(steps)) if src_indices_raw is None else src_indices_raw.long()
        live = (steps >= 0) & (slots >= 0)
        slots, steps, rows = slots[live].long(), steps[live].long(), rows[live]
        for states, drafts in pairs:
            states[:, slots] = drafts[:, rows, steps].to(states.dtype)


def fused_rmsnorm_gated_cpu(x: Tensor, weight: Tensor, z: Tensor, eps: float) -> Tensor:
    """RMSNorm(x) * weight * SiLU(z); ``x`` and ``z`` [..., Dv], ``weight`` [Dv]. Dtype of ``x``."""
    h = x.float()
    h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps) * weight.float()
    return h.mul_(F.silu(z.float())).to(x.dtype)
