"""The config of a hybrid PIPO model: its cache has one more full-attention layer, the MTP head's."""

from __future__ import annotations

from sglang.srt.configs.qwen3_5 import Qwen3_5TextConfig


class PairQwen3_5Config(Qwen3_5TextConfig):  # type: ignore[misc]
    """A Qwen3.5 text config whose cached layers end with the MTP layer, numbered after the backbone's."""

    @property
    def full_attention_layer_ids(self) -> list[int]:
        """Layers with keys and values."""
        return [*super().full_attention_layer_ids, self.num_hidden_layers]
