"""Replay a trace with shared prefixes on SGLang: ``python -m bench.replay MODEL --trace FILE --cpu-rig --json``.

One request after another on two servers in turn, with the prefix cache and without. Reports the share of prompt tokens
that the cache gave, beside what an unlimited cache would give, and TTFT with and without, for all requests and for
those whose prompt began with something seen before. The two servers run the same prompts in the same order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.load.traces import Shared, ideal, read_trace
from pipo.engine.types import Method
from pipo.errors import BadInput, PipoError
from pipo.lab import resolve_model
from pipo.sglang.facts import read_facts
from pipo.sglang.launch import ServerSettings, plan
from pipo.sglang.server import Server


def replay(server: Server, requests: Sequence[Shared], method: Method) -> list[dict[str, float]]:
    """Per request its cached tokens and TTFT in seconds (to the first token, one token asked), in order."""
    out = []
    for r in requests:
        params: dict[str, Any] = {"temperature": 0, "max_new_tokens": 1, "ignore_eos": True}
        if method.pairs:
            params["custom_params"] = {"threshold": method.threshold}
        start = time.perf_counter()
        answer = server.ask("/generate", {"input_ids": list(r.prompt), "sampling_params": params})
        ttft = time.perf_counter() - start
        out.append({"cached": answer["meta_info"]["cached_tokens"], "ttft_s": ttft})
    return out


def summary(
    requests: Sequence[Shared], cached: list[dict[str, float]], plain: list[dict[str, float]]
) -> dict[str, Any]:
    """Hit rates, and medians of TTFT with the ratio without over with (above 1: the cache pays)."""
    total = sum(len(r.prompt) for r in requests)
    shared = [i for i, r in enumerate(requests) if r.seen]

    def times(which: Sequence[int]) -> dict[str, float]:
        with_s = statistics.median(cached[i]["ttft_s"] for i in which)
        without_s = statistics.median(plain[i]["ttft_s"] for i in which)
        ratios = statistics.median(plain[i]["ttft_s"] / cached[i]["ttft_s"] for i in which)
        return {"requests": len(which), "with_ms": 1e3 * with_s, "without_ms": 1e3 * without_s, "ratio": ratios}

    return {
        "requests": len(requests),
        "prompt_tokens": total,
        "ideal_hit_rate": ideal(requests),
        "hit_rate": sum(row["cached"] for row in cached) / total,
        "hit_rate_without": sum(row["cached"] for row in plain) / total,
        "ttft_all": times(range(len(requests))),
        "ttft_shared": times(shared) if shared else None,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Both servers in turn; the second starts when the first is gone."""
    folder = Path(resolve_model(args.model)).absolute()
    facts = read_facts(folder)
    method = Method("pipo" if facts.is_pipo else "regular")
    ids = range(3, args.vocab)
    requests = read_trace(args.trace, args.limit, args.block, ids)
    results = []
    for radix in (True, False):
        settings = ServerSettings(
            cpu_rig=args.cpu_rig, radix_cache=radix, chunk=args.chunk, max_running=16, max_total=args.max_total,
            flags=tuple(args.flags),
        )  # fmt: skip
        server = Server(plan(folder, method, settings, streaming=False))
        server.start(lambda text: print(f"SGLang: {text}", file=sys.stderr))
        try:
            replay(server, [Shared(r.prompt[::-1], 1, 0) for r in requests[:3]], method)  # warm-up, other prefixes
            results.append(replay(server, requests, method))
        finally:
            server.stop()
    return {"model": args.model, "method": method.name, "block": args.block, **summary(requests, *results)}


def _split(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--trace", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--block", type=int, default=64, help="tokens that stand for a recorded block of 512")
    parser.add_argument("--chunk", type=int, help="places of one prefill pass (a hybrid's states are kept at its ends)")
    parser.add_argument("--vocab", type=int, default=100, help="ids 3..VOCAB-1 are drawn from")
    parser.add_argument("--max-total", type=int, help="backbone places of the cache")
    parser.add_argument("--cpu-rig", action="store_true")
    parser.add_argument("--json", action="store_true")
    own, _, flags = _split(sys.argv[1:])
    args = parser.parse_args(own)
    args.flags = flags  # for SGLang, after --
    if args.vocab < 5:
        raise BadInput(f"vocab {args.vocab} must be at least 5")
    found = run(args)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"hit rate {found['hit_rate']:.3f} of {found['ideal_hit_rate']:.3f} possible ({found['requests']} requests)")
    for name in ("ttft_all", "ttft_shared"):
        if (t := found[name]) is not None:
            print(f"{name}: {t['with_ms']:.1f} ms with, {t['without_ms']:.1f} without, ratio {t['ratio']:.2f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PipoError as e:
        print(e, file=sys.stderr)
        sys.exit(e.exit_code)
