"""The draft class that SGLang lacks: the native MTP head (``mtp.*``) of a regular dense Qwen3.

Shape legend: T places of this pass, H hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.utils import PPMissingLayer
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead
from sglang.srt.models.qwen3 import Qwen3Model
from torch import Tensor, nn

from pipo.sglang.models.twin import Unfold, fill


class Qwen3ForCausalLMMTP(nn.Module):
    """norm(layer(fc [norm(embedding); norm(hidden of the backbone)])), then the backbone's own output head."""

    start_layer, end_layer = 0, 1

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config = config
        hidden, one = config.hidden_size, copy.deepcopy(config)
        one.num_hidden_layers = 1
        body = Qwen3Model(one, quant_config, prefix="mtp")
        self.embed_tokens, body.embed_tokens = body.embed_tokens, PPMissingLayer()
        norms = tuple(RMSNorm(hidden, eps=config.rms_norm_eps) for _ in range(2))
        self.mtp = Unfold(hidden, norms, body)
        tied = config.tie_word_embeddings
        self.lm_head = self.embed_tokens if tied else ParallelLMHead(config.vocab_size, hidden)
        self.logits_processor = LogitsProcessor(config)

    def set_embed_and_head(self, embed: Tensor, head: Tensor) -> None:
        """Share the backbone's, [V, H] each; a tied head is the embedding."""
        self.embed_tokens.weight = embed
        if not self.config.tie_word_embeddings:
            self.lm_head.weight = head

    @torch.no_grad()
    def forward(self, input_ids: Tensor, positions: Tensor, forward_batch: Any, **_: Any) -> Any:
        """Logits after ``input_ids`` [T]; the backbone's hiddens [T, H] come in ``forward_batch.spec_info``."""
        h_TH = forward_batch.spec_info.hidden_states
        d_TH = self.mtp(input_ids, self.embed_tokens(input_ids), h_TH, positions, forward_batch)
        return self.logits_processor(input_ids, d_TH, self.lm_head, forward_batch)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """``mtp.*``; the rest is the backbone's. Raises ValueError where a tensor is missing: nothing stays random."""
        params = {name: p for name, p in self.named_parameters() if name.startswith("mtp.")}
        for p in params.values():
            p.data.fill_(float("nan"))
        unknown = [name for name, tensor in weights if name.startswith("mtp.") and not fill(params, name, tensor)]
        missing = [name for name, p in params.items() if p.isnan().any()]
        if missing or unknown:
            raise ValueError(f"the MTP head is not a dense Qwen3's: missing {missing[:4]}, unexpected {unknown[:4]}")
