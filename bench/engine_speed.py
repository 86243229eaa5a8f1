"""Speed of the torch engine: against ``transformers.generate``, of its methods, against the floor, outside of torch.

Ratios are medians over interleaved runs in one process, warm-up left out. Random weights: the time of a step does
not depend on them, and end of sequence is ignored. Run: ``python -m bench.engine_speed [--section NAME] [--json]``.

Sections: ``generate`` (tokens per second against ``transformers``, lab's shape), ``first_token`` (regular over PIPO),
``steps`` (all methods after a short prompt), ``floors`` (bench/speed_floors.py), ``outside`` (bench/profile.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import Qwen3_5ForCausalLM

from bench import profile, speed_floors
from bench.draft_head import draft_head
from bench.products import products
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.lab.recipe import lab_config
from pipo.model import PipoForCausalLM

GREEDY = Sampling(temperature=0.0)
SECTIONS = ("generate", "first_token", "steps", "floors", "outside", "draft_head", "products")
PAPER = Sampling(temperature=1.0, top_k=20, top_p=0.95, presence_penalty=1.5)


def lab_model(pipo: bool, max_positions: int = 32768) -> PipoForCausalLM:
    """A random model of the lab student's shape."""
    config = lab_config(96)
    config.max_position_embeddings = max_positions
    config.compressor_type = "mlp" if pipo else None
    torch.manual_seed(0)
    model = PipoForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2 and not name.startswith("compressor"):
                p.normal_(std=0.1)
    return model.eval()


def hf_twin(model: PipoForCausalLM) -> Any:
    """The same weights as a ``Qwen3_5ForCausalLM``, for ``generate``."""
    twin = Qwen3_5ForCausalLM(model.config).eval()
    twin.model.load_state_dict(model.backbone.state_dict())
    twin.tie_weights()
    twin.generation_config.eos_token_id = None
    return twin


def requests(
    method: Method, sampling: Sampling, batch: int, prompt: int, slots: int, tokens: int | None = None
) -> list[Request]:
    """Requests with random prompts of one length that run to their budget."""
    g = torch.Generator().manual_seed(1)
    return [
        Request(
            id=str(i), prompt=tuple(torch.randint(3, 128, (prompt,), generator=g).tolist()), method=method,
            sampling=sampling, seed=i, max_slots=slots, max_tokens=tokens, ignore_eos=True,
        )
        for i in range(batch)
    ]  # fmt: skip


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], Any]], trials: int) -> dict[str, list[float]]:
    """Seconds of each run, one after the other in each trial; the first trial is warm-up and left out."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for trial in range(trials + 1):
        for name, run in runs.items():
            took = seconds(run)
            if trial:
                times[name].append(took)
    return times


def against_generate(engine: TorchEngine, twin: Any, batch: int, sampling: Sampling, trials: int) -> dict[str, Any]:
    """Tokens per second of regular decoding, engine and ``generate``, and the ratio."""
    prompt, new = 64, 64
    rs = requests(Method("regular"), sampling, batch, prompt, new)
    ids = torch.tensor([r.prompt for r in rs])
    options: dict[str, Any] = dict(max_new_tokens=new, min_new_tokens=new, pad_token_id=0, do_sample=False)
    if sampling.temperature:
        options |= dict(do_sample=True, temperature=1.0, top_k=sampling.top_k, top_p=sampling.top_p)
    mask = torch.ones_like(ids)
    times = interleaved(
        {
            "engine": lambda: engine.generate(rs),
            "generate": lambda: twin.generate(ids, attention_mask=mask, **options),
        },
        trials,
    )
    rate = {k: batch * new / statistics.median(v) for k, v in times.items()}
    return {
        "batch": batch,
        "sampling": "greedy" if not sampling.temperature else "T 1, top-k 20, top-p 0.95",
        "engine_tokens_per_s": round(rate["engine"], 1),
        "generate_tokens_per_s": round(rate["generate"], 1),
        "ratio": round(statistics.median(g / e for e, g in zip(times["engine"], times["generate"], strict=True)), 3),
    }


def first_token(regular: TorchEngine, pipo: TorchEngine, length: int, trials: int) -> dict[str, Any]:
    """Time to the first token at batch 1, regular over PIPO; the MTP cache of PIPO's prompt is filled within it."""
    found: dict[str, list[float]] = {"regular": [], "pipo": [], "pipo_pair": []}
    cpu: dict[str, list[float]] = {"regular": [], "pipo": []}
    for trial in range(trials + 1):
        for name, engine in (("regular", regular), ("pipo", pipo)):
            (r,) = requests(Method(name), PAPER, 1, length, 1)  # type: ignore[arg-type]
            start = time.process_time()
            events = engine.generate([r])[r.id]
            if trial:
                cpu[name].append(time.process_time() - start)
                found[name].append(events[0].time - engine.submitted[r.id])
                if name == "pipo":
                    found["pipo_pair"].append(events[1].time - engine.submitted[r.id])
    ratios = [a / b for a, b in zip(found["regular"], found["pipo"], strict=True)]
    return {
        "length": length,
        **{f"{k}_ms": round(1e3 * statistics.median(v), 2) for k, v in found.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        "cpu_ratio_first_slot": round(statistics.median(cpu["regular"]) / statistics.median(cpu["pipo"]), 3),
    }


def step_times(models: dict[bool, PipoForCausalLM], batch: int, prompt: int, steps: int) -> dict[str, Any]:
    """Milliseconds of one step of each method, wall and CPU time, methods taking turns; the first steps left out."""
    methods = [Method("regular"), Method("mtp"), Method("eagle"), Method("pipo", threshold=0.0),
               Method("random", keep_rate=0.5)]  # fmt: skip
    room = prompt + speed_floors.MOST_TOKENS * (steps + 10)
    engines = {m.name: TorchEngine(models[m.pairs], max_batch=batch, context=room) for m in methods}
    wall: dict[str, list[float]] = {m.name: [] for m in methods}
    cpu: dict[str, list[float]] = {m.name: [] for m in methods}
    tokens = dict.fromkeys(wall, 0)
    for m in methods:
        for r in requests(m, PAPER, batch, prompt, 4 * steps + 40):
            engines[m.name].submit(r)
    for i in range(steps + 4):
        for name, engine in engines.items():
            start = time.perf_counter(), time.process_time()
            events = engine.step()
            took = time.perf_counter() - start[0], time.process_time() - start[1]
            if i >= 4:
                wall[name].append(took[0])
                cpu[name].append(took[1])
                tokens[name] += sum(len(e.tokens) for e in events)
    return {
        "batch": batch,
        "prompt": prompt,
        "methods": {
            name: {
                "step_ms": round(1e3 * statistics.median(wall[name]), 3),
                "step_cpu_ms": round(1e3 * statistics.median(cpu[name]), 3),
                "tokens_per_step_and_row": round(tokens[name] / steps / batch, 2),
            }
            for name in engines
        },
    }


def measure(section: str, args: argparse.Namespace) -> Any:
    """One section's result, as plain values."""
    if section == "floors":
        return speed_floors.floors(
            args.device, batches=speed_floors.BATCHES, context=args.context, rounds=args.trials, steps=args.steps
        )
    if section == "products":
        return products()
    if section == "draft_head":
        return draft_head(rounds=args.trials, steps=args.steps, context=args.context)
    if section == "outside":
        return profile.outside(steps=args.steps)
    regular, pipo = lab_model(False), lab_model(True)
    if section == "steps":
        return [step_times({False: regular, True: pipo}, b, 128, 4 * args.steps) for b in (1, 16)]
    if section == "first_token":
        one, two = (TorchEngine(m, max_batch=1, context=args.length + 64) for m in (regular, pipo))
        return first_token(one, two, args.length, args.trials)
    engine, twin = TorchEngine(regular, context=256), hf_twin(regular)
    return [against_generate(engine, twin, b, s, args.trials) for b in (1, 32) for s in (GREEDY, PAPER)]


def say(section: str, found: Any) -> list[str]:
    """A section's result as lines."""
    if section == "generate":
        return [
            f"batch {g['batch']:>2}, {g['sampling']}: engine {g['engine_tokens_per_s']} tokens/s, "
            f"generate {g['generate_tokens_per_s']}, ratio {g['ratio']}"
            for g in found
        ]
    if section == "steps":
        return [
            f"batch {s['batch']}: " + ", ".join(f"{k} {v['step_ms']} ms" for k, v in s["methods"].items())
            for s in found
        ]
    if section == "products":
        return [
            f"{r['inputs']} x {r['outputs']}, {r['rows']} rows: mm {r['mm_us']} us ({r['mm_gb_s']} GB/s), packed "
            f"{r['packed_us']} ({r['packed_gb_s']}), chosen {r['chosen_us']}"
            for r in found
        ]
    if section == "draft_head":
        return [
            f"{r['shape']}, vocabulary {r['vocabulary']}, batch {r['batch']}, {r['method']}: {r['whole_ms']} ms, with "
            f"a draft head of {r['draft_vocabulary']} {r['small_ms']} ms, gain {r['gain']}, floor's {r['floor_gain']}"
            for r in found
        ]
    if section == "outside":
        return [
            f"{name}: step {m['step_ms']} ms, within torch {m['torch_ms']}, outside {100 * m['outside']:.0f} to "
            f"{100 * m['outside_profiled']:.0f} %"
            for name, m in found["methods"].items()
        ]
    if section == "floors":
        return [f"machine: {found['machine']}"] + [
            f"{s['shape']}, batch {s['batch']:>2}, {name}: step {m['step_ms']} ms, over floor {m['over_floor']}, over "
            f"its kernels alone {m['over_kernels']}; times regular {m['step_ratio']}, floor says {m['floor_ratio']} "
            f"(quotient {m['quotient']}), kernels {m['kernels_ratio']} ({m['kernels_quotient']})"
            for s in found["shapes"]
            for name, m in s["methods"].items()
        ]
    return [str(found)]


def main() -> None:
    """Print the measurements, as JSON or as lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--section", choices=SECTIONS, action="append", help="repeat; all of them by default")
    parser.add_argument("--trials", type=int, default=5, help="rounds of interleaved runs")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--length", type=int, default=8192, help="prompt tokens of the first-token measurement")
    parser.add_argument("--context", type=int, default=512, help="tokens before the steps of floors")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of floors; all else is on the CPU")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"threads": args.threads}
    for section in args.section or SECTIONS:
        result[section] = measure(section, args)
        if not args.json:
            print(f"{section}:", *say(section, result[section]), sep="\n  ", flush=True)
    if args.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
