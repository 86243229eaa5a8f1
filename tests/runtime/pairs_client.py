"""Asking a running SGLang server, and the torch engine about the same requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.model import load_model, load_tokenizer

GREEDY = Sampling(temperature=0)
THRESHOLDS = (0.0, 0.5, 0.95, 1.0)


def prompts(count: int, sizes: Sequence[int], vocab: int = 110, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[1, *(rng.randrange(3, vocab) for _ in range(rng.choice(sizes)))] for _ in range(count)]


def pairs(texts: list[list[int]], **settings: Any) -> list[Request]:
    """PIPO requests, the four thresholds in turn."""
    settings = {"sampling": GREEDY, "max_tokens": 40, "ignore_eos": True, **settings}
    return [
        Request(id=str(i), prompt=p, method=Method("pipo", threshold=THRESHOLDS[i % 4]), **settings)
        for i, p in enumerate(texts)
    ]


def regular(texts: list[list[int]], **settings: Any) -> list[Request]:
    settings = {"sampling": GREEDY, "max_tokens": 40, "ignore_eos": True, **settings}
    return [Request(id=str(i), prompt=p, method=Method("regular"), **settings) for i, p in enumerate(texts)]


def body(r: Request) -> dict[str, Any]:
    s = r.sampling
    params: dict[str, Any] = {
        "temperature": s.temperature, "top_k": s.top_k or -1, "top_p": s.top_p, "min_p": s.min_p,
        "presence_penalty": s.presence_penalty, "frequency_penalty": s.frequency_penalty,
        "max_new_tokens": r.max_tokens, "ignore_eos": r.ignore_eos, "no_stop_trim": True,
    }  # fmt: skip
    if r.stop:
        params["stop"] = list(r.stop)
    if r.method.name == "pipo":
        params["custom_params"] = {"threshold": r.method.threshold, "details": True}
        if r.max_slots:
            params["custom_params"]["max_slots"] = r.max_slots
    return params


def ask(url: str, requests: Sequence[Request], **more: Any) -> list[dict[str, Any]]:
    """All requests in one call, so that they run in one batch; answers in order."""
    scores = {"return_logprob": True, "top_logprobs_num": 2} if any(r.logprobs for r in requests) else {}
    data = {"input_ids": [list(r.prompt) for r in requests], "sampling_params": [body(r) for r in requests]}
    answer = httpx.post(f"{url}/generate", json={**data, **scores, **more}, timeout=120)
    answer.raise_for_status()
    return answer.json()  # type: ignore[no-any-return]


def oracle(folder: str | Path, requests: Sequence[Request]) -> list[dict[str, Any]]:
    """What the torch engine answers."""
    folder = Path(folder)
    decode = None
    if (folder / "tokenizer.json").exists():
        tokenizer = load_tokenizer(folder)

        def decode(ids: Sequence[int]) -> str:
            return tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[no-any-return]

    engine = TorchEngine(load_model(folder), max_batch=16, decode=decode)
    out: dict[str, dict[str, Any]] = {}
    for r in requests:
        out[r.id] = {"tokens": [], "slots": 0, "drafts": [], "logprobs": [], "finish": None}
        engine.submit(r)
    while engine.busy:
        for e in engine.step():
            o = out[e.request_id]
            o["tokens"] += e.tokens
            o["slots"] += e.slots
            o["drafts"] += e.drafts
            o["logprobs"] += e.logprobs
            o["finish"] = e.finish or o["finish"]
    return [out[r.id] for r in requests]


def differences(got: list[dict[str, Any]], want: list[dict[str, Any]], requests: Sequence[Request]) -> list[str]:
    """Where two engines' answers differ: tokens, slots, confidences (1e-4), log-probabilities (1e-4)."""
    out = []
    for g, w, r in zip(got, want, requests, strict=True):
        meta = g["meta_info"]
        if g["output_ids"] != list(w["tokens"]):
            out.append(f"{r.id}: {g['output_ids']} instead of {w['tokens']} ({meta['finish_reason']}, {w['finish']})")
            continue
        if r.method.name == "pipo":
            out += _pair_differences(r, meta, w)
        if r.logprobs is not None:
            scores = [x[0] for x in meta["output_token_logprobs"]]
            gap = max(abs(a - b.logprob) for a, b in zip(scores, w["logprobs"], strict=True))
            if gap > 1e-4:
                out.append(f"{r.id}: log-probabilities differ by {gap:.1e}")
    return out


def _pair_differences(r: Request, meta: dict[str, Any], w: dict[str, Any]) -> list[str]:
    out = []
    if meta["pipo"]["slots"] != w["slots"] or meta["completion_tokens"] != len(w["tokens"]):
        out.append(f"{r.id}: counts {meta['pipo']} instead of {w['slots']} slots, {len(w['tokens'])} tokens")
    rows = [row for row in meta["pipo_slots"] if row]
    for row, draft in zip(rows, w["drafts"], strict=False):  # the torch engine leaves out drafts after the end
        if int(row[0]) != draft.id or row[1] != draft.kept or abs(row[2] - draft.confidence) > 1e-4:
            out.append(f"{r.id}: draft {row} instead of {draft}")
    return out
