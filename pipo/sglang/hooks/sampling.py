"""Two-phase sampling: the first token by SGLang's sampler, then draft, gate and the same sampler once more.

Penalties run over real tokens: PAD never counts, and the draft sees token 1 counted. Log-probabilities come a pair at
a time, details (draft, kept, confidence) where a request asked for them.

Shape legend: B requests of this pass, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipo.sglang.hooks.scheduler import pad, speculative
from pipo.sglang.pairs import pack, unpack

DRAFT_PLACE = 1 << 24  # seeded sampling hashes the position: a draft's must be one that no first token has


class PairSampling(NamedTuple):
    """Our settings of a batch's rows: thresholds [B] float32, and whether each wants details."""

    threshold: Tensor
    details: tuple[bool, ...]


def from_schedule_batch(result: Any, self: Any, batch: Any, vocab_size: int) -> None:
    """Settings of a new batch; a request that was retracted has its earlier tokens counted again."""
    if speculative():
        from pipo.sglang.hooks import places

        places.begin(self.penalizer_orchestrator, batch.reqs, batch.device)
    if pad() is None:
        return
    own = [r.sampling_params.custom_params or {} for r in batch.reqs]
    threshold = torch.tensor([o.get("threshold", 1.0) for o in own], dtype=torch.float32, device=batch.device)
    self.pairs = PairSampling(threshold, tuple(bool(o.get("details")) for o in own))
    if self.penalizer_orchestrator.is_required:
        for step in range(max((len(r.output_ids) for r in batch.reqs), default=0)):
            _count_pairs(self.penalizer_orchestrator, [r.output_ids[step : step + 1] for r in batch.reqs], batch.device)


def merge_batch(result: Any, self: Any, other: Any) -> None:
    """Rows of two batches side by side."""
    if pad() is not None:
        a, b = self.pairs, other.pairs
        self.pairs = PairSampling(torch.cat([a.threshold, b.threshold]), a.details + b.details)


def filter_batch(result: Any, self: Any, keep_indices: Any, keep_indices_device: Any) -> None:
    """Some rows of a batch."""
    if pad() is not None:
        a = self.pairs
        self.pairs = PairSampling(a.threshold[keep_indices_device], tuple(a.details[i] for i in keep_indices))


def copy_for_forward(result: Any, self: Any) -> None:
    """The copy that a pass works with keeps our settings."""
    if pad() is not None:
        result.pairs = self.pairs
    if speculative():
        result.penalties = self.penalizer_orchestrator  # a pass has several places, each after another count of tokens


def init_forward_batch(result: Any, cls: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
    """Where a prompt goes on after this chunk: (row, its next token), for the MTP layer's last row."""
    result.pair_tail = None
    request = getattr(batch, "chunked_req", None)
    if pad() is None or request is None or request.extend_end is None:  # None: retracted in the middle of its chunks
        return
    if request.extend_end >= len(request.full_untruncated_fill_ids):
        return
    row = next((i for i, r in enumerate(batch.reqs) if r is request), None)
    if row is not None:
        result.pair_tail = row, int(unpack(request.full_untruncated_fill_ids[request.extend_end])[0])


def cumulate_penalty_output_tokens(original: Any, self: Any) -> Any:
    """Count what the last step added beyond the first tokens, which ``sample`` counted: kept drafts.

    Where drafts are verified: every token that was accepted.
    """
    if speculative():
        from pipo.sglang.hooks import places

        return places.count_accepted(self.sampling_info.penalizer_orchestrator, self.reqs, self.device)
    if pad() is None:
        return original(self)
    latest = [r.output_ids[-1:] for r in self.reqs]
    _count_pairs(self.sampling_info.penalizer_orchestrator, latest, self.device, first=False)


def _count_pairs(orchestrator: Any, pairs: list[Any], device: Any, first: bool = True) -> None:
    """Count at most one pair a row."""
    halves = [unpack(p[0]) if len(p) else (pad(), pad()) for p in pairs]
    for side in (0, 1) if first else (1,):
        ids = torch.tensor([h[side] for h in halves], dtype=torch.int64, device=device)
        count_tokens(orchestrator, ids, ids != pad())


def count_tokens(orchestrator: Any, ids_B: Tensor, real_B: Tensor) -> None:
    """Feed SGLang's penalizers one token a row where ``real_B``; the others stay as they are."""
    from sglang.srt.sampling import penaltylib as lib

    ids, real = ids_B[:, None], real_B[:, None]
    for p in orchestrator.penalizers.values():
        if not p.is_prepared():
            continue
        if isinstance(p, lib.BatchedMinNewTokensPenalizer):
            p.len_output_tokens += real.int()
        elif isinstance(p, lib.BatchedFrequencyPenalizer):
            p.cumulated_frequency_penalties.scatter_add_(1, ids, p.frequency_penalties * real)
        else:
            presence = isinstance(p, lib.BatchedPresencePenalizer)
            state = p.cumulated_presence_penalties if presence else p.cumulated_repetition_penalties
            strength = p.presence_penalties if presence else p.repetition_penalties
            state.scatter_(1, ids, torch.where(real, strength, state.gather(1, ids)))


def sample(original: Any, self: Any, logits_output: Any, forward_batch: Any) -> Any:
    """Packed pairs [B] int64."""
    if pad() is None:
        return original(self, logits_output, forward_batch)
    from sglang.srt.layers.logits_processor import LogitsProcessorOutput

    model, info, batch = self.model, forward_batch.sampling_info, forward_batch
    logits_output.next_token_logits.select(1, model.pad).fill_(float("-inf"))
    first = original(self, logits_output, batch).long()
    if model.first_only:
        return pack(first, model.pad)
    orchestrator = info.penalizer_orchestrator
    if orchestrator is not None and orchestrator.is_required:
        count_tokens(orchestrator, first, torch.ones_like(first, dtype=torch.bool))
    logits, confidence = model.draft(first, _tail(first, batch), logits_output, batch, self.attn_backend)
    logits.select(1, model.pad).fill_(float("-inf"))
    if model.draft_mask is not None:
        logits.masked_fill_(model.draft_mask, float("-inf"))
    info.apply_logits_bias(logits)
    drafted = LogitsProcessorOutput(next_token_logits=logits)
    places = batch.positions if batch.forward_mode.is_decode() else batch.seq_lens - 1
    draft = self.sampler(
        drafted, info, batch.return_logprob, batch.top_logprobs_nums, batch.token_ids_logprobs, places + DRAFT_PLACE
    ).long()
    kept = keep(confidence, info.pairs.threshold)
    if batch.return_logprob:
        _pair_scores(logits_output, drafted)
    if any(info.pairs.details):
        columns = [draft.double(), kept.double(), confidence.double()]
        if batch.return_logprob:
            columns.append(drafted.next_token_logprobs.double())
        logits_output.customized_info = {"pipo_slots": torch.stack(columns, 1).tolist()}
    return pack(first, torch.where(kept, draft, model.pad))


def keep(confidence_B: Tensor, threshold_B: Tensor) -> Tensor:
    """The gate, float32: threshold 0 keeps every draft and 1 none, whatever the sigmoid rounds to."""
    return (threshold_B <= 0) | ((confidence_B >= threshold_B) & (threshold_B < 1))


def _tail(first_B: Tensor, batch: Any) -> Tensor:
    if batch.pair_tail is None:
        return first_B
    row, token = batch.pair_tail
    tail_B = first_B.clone()
    tail_B[row : row + 1].fill_(token)
    return tail_B


def _pair_scores(out: Any, drafted: Any) -> None:
    """Both heads' log-probabilities, a pair of rows a request."""
    out.next_token_logprobs = torch.stack([out.next_token_logprobs, drafted.next_token_logprobs], 1)
    for name in ("top_logprobs_val", "top_logprobs_idx", "token_ids_logprobs_val", "token_ids_logprobs_idx"):
        a, b = (getattr(o, f"next_token_{name}") for o in (out, drafted))
        if a is not None:
            both = [torch.stack([x, y]) if torch.is_tensor(x) else [x, y] for x, y in zip(a, b, strict=True)]
            setattr(out, f"next_token_{name}", both)
