"""What pairs themselves cost in SGLang: ``python -m bench.sglang_overhead --cpu-rig --json``.

Two servers side by side answer the same batches in turn: a regular model (plain SGLang decode), and a PIPO model of the
same backbone with its second phase switched off (no MTP pass, no gate; PAD is always second). Both run one backbone
pass and emit one token a step, so the second one's extra time is packing, compressor, hooks and unpacking. A step's
time is that of long answers less that of short ones, over the difference in tokens; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pipo.engine.types import Method
from pipo.errors import BadInput, PipoError
from pipo.lab import resolve_model
from pipo.sglang.launch import ServerSettings, plan
from pipo.sglang.server import Server

SHORT, LONG = 8, 136
FIRST_ONLY = ("--json-model-override-args", json.dumps({"pipo_method": "first-only"}))


def open_servers(regular: str, pipo: str, cpu_rig: bool) -> list[Server]:
    """Both servers, the regular one first; the overlap schedule is off in both."""
    out: list[Server] = []
    plain = ("--disable-overlap-schedule",)
    for model, method, flags in ((regular, Method("regular"), plain), (pipo, Method("pipo"), FIRST_ONLY)):
        settings = ServerSettings(cpu_rig=cpu_rig, radix_cache=False, flags=flags)
        server = Server(plan(Path(resolve_model(model)).absolute(), method, settings, streaming=False))
        out.append(server)
        try:
            server.start(lambda text, m=method.name: print(f"SGLang ({m}): {text}", file=sys.stderr))  # type: ignore[misc]
        except BaseException:
            close(out)
            raise
    return out


def close(servers: list[Server]) -> None:
    for server in servers:
        server.stop()


def step_ms(server: Server, batch: int) -> float:
    """Milliseconds of a decode step with ``batch`` requests of 32 backbone places each."""
    seconds = {}
    width = 64 if FIRST_ONLY[1] in server.launch.command else 32  # 32 backbone places each
    for tokens in (SHORT, LONG):
        data = {
            "input_ids": [[1] + [3 + (7 * i + j) % 90 for j in range(width - 1)] for i in range(batch)],
            "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
        }
        start = time.perf_counter()
        server.ask("/generate", data)
        seconds[tokens] = time.perf_counter() - start
    return 1e3 * (seconds[LONG] - seconds[SHORT]) / (LONG - SHORT)


def measure(servers: list[Server], batch: int, rounds: int) -> dict[str, Any]:
    """Medians, and the median ratio with its quartiles; a warm-up round is left out, the order alternates."""
    rows = []
    for i in range(rounds + 1):
        order = (0, 1) if i % 2 else (1, 0)
        times = {j: step_ms(servers[j], batch) for j in order}
        if i:
            rows.append((times[0], times[1]))
    ratios = sorted(b / a for a, b in rows)
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "batch": batch,
        "plain_ms": statistics.median(a for a, _ in rows),
        "pairs_ms": statistics.median(b for _, b in rows),
        "ratio": statistics.median(ratios),
        "quartiles": [quartiles[0], quartiles[2]],
        "rounds": rounds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regular", default="lab/control")
    parser.add_argument("--pipo", default="lab/pipo-opd")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--cpu-rig", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if min(args.batch) < 1 or args.rounds < 1:
        raise BadInput(f"batch {args.batch} and rounds {args.rounds} must be at least 1")
    servers = open_servers(args.regular, args.pipo, args.cpu_rig)
    try:
        rows = [measure(servers, batch, args.rounds) for batch in args.batch]
    finally:
        close(servers)
    if args.json:
        print(json.dumps({"regular": args.regular, "pipo": args.pipo, "rows": rows}, indent=1))
    else:
        for r in rows:
            low, high = r["quartiles"]
            print(f"batch {r['batch']}: {r['plain_ms']:.2f} ms plain, {r['pairs_ms']:.2f} ms pairs, "
                  f"ratio {r['ratio']:.3f} (quartiles {low:.3f}, {high:.3f})")  # fmt: skip
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PipoError as e:
        print(e, file=sys.stderr)
        sys.exit(e.exit_code)
