"""Requests to a regular model by methods that draft (eagle, mtp), and two engines' samples compared."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from pipo.engine.types import Method, Request
from tests.runtime.pairs_client import GREEDY, body, oracle

NEVER = -1e9  # PAD is a token like others to SGLang; our own engine never draws it


def drafting(method: Method, texts: Sequence[list[int]], **settings: Any) -> list[Request]:
    settings = {"sampling": GREEDY, "max_tokens": 40, "ignore_eos": True, **settings}
    return [Request(id=str(i), prompt=tuple(p), method=method, **settings) for i, p in enumerate(texts)]


def ask(url: str, requests: Sequence[Request], **params: Any) -> list[dict[str, Any]]:
    """All requests in one call, PAD left out; ``params``: more sampling parameters for all."""
    scores = {"return_logprob": True, "top_logprobs_num": 2} if any(r.logprobs for r in requests) else {}
    bodies = [{**body(r), "logit_bias": {"0": NEVER}, **params} for r in requests]
    data = {"input_ids": [list(r.prompt) for r in requests], "sampling_params": bodies}
    answer = httpx.post(f"{url}/generate", json={**data, **scores}, timeout=240)
    answer.raise_for_status()
    return answer.json()  # type: ignore[no-any-return]


def accepted(answers: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Passes and accepted drafts of each request, as SGLang counts them."""
    return [(a["meta_info"]["spec_verify_ct"], a["meta_info"]["spec_num_correct_drafts"]) for a in answers]


def chains(answers: Sequence[dict[str, Any]], depth: int) -> list[tuple[int, int]]:
    """The same of the torch engine's answers; it leaves out drafts behind a request's end."""
    return [(-(-len(a["drafts"]) // depth), sum(d.kept for d in a["drafts"])) for a in answers]


@dataclasses.dataclass
class Agreement:
    """Two-sample chi-square over the first tokens of the samples."""

    statistic: float
    freedom: int
    p: float
    cells: int

    def __str__(self) -> str:
        return f"chi-square {self.statistic:.1f} at {self.freedom} degrees of freedom, p = {self.p:.2g}"


def agreement(url: str, folder: Path, requests: Sequence[Request], tokens: int) -> Agreement:
    """Compare the first tokens of SGLang's samples with the torch engine's."""
    from scipy.stats import chi2_contingency

    got = Counter(tuple(a["output_ids"][:tokens]) for a in ask(url, requests))
    want = Counter(tuple(a["tokens"][:tokens]) for a in oracle(folder, requests))
    common = [k for k in {*got, *want} if got[k] + want[k] >= 10]
    table = [[t[k] for k in common] + [t.total() - sum(t[k] for k in common)] for t in (got, want)]
    if not any(row[-1] for row in table):
        table = [row[:-1] for row in table]
    statistic, p, freedom, _ = chi2_contingency(table)
    return Agreement(float(statistic), int(freedom), float(p), len(common))
