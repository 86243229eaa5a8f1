"""The front: prompts become pairs, our settings are checked, and counts go back in ``meta_info``.

Our settings arrive in SGLang's ``custom_params`` of a request's sampling parameters: ``threshold`` (the gate's, 0 keeps
every draft, 1 none), ``max_slots`` (budget in pairs) and ``details`` (tell each slot's draft, confidence and fate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipo.sglang.hooks.loading import is_pairs
from pipo.sglang.pairs import pack_prompt

THRESHOLD = 0.95  # the paper's
KEYS = {"threshold", "max_slots", "details"}
PENALTIES = {"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "min_new_tokens": 0}
REFUSED = ("json_schema", "regex", "ebnf", "structural_tag", "thinking_budget")


def validate_one_request(original: Any, self: Any, obj: Any, input_ids: Any) -> Any:
    """Lengths are counted in pairs, and a token limit asks for half as many slots at best."""
    if not is_pairs(self.model_config.hf_config) or input_ids is None:
        return original(self, obj, input_ids)
    if not input_ids:
        raise ValueError("the prompt is empty; give at least one token")
    params = obj.sampling_params
    limit = params.get("max_new_tokens")
    if limit is not None:
        obj.sampling_params = {**params, "max_new_tokens": (limit + 1) // 2}
    try:
        return original(self, obj, list(input_ids[::2]))
    finally:
        obj.sampling_params = params


def create_tokenized_object(
    original: Any, self: Any, obj: Any, input_text: Any, input_ids: Any, *args: Any, **kwargs: Any
) -> Any:
    """Pack the prompt. ``max_new_tokens`` goes on in slots; the limit in tokens rides in ``custom_params``."""
    config = self.model_config.hf_config
    if not is_pairs(config):
        if getattr(config, "pipo_method", None) == "mtp":
            _refuse_grammar(obj.sampling_params)
        return original(self, obj, input_text, input_ids, *args, **kwargs)
    if input_ids is None:
        raise ValueError("a PIPO model takes token ids or text; input_embeds cannot be paired")
    params = dict(obj.sampling_params)
    ours = check_custom(params.get("custom_params") or {})
    _refuse(obj, params)
    _refuse_late_penalties(params)
    check_places(input_ids, config.pad_token_id, config.vocab_size)
    limit = params.get("max_new_tokens", 128)
    slots = [n for n in (limit, ours["max_slots"]) if n is not None]
    params["max_new_tokens"] = min(slots) if slots else None
    params["custom_params"] = {**ours, "max_tokens": limit}
    stated, obj.sampling_params = obj.sampling_params, params
    try:
        return original(self, obj, input_text, pack_prompt(input_ids, config.pad_token_id), *args, **kwargs)
    finally:
        obj.sampling_params = stated


def check_custom(given: dict[str, Any]) -> dict[str, Any]:
    """A request's settings of ours, complete; raises ValueError with the value and the rule."""
    if not isinstance(given, dict):
        raise ValueError(f"custom_params {given!r} must be an object; PIPO knows {', '.join(sorted(KEYS))}")
    unknown = sorted(set(given) - KEYS)
    if unknown:
        raise ValueError(f"custom_params has {', '.join(unknown)}; PIPO knows {', '.join(sorted(KEYS))}")
    threshold, slots = given.get("threshold", THRESHOLD), given.get("max_slots")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not (number and math.isfinite(threshold) and 0 <= threshold <= 1):
        raise ValueError(f"threshold {threshold!r} must be a number in [0, 1]; 0 keeps every draft, 1 none")
    if slots is not None and not (isinstance(slots, int) and not isinstance(slots, bool) and slots >= 1):
        raise ValueError(f"max_slots {slots!r} must be a whole number of at least 1")
    return {"threshold": float(threshold), "max_slots": slots, "details": bool(given.get("details"))}


def _refuse(obj: Any, params: dict[str, Any]) -> None:
    """What pairs have no answer for is refused, not ignored."""
    _refuse_grammar(params)
    start = getattr(obj, "logprob_start_len", None)
    if getattr(obj, "return_logprob", False) and start is not None and start >= 0:
        raise ValueError("log-probabilities of the prompt do not exist for pairs: leave logprob_start_len out")
    for name in ("custom_logit_processor", "session_params", "lora_path", "return_sampling_mask"):
        if getattr(obj, name, None):
            raise ValueError(f"{name} is not supported with PIPO: leave it out")


def _refuse_grammar(params: dict[str, Any]) -> None:
    grammar = [name for name in REFUSED if params.get(name)]
    if grammar:
        raise ValueError(
            f"{grammar[0]} constrains one token at a time; a draft that is kept would escape it: leave it out"
        )


def _refuse_late_penalties(params: dict[str, Any]) -> None:
    """Under the overlap schedule a step's penalties have not seen the step before it."""
    from sglang.srt.runtime_context import get_schedule

    used = [name for name, off in PENALTIES.items() if params.get(name, off) not in (off, None)]
    if used and not get_schedule().disable_overlap_schedule:
        raise ValueError(f"{used[0]} is a step late under the overlap schedule: start with --disable-overlap-schedule")


def check_places(ids: Sequence[int], pad: int, vocab: int) -> None:
    """Ids must be the vocabulary's, and PAD may only stand second in a pair. Raises ValueError."""
    bad = next((t for t in ids if not 0 <= t < vocab), None)
    if bad is not None:
        raise ValueError(f"prompt token {bad} is outside the vocabulary of {vocab}; use this model's tokenizer")
    lone = next((i for i in range(0, len(ids), 2) if ids[i] == pad), None)
    if lone is not None:
        raise ValueError(f"PAD ({pad}) stands at place {lone} of the prompt; it may only stand second in a pair")


def update_request_meta_info(
    original: Any, self: Any, meta_info: Any, state: Any, customized_info: Any, index: int, finish_reason: Any
) -> Any:
    """Our counts are one dictionary a request, not a value a token."""
    counts = customized_info.get("pipo")
    if counts is None:
        return original(self, meta_info, state, customized_info, index, finish_reason)
    meta_info["pipo"] = counts[index]
    rest = {key: values for key, values in customized_info.items() if key != "pipo"}
    return original(self, meta_info, state, rest, index, finish_reason)
