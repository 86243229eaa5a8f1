"""The twin for dense Qwen3 backbones."""

from __future__ import annotations

import copy
from typing import Any

from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.utils import PPMissingLayer
from sglang.srt.models.qwen3 import Qwen3ForCausalLM, Qwen3Model

from pipo.sglang.models.twin import PairModel


class PairQwen3(PairModel, Qwen3ForCausalLM):  # type: ignore[misc]
    """``PipoForCausalLM`` over a dense Qwen3 backbone."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        Qwen3ForCausalLM.__init__(self, config, quant_config, prefix)
        one = copy.deepcopy(config)
        one.num_hidden_layers = 1
        body = Qwen3Model(one, quant_config, prefix="mtp")
        body.embed_tokens = PPMissingLayer()  # the backbone's is used
        body.layers[0].self_attn.attn.layer_id = config.num_hidden_layers
        self.add_heads(config, quant_config, lambda size: RMSNorm(size, eps=config.rms_norm_eps), body)
