"""What training costs: memory of the losses, speed of the loop, speed of roll-outs. ``python -m bench.training``.

Sections: ``memory`` (peak of one SFT step over a vocabulary of 248,320, losses by chunks against all logits at once),
``speed`` (tokens a second of the whole SFT loop over forward and backward alone, on the lab's shape), ``rollouts``
(tokens a second of OPD's roll-outs in one batch over one by one), ``opd`` (shares of a step's time). Ratios are medians
of interleaved rounds, warm-up left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.engine_speed import lab_model
from pipo.data.rows import Row
from pipo.engine.types import Method, Request
from pipo.jobs import LocalContext
from pipo.lab.family import resolve_model
from pipo.lab.tasks import draw_many
from pipo.lab.tokenizer import lab_tokenizer
from pipo.model import load_model
from pipo.model.testing import tiny_config
from pipo.train.data import PlannedSteps, collate_pairs
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import PipoSFT
from pipo.train.opd import OPD
from pipo.train.plan import make_plan
from pipo.train.rollouts import EmbeddedRollouts, OnPolicy, pairs_of

SECTIONS = ("memory", "speed", "rollouts", "opd")
VOCABULARY = 248_320
MIB = 2**20


def memory(places: int) -> dict[str, Any]:
    """Peak memory of one SFT step above that of the loaded model, each way in a process of its own, in MiB."""
    found = {}
    for way in ("plain", "chunked"):
        command = [sys.executable, "-m", "bench.training", "--child", way, "--places", str(places)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "vocabulary": VOCABULARY, "places": places, "plain_mib": round(found["plain"]["mib"]),
        "chunked_mib": round(found["chunked"]["mib"]),
        "ratio": round(found["chunked"]["mib"] / found["plain"]["mib"], 3),
        "loss_difference": abs(found["chunked"]["loss"] - found["plain"]["loss"]),
        "gradient_difference": abs(found["chunked"]["gradient"] - found["plain"]["gradient"]),
    }  # fmt: skip


def memory_child(way: str, places: int) -> dict[str, float]:
    """One step of one way, after a small one that brings in what torch loads at first use."""
    from pipo.model import PipoForCausalLM

    config = tiny_config(hidden=64, vocab=VOCABULARY)
    config.compressor_type = "mlp"
    torch.manual_seed(0)
    model = PipoForCausalLM(config).train()
    model.lm_head.weight.requires_grad_(False)  # as in the paper: embeddings and head are frozen

    def step(pairs: int) -> tuple[float, float]:
        rng = random.Random(0)
        row = Row([1, 5], [rng.randrange(3, VOCABULARY) for _ in range(2 * pairs)])
        batch = collate_pairs(0, "split", 0.0, 0.0)([row], rng)
        model.zero_grad()
        if way == "plain":
            loss = model(batch.ids, batch.labels).loss
        else:
            objective = PipoSFT()
            loss = torch.stack(objective.loss(model, batch, objective.counts(batch))).sum()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        return float(loss.detach()), float(norm)

    step(4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss, norm = step(places)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (after - before) * 1024 / MIB, "loss": loss, "gradient": norm}


def lab_rows(count: int) -> list[Row]:
    """Gold solutions of the lab's chains as training rows."""
    tokenizer = lab_tokenizer()
    items = draw_many("lab-chain", "train", count, list(range(4, 13)), 0)
    return [Row(*(tokenizer.encode(t, add_special_tokens=False) for t in (i.prompt, i.solution))) for i in items]


def interleaved(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each way's rate once to warm up, then in turn."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def ratio(found: dict[str, list[float]], top: str, bottom: str) -> dict[str, float]:
    """Median and range of the rounds' ratios."""
    each = sorted(a / b for a, b in zip(found[top], found[bottom], strict=True))
    return {"ratio": round(statistics.median(each), 3), "low": round(each[0], 3), "high": round(each[-1], 3)}


def speed(rounds: int, steps: int = 12) -> dict[str, Any]:
    """The loop with its optimizer, clipping, logs and calibrated gate over forward and backward alone."""
    rows = lab_rows(400)
    lengths = [len(r.prompt) + len(r.response) for r in rows]
    plan = make_plan(lengths, micro_rows=256, micro_tokens=1536, accumulate=2, epochs=1)
    found: dict[str, Any] = {}
    for optimizer in ("adamw", "muon"):
        source = PlannedSteps(rows, plan, collate_pairs(0, "shift", 0.4, 0.1), 0)
        source.total = min(steps, len(plan.steps))
        micro = [b for s in range(source.total) for b in source.pool(s, 0.0)[0]]
        model = lab_model(True).train()

        def plain(model: Any = model, micro: Any = micro) -> float:
            start = time.perf_counter()
            for b in micro:
                model(b.ids, b.labels).loss.backward()
            model.zero_grad(set_to_none=True)
            return float(sum(b.tokens for b in micro) / (time.perf_counter() - start))

        def loop(model: Any = model, source: Any = source, optimizer: Any = optimizer) -> float:
            with tempfile.TemporaryDirectory() as folder:
                settings = LoopSettings(lr=1e-5, optimizer=optimizer, save_every=10_000, log_every=10)
                done = train(model, source, PipoSFT(), settings, Path(folder), LocalContext(Path(folder)))
            model.train()
            return float(done["tokens"] / max(done["seconds"], 0.1))

        rates = interleaved({"plain": plain, "loop": loop}, rounds)
        found[optimizer] = {
            **ratio(rates, "loop", "plain"), "loop_tokens_s": round(statistics.median(rates["loop"])),
            "plain_tokens_s": round(statistics.median(rates["plain"])),
        }  # fmt: skip
    return found


def rollouts(rounds: int, batch: int = 32) -> dict[str, Any]:
    """Roll-outs of the lab's student: one batch against one by one, the same requests."""
    model = load_model(resolve_model("lab/pipo-sft"))
    tokenizer = lab_tokenizer()
    items = draw_many("lab-chain", "train", batch, [8, 10, 12], 0)
    asked = [
        Request(id=str(i), prompt=tuple(tokenizer.encode(item.prompt, add_special_tokens=False)), seed=i,
                method=Method("pipo", threshold=0.95), max_slots=112)
        for i, item in enumerate(items)
    ]  # fmt: skip
    context = pairs_of((r.prompt for r in asked), 112)
    rollers = {"batched": EmbeddedRollouts(model, batch, context), "alone": EmbeddedRollouts(model, 1, context)}

    def run(name: str) -> float:
        roller = rollers[name]
        start = time.perf_counter()
        roller.wake()
        if name == "batched":
            events = roller.generate(asked)
        else:
            events = {r.id: roller.generate([r])[r.id] for r in asked}
        roller.sleep()
        return sum(len(e.tokens) for es in events.values() for e in es) / (time.perf_counter() - start)

    rates = interleaved({n: (lambda n=n: run(n)) for n in rollers}, rounds)  # type: ignore[misc]
    return {"batch": batch, **ratio(rates, "batched", "alone"),
            "batched_tokens_s": round(statistics.median(rates["batched"]))}  # fmt: skip


def opd(steps: int = 6) -> dict[str, Any]:
    """Seconds of an OPD step on the lab by what it does, and the gap between engine and trainer."""
    student, teacher = load_model(resolve_model("lab/pipo-sft")), load_model(resolve_model("lab/teacher"))
    teacher.requires_grad_(False)
    tokenizer = lab_tokenizer()
    items = draw_many("lab-chain", "train", 256, [8, 10, 12], 0)
    prompts = [(tokenizer.encode(i.prompt, add_special_tokens=False), i.id) for i in items]
    roller = EmbeddedRollouts(student, 32, pairs_of((p for p, _ in prompts), 112))
    source = OnPolicy(student, roller, prompts, rollouts=32, thresholds=(0.95,), max_slots=112,
                      micro_tokens=8192, epochs=1.0)  # fmt: skip
    source.total = steps
    with tempfile.TemporaryDirectory() as folder:
        settings = LoopSettings(lr=1e-5, optimizer="adamw", save_every=10_000, log_every=1)
        train(student, source, OPD(teacher), settings, Path(folder), LocalContext(Path(folder)))
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()][1:]
    whole = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(rows)]
    middle = {k: statistics.median(r[k] for r in rows) for k in ("rollout_s", "teacher_s", "logprob_gap")}
    step = statistics.median(whole)
    return {
        "step_s": round(step, 3), "rollout": round(middle["rollout_s"] / step, 3),
        "teacher": round(middle["teacher_s"] / step, 3),
        "student": round(1 - (middle["rollout_s"] + middle["teacher_s"]) / step, 3),
        "logprob_gap": middle["logprob_gap"], "logprob_gap_max": max(r["logprob_gap_max"] for r in rows),
    }  # fmt: skip


def main() -> None:
    """Run the sections that were asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", choices=SECTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--places", type=int, default=1024, help="pairs of the memory section's step")
    parser.add_argument("--child", choices=("plain", "chunked"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.child:
        print(json.dumps(memory_child(args.child, args.places)))
        return
    ways: dict[str, Callable[[], Any]] = {
        "memory": lambda: memory(args.places), "speed": lambda: speed(args.rounds),
        "rollouts": lambda: rollouts(args.rounds), "opd": opd,
    }  # fmt: skip
    for name in args.section or SECTIONS:
        print(json.dumps({name: ways[name]()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
