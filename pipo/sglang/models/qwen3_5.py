"""The twin for Qwen3.5 (GatedDeltaNet hybrid) backbones."""

from __future__ import annotations

import copy
from typing import Any

from sglang.srt.layers.layernorm import GemmaRMSNorm
from sglang.srt.layers.utils import PPMissingLayer
from sglang.srt.models import qwen3_5
from sglang.srt.models.qwen3_5_text import Qwen3_5ForCausalLM
from torch import Tensor, nn

from pipo.sglang.models.twin import PairModel


class _OneLayer(qwen3_5.Qwen3_5ForCausalLM):  # type: ignore[misc]
    """A single full-attention layer and its norm; the embedding is the backbone's."""

    def _build_embed_tokens(self, config: Any) -> nn.Module:
        return PPMissingLayer()  # type: ignore[no-any-return]


class PairQwen3_5(PairModel, Qwen3_5ForCausalLM):  # type: ignore[misc]
    """``PipoForCausalLM`` over a Qwen3.5 text backbone."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        Qwen3_5ForCausalLM.__init__(self, config, quant_config, prefix)
        one = copy.deepcopy(config)
        one.num_hidden_layers = one.full_attention_interval = 1
        body = _OneLayer(one, quant_config, prefix="mtp", is_nextn=True)
        body.layers[0].attn.layer_id = config.num_hidden_layers
        self.add_heads(config, quant_config, lambda size: GemmaRMSNorm(size, config.rms_norm_eps), body)

    def mtp_positions(self, positions: Tensor, forward_batch: Any) -> Tensor:
        return forward_batch.mrope_positions if self.is_mrope_enabled else positions  # type: ignore[no-any-return]
