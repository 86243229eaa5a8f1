"""The scheduler's side: where a request ends and what it sends out.

A request's own arrays hold pairs, for the caches. While SGLang decides about the text (end of sequence, stop strings,
token limits, streaming, log-probabilities) it is lent the tokens instead, so its own code does the deciding.
"""

from __future__ import annotations

from typing import Any

from pipo.sglang.pairs import PairText, before, unpack

_on: dict[str, Any] = {}
SPECULATIVE = ("eagle", "mtp")


def switch_on(pad: int) -> None:
    """This process serves a PIPO model (one model a process)."""
    _on["pad"] = pad


def pad() -> int | None:
    """PAD of the PIPO model that this process serves; None where it serves another kind."""
    return _on.get("pad")


def speculative() -> str | None:
    """``eagle`` or ``mtp`` where this process drafts with a regular model for us; None anywhere else."""
    return _on.get("speculative")


def text_of(req: Any) -> PairText:
    """The tokens that a request has generated; made with its first pair."""
    text: PairText | None = getattr(req, "pair_text", None)
    if text is None:
        own = req.sampling_params.custom_params or {}
        text = req.pair_text = PairText(_on["pad"], own.get("max_tokens"), req.origin_input_ids)
    return text


def scheduler_init(result: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Look at the model, and at the method that it is served for, when the scheduler starts."""
    from pipo.sglang.hooks.loading import is_pairs

    config = self.model_config.hf_config
    if is_pairs(config):
        switch_on(int(config.pad_token_id))
    elif (method := getattr(config, "pipo_method", None)) in SPECULATIVE:
        check_speculative(method, self.server_args)
        _on["speculative"] = method


def check_speculative(method: str, args: Any) -> None:
    """What our choice of tokens was written for. Raises SystemExit with the flag that is missing."""
    wanted: dict[str, Any] = {"disable_overlap_schedule": True, "speculative_eagle_topk": 1}
    if method == "mtp":
        wanted |= {
            "speculative_num_steps": 1, "speculative_use_rejection_sampling": True, "disable_radix_cache": True,
        }  # fmt: skip
    for name, value in wanted.items():
        if getattr(args, name) != value:
            raise SystemExit(f"pipo: method {method} needs {name} {value}, the server has {getattr(args, name)}")


def update_finish_state(original: Any, self: Any, new_accepted_len: int = 1) -> Any:
    """Decide over tokens; ``finished_len`` goes back in pairs, and the token count is kept beside it."""
    if pad() is None or self.finished() or self.to_finish:
        return original(self, new_accepted_len)
    text, params = text_of(self), self.sampling_params
    _tell_followers(self, len(text.ends))
    fresh = text.follow(self.output_ids)
    pairs, slots = self.output_ids, params.max_new_tokens
    self.output_ids, params.max_new_tokens = text.tokens, 1 << 62 if text.limit is None else text.limit
    try:
        original(self, fresh)
    finally:
        self.output_ids, params.max_new_tokens = pairs, slots
    if self.finished():
        text.end = len(text.tokens) if self.finished_len is None else self.finished_len
        self.finished_len = text.pairs_through(text.end)
    elif len(pairs) >= slots:
        from sglang.srt.managers.schedule_batch import FINISH_LENGTH

        self.finished_reason = FINISH_LENGTH(length=slots)
        text.end, self.finished_len = text.ends[slots - 1], slots


def _tell_followers(req: Any, known: int) -> None:
    """Let pairs know the first tokens of the new ones after them, in the arrays that the caches take keys from."""
    prompt, pairs, keys = req.origin_input_ids, req.output_ids, req.full_untruncated_fill_ids
    for slot in range(known, len(pairs)):
        owner, at, place = (pairs, slot - 1, len(prompt) + slot - 1) if slot else (prompt, -1, len(prompt) - 1)
        owner[at] = before(owner[at], unpack(pairs[slot])[0])
        if place < len(keys):
            keys[place] = owner[at]


def accept(original: Any, self: Any, *, req: Any) -> Any:
    """Send out tokens, their log-probabilities and counts; the request gets its pairs back afterwards."""
    if pad() is None:
        return original(self, req=req)
    text = text_of(req)
    text.follow(req.output_ids)
    if not (req.finished() or req.stream) and len(text.tokens) % self.default_force_stream_interval:
        return None  # as SGLang decides, without the lending
    sent = len(self.output_ids)
    lent = {
        "output_ids": text.tokens,
        "origin_input_ids": text.prompt,
        "origin_input_ids_unpadded": text.prompt,
        "finished_len": text.end,
        "customized_info": _per_token(req, text),
    }
    for name in ("cached_tokens", "cached_tokens_device"):
        lent[name] = text.cached_tokens(getattr(req, name), req.origin_input_ids)
    kept = {name: getattr(req, name) for name in lent}
    scores = _flat_scores(req, text) if req.return_logprob else {}
    kept_scores = {name: getattr(req.logprob, name) for name in scores}
    _set(req, lent)
    _set(req.logprob, scores)
    try:
        original(self, req=req)
    finally:
        _set(req, kept)
        _set(req.logprob, kept_scores)
        if req.finished() and req.finished_len is None:
            req.finished_len = len(req.output_ids)
    if len(self.output_ids) > sent:
        told = self.customized_info.setdefault("pipo", [None] * sent)
        del told[sent:]
        told.append(text.counts())


def _set(obj: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(obj, name, value)


SCORES = (
    "output_token_logprobs_val",
    "output_token_logprobs_idx",
    "output_top_logprobs_val",
    "output_top_logprobs_idx",
    "output_token_ids_logprobs_val",
    "output_token_ids_logprobs_idx",
)


def _flat_scores(req: Any, text: PairText) -> dict[str, list[Any]]:
    """Log-probabilities a token from those that came a pair; only new pairs are looked at."""
    if not text.scores:
        text.scores = {name: [] for name in SCORES}
    known = len(req.logprob.output_token_logprobs_val or [])
    for slot in range(text.scored, min(known, len(text.ends))):
        width = text.ends[slot] - (text.ends[slot - 1] if slot else 0)
        for name in SCORES:
            rows = getattr(req.logprob, name)
            if not rows:
                continue
            row = unpack(rows[slot]) if name == "output_token_logprobs_idx" else rows[slot]
            text.scores[name].extend(row[:width])
        text.scored = slot + 1
    return text.scores


def _per_token(req: Any, text: PairText) -> dict[str, list[Any]] | None:
    """Details a pair as a list a token: the first token of a pair has them, the second None."""
    info = req.customized_info
    if info is None or not (req.sampling_params.custom_params or {}).get("details"):
        return None
    for slot in range(text.detailed, min(len(info["pipo_slots"]), len(text.ends))):
        row = info["pipo_slots"][slot]
        text.details.append([row[0], bool(row[1]), *row[2:]])
        text.details.extend([None] * (text.ends[slot] - (text.ends[slot - 1] if slot else 0) - 1))
        text.detailed = slot + 1
    return {"pipo_slots": text.details}
