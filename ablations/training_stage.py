"""One stage of the training study, in a process of its own: ``python -m ablations.training_stage FOLDER STAGE``.

FOLDER holds ``study.json``, the study's settings. A stage trains (``trained.json``, ``model/``), then measures (a run
folder: run.json, records.jsonl, summary.json, and ``values.json``: scores by item), then writes ``done.json``. Run
again, it goes on from the last checkpoint or item.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import torch

from ablations.training_spec import ROLLOUTS, Regular, Row, TrainingSpec, stage_name, train_settings, variants
from bench.record import SampleRecord, write_json
from bench.scoring import by_item, item_values, metrics
from bench.session import Session
from bench.summary import BUDGETS, summarise
from pipo.data.rows import read_rows
from pipo.errors import PipoError
from pipo.jobs import JobContext
from pipo.lab.family import resolve_model
from pipo.lab.graph import ChildContext
from pipo.lab.recipe import QUICK
from pipo.lab.rollouts import make_rollouts
from pipo.lab.tokenizer import PAD, lab_tokenizer
from pipo.model import load_model, load_tokenizer, save_model
from pipo.train.data import Batches, Recycled, collate_regular
from pipo.train.jobs import train_opd, train_sft
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import Regular as RegularObjective
from pipo.train.settings import OPDSettings, SFTSettings


def run_stage(folder: Path, name: str, ctx: JobContext) -> None:
    """Run one stage of the study in ``folder`` unless it is done."""
    spec = msgspec.json.decode((folder / "study.json").read_bytes(), type=TrainingSpec)
    out = folder / name
    if (out / "done.json").exists():
        return
    if name == ROLLOUTS:
        result = rollouts(spec, out, ctx)
    else:
        row, seed = spec.stages()[name]
        if not (out / "trained.json").exists():
            write_json(out / "trained.json", train_row(spec, row, seed, folder, ctx))
            (out / "state.pt").unlink(missing_ok=True)
        result = {"trained": json.loads((out / "trained.json").read_bytes()), **measure(spec, row, seed, folder, ctx)}
    write_json(out / "done.json", {"stage": name, **result})


def rollouts(spec: TrainingSpec, out: Path, ctx: JobContext) -> dict[str, Any]:
    """The teacher's samples on training problems: the data of all rows."""
    recipe = msgspec.structs.replace(
        QUICK, tasks=tuple(spec.tasks), rollout_items=spec.rollout_items, rollout_samples=spec.rollout_samples
    )
    return make_rollouts(recipe, resolve_model(spec.teacher, spec.family), out, ctx)


def train_row(spec: TrainingSpec, row: Row, seed: int, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Train a row with one seed; the model goes to ``model/`` of its stage. Returns what the training reports."""
    out, began = folder / stage_name(row, seed), time.time()
    source = resolve_model(spec.model, spec.family)
    if row.train == "none":
        return {"model": spec.model}
    start = folder / stage_name(row.start, seed) / "model" if row.start else source
    data, count = write_data(row, folder / ROLLOUTS, out / "data.jsonl")
    tokens = None
    if row.tokens_of:
        tokens = json.loads((folder / stage_name(row.tokens_of, seed) / "done.json").read_bytes())["trained"]["tokens"]
    settings = train_settings(spec, row, seed, start, data, tokens)
    if isinstance(settings, Regular):
        result = _regular(settings, seed, start, data, out, ctx)
    elif isinstance(settings, SFTSettings):
        result = train_sft(settings, out, ctx)
    else:
        assert isinstance(settings, OPDSettings)
        teacher = str(resolve_model(spec.teacher, spec.family))
        result = train_opd(msgspec.structs.replace(settings, teacher=teacher), out, ctx)
    result.pop("model", None)  # a path of this machine
    return {**result, "rows": count, "wall_s": round(time.time() - began)}


def _regular(s: Regular, seed: int, start: Path, data: Path, out: Path, ctx: JobContext) -> dict[str, Any]:
    """Next-token training with the MTP head, as the lab's control (pipo.lab.stage)."""
    model, tokenizer = load_model(start), load_tokenizer(start)
    rows = Recycled(list(read_rows(data, tokenizer).rows), seed)
    batches = Batches(rows, collate_regular(PAD), seed, s.micro_tokens, s.accumulate)
    loop = LoopSettings(tokens=s.tokens, lr=s.lr, optimizer=s.optimizer, weight_decay=s.weight_decay, warmup=s.warmup,
                        min_lr=s.min_lr, seed=seed, save_every=s.save_every)  # fmt: skip
    result = train(model, batches, RegularObjective(), loop, out, ctx, "control")
    save_model(model, out / "model", tokenizer)
    return result


def write_data(row: Row, rollouts: Path, path: Path) -> tuple[Path, int]:
    """The row's training data, from the roll-outs: prompts for opd, else answers; returns the file and its lines."""
    found = [json.loads(line) for chunk in sorted(rollouts.glob("chunk-*.jsonl")) for line in _lines(chunk)]
    rows: list[dict[str, str]] = []
    for item in found:
        right = [text for text, ok in zip(item["texts"], item["correct"], strict=True) if ok]
        if row.train == "opd":
            if len(right) >= row.filter * len(item["texts"]):
                rows.append({"prompt": item["prompt"]})
        else:
            chosen = shortest(right) if row.data == "shortest" else right
            rows += [{"prompt": item["prompt"], "response": text} for text in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path, len(rows)


def _lines(path: Path) -> Iterable[str]:
    return path.read_text().splitlines()


def shortest(texts: list[str]) -> list[str]:
    """The text of fewest tokens, the first of those; none of none."""
    tokenizer = lab_tokenizer()
    return [min(texts, key=lambda t: len(tokenizer.encode(t, add_special_tokens=False)))] if texts else []


def measure(spec: TrainingSpec, row: Row, seed: int, folder: Path, ctx: JobContext) -> dict[str, Any]:
    """Sample the test items by all variants of a stage's model; the folder becomes a run folder of its own."""
    out = folder / stage_name(row, seed)
    model = resolve_model(spec.model, spec.family) if row.train == "none" else out / "model"
    found = variants(spec, row, seed, model)
    session = Session("ablate-training", spec.sampling(), found, ctx)
    for variant in found:
        for task in session.tasks:
            session.generate(variant, task)
    summary = session.finish(
        summarise(session.run, session.records(), k=session.spec.k, pass_at=session.pass_at, references=[])
    )
    write_json(out / "values.json", values(session))
    failed = sum(r["failed"] for r in summary["rows"] if r["budget"] == BUDGETS[0] and r["task"] != "overall")
    return {"variants": msgspec.to_builtins(found), "budgets": summary["budgets"], "failed": failed,
            "failures": summary["failures"]}  # fmt: skip


def values(session: Session) -> dict[str, Any]:
    """variant -> {"values": {budget: {metric: {item: value}}}, "kept": {item: [kept, offered]}}, items by task/id."""
    out: dict[str, Any] = {}
    for (variant, task), items in by_item(session.records()).items():
        here = out.setdefault(variant, {"values": {b: {} for b in BUDGETS}, "kept": {}})
        for budget in BUDGETS:
            for metric in metrics(session.pass_at):
                scores = item_values(items, metric, session.run.budgets[task][budget])
                here["values"][budget].setdefault(metric, {}).update({f"{task}/{i}": v for i, v in scores.items()})
        here["kept"].update({f"{task}/{i}": kept(samples) for i, samples in items.items()})
    return out


def kept(samples: list[SampleRecord]) -> list[int]:
    """Drafts kept and offered over the samples of an item."""
    drafts = [d.kept for r in samples for d in r.drafts]
    return [sum(drafts), len(drafts)]


def main() -> None:
    """Run the stage named on the command line."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    try:
        run_stage(folder, name, ChildContext(folder / name))
    except PipoError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from e


if __name__ == "__main__":
    main()
