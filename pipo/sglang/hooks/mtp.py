"""Unverified MTP inside SGLang's EAGLE machinery: one draft a pass, drawn with the request's settings, always kept.

The pass that would verify the draft is the next token's own pass, so its cost is that of our torch engine's mtp: one
backbone pass and one MTP pass over two places, two tokens.

Shape legend: R requests, D = 2 places of a pass (the last token and its draft), S = 1 draft, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipo.sglang.hooks.places import agree, distribution, draw, settle
from pipo.sglang.hooks.scheduler import speculative


def draft_forward(original: Any, self: Any, forward_batch: Any) -> Any:
    """The drafts of a pass: drawn from the MTP head's logits, which go along in place of SGLang's ``draft_probs``.

    SGLang keeps softmax(logits / T) of the last MTP pass for its rejection sampling; what it drew from that knew
    neither penalties nor filters, and is not used.
    """
    spec, info = forward_batch.spec_info, forward_batch.sampling_info
    if speculative() != "mtp" or forward_batch.forward_mode.is_idle():
        return original(self, forward_batch)
    logits_R1V = (spec.draft_probs.float().log() * info.temperatures)[:, None]
    settle(logits_R1V, info, logits_R1V.new_empty(len(logits_R1V), 0, dtype=torch.int64))
    draft_R = logits_R1V[:, 0].argmax(-1) if info.is_all_greedy else draw(distribution(logits_R1V, info)[:, 0])
    agree(draft_R)
    spec.topk_index = draft_R[:, None]
    *chain, _ = original(self, forward_batch)
    return *chain, logits_R1V


def keep_all(logits_RDV: Tensor, drafts_RS: Tensor, drafted_RSV: Tensor, info: Any) -> tuple[Tensor, Tensor]:
    """What stands after each place, [R, D], and how many drafts are kept, [R]: all.

    ``drafted_RSV``: logits that drafts came from. They go where log-probabilities are taken from, since a draft's is
    the MTP head's, as in our torch engine.
    """
    settle(logits_RDV, info, drafts_RS)
    last_R1V = logits_RDV[:, -1:]
    token_R = last_R1V[:, 0].argmax(-1) if info.is_all_greedy else draw(distribution(last_R1V, info)[:, 0])
    logits_RDV[:, :-1] = drafted_RSV
    kept_R = torch.full_like(token_R, drafts_RS.shape[1])
    return torch.cat([drafts_RS, token_R[:, None]], 1), kept_R
