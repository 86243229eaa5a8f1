"""Loading: our model folders as SGLang knows them, and our twin classes for PIPO models.

SGLang decides by architecture name what a hybrid is, which caches it gets and which attention backends it may use, so
a PIPO model keeps the name of its backbone and is told from a regular one by ``compressor_type`` in its config.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from pipo.sglang.hooks.scheduler import SPECULATIVE
from pipo.sglang.pairs import MOST_TOKENS

OURS = "PipoForCausalLM"
DRAFT = "Qwen3ForCausalLMMTP"  # the native MTP head of a dense Qwen3, which SGLang has no class for
ARCHITECTURES = {"qwen3_5_text": "Qwen3_5ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def is_pairs(config: Any) -> bool:
    """Whether a Hugging Face config is a PIPO model's."""
    return getattr(config, "compressor_type", None) is not None


def get_config(original: Any, *args: Any, **kwargs: Any) -> Any:
    """The config of a model folder; ours (and the published layout) become the backbone's text config with our keys.

    Raises ValueError where pairs do not fit: a vocabulary beyond 2^20, or no PAD.
    """
    config = original(*args, **kwargs)
    text = getattr(config, "text_config", config)
    ours = OURS in (getattr(config, "architectures", None) or []) or is_pairs(config)
    if not ours or text.model_type not in ARCHITECTURES:
        return config
    if text is not config:
        for key in ("compressor_type", "pad_token_id", "eos_token_id", "tie_word_embeddings"):
            if getattr(config, key, None) is not None:
                setattr(text, key, getattr(config, key))
    text.architectures = [ARCHITECTURES[text.model_type]]
    if text.model_type == "qwen3_5_text":
        text.full_attention_interval = interval(text)
        text.mtp_num_hidden_layers = 1
    if is_pairs(text):
        _check_pairs(text)
        if text.model_type == "qwen3_5_text":
            from pipo.sglang.models.config import PairQwen3_5Config

            text.__class__ = PairQwen3_5Config
    return text


def _check_pairs(config: Any) -> None:
    if config.vocab_size > MOST_TOKENS:
        raise ValueError(f"a vocabulary of {config.vocab_size} does not fit a pair: ids must be below {MOST_TOKENS}")
    if config.pad_token_id is None:
        raise ValueError("config.json has no pad_token_id; PIPO needs a PAD of its own")


def interval(config: Any) -> int:
    """Every how many layers a full-attention one stands; raises ValueError where the layers keep no such rule."""
    types = getattr(config, "layer_types", None)
    if not types:
        return int(getattr(config, "full_attention_interval", 4))
    every = types.index("full_attention") + 1 if "full_attention" in types else len(types) + 1
    if any((kind == "full_attention") != ((i + 1) % every == 0) for i, kind in enumerate(types)):
        raise ValueError(f"layer_types {types} have no fixed interval of full attention, which SGLang needs")
    return every


def get_model_architecture(original: Any, model_config: Any) -> Any:
    """The twin class for a PIPO config, a draft class of ours for a dense head, SGLang's own for any other."""
    if model_config.hf_config.architectures == [DRAFT]:
        from sglang.srt.models.registry import ModelRegistry

        from pipo.sglang.models.qwen3_mtp import Qwen3ForCausalLMMTP

        ModelRegistry.models[DRAFT] = Qwen3ForCausalLMMTP
    if not is_pairs(model_config.hf_config) or getattr(model_config, "is_draft_model", False):
        return original(model_config)
    name = original(model_config)[1]
    if name == "Qwen3_5ForCausalLM":
        from pipo.sglang.models.qwen3_5 import PairQwen3_5

        return PairQwen3_5, name
    from pipo.sglang.models.qwen3 import PairQwen3

    return PairQwen3, name


def config_draft_model(result: Any, self: Any) -> None:
    """The draft of a dense Qwen3 is its MTP head; SGLang would take the whole model for it."""
    config = self.hf_config
    ours = getattr(config, "pipo_method", None) in SPECULATIVE
    if self.is_draft_model and ours and config.architectures == [ARCHITECTURES["qwen3"]]:
        self.hf_config = self.hf_text_config = copy.deepcopy(config)
        self.hf_config.architectures = [DRAFT]
        self.hf_config.num_nextn_predict_layers = 1


def without_head(original: Any, self: Any, weights: Iterable[tuple[str, Any]]) -> Any:
    """A dense Qwen3 backbone leaves ``mtp.*`` alone; SGLang's loader knows no such name and ends with a KeyError."""
    return original(self, ((name, tensor) for name, tensor in weights if not name.startswith("mtp.")))
