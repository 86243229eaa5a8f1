"""The loop: accumulation, resuming, objectives equal to the model's own losses, cancelled runs, OPD end to end."""

import json
import random

import pytest
import torch

from pipo.data.rows import Row, read_rows
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request
from pipo.errors import BadInput, BadRecord, Cancelled
from pipo.jobs import LocalContext
from pipo.lab.tokenizer import lab_tokenizer
from pipo.model import load_model, save_model
from pipo.model.testing import tiny_model
from pipo.train.data import Batches, Recycled, collate_pairs, collate_regular
from pipo.train.jobs import run_opd, run_sft
from pipo.train.loop import LoopSettings, gradients, train
from pipo.train.objectives import PipoSFT, Regular
from pipo.train.opd import OPD, opd_batch
from pipo.train.rollouts import EmbeddedRollouts, OnPolicy


def rows(pool, progress):
    rng = random.Random(pool)

    def draw(low, high):
        return rng.choices(range(3, 20), k=rng.randint(low, high))

    return [Row([1, *draw(2, 7)], [*draw(3, 9), 2]) for _ in range(16)]


def batches(pipo, accumulate=2, micro=64):
    collate = collate_pairs(0, "shift", 0.3, 0.1) if pipo else collate_regular(0)
    return Batches(rows, collate, seed=0, micro_tokens=micro, accumulate=accumulate)


@pytest.mark.parametrize("pipo", [True, False])
def test_gradient_is_the_same_whatever_the_accumulation(pipo):
    model = tiny_model(pipo=pipo)
    objective = PipoSFT() if pipo else Regular()
    collate = collate_pairs(0, "shift", 0.3, 0.1) if pipo else collate_regular(0)
    all_rows = rows(0, 0.0)
    paired = [collate([r], random.Random(i)) for i, r in enumerate(all_rows)]
    grads, parts = [], []
    for step in (paired, [_merge(paired[:8]), _merge(paired[8:])], [_merge(paired)]):
        model.zero_grad()
        parts.append(gradients(model, objective, step))
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    for g, p in zip(grads[1:], parts[1:], strict=True):
        assert torch.allclose(g, grads[0], atol=1e-4), (g - grads[0]).abs().max()
        assert p == pytest.approx(parts[0], abs=1e-5)


def _merge(micro):
    length = max(b.ids.shape[1] for b in micro)
    ids = torch.zeros(len(micro), length, dtype=torch.long)
    labels = torch.full((len(micro), length), -100)
    for i, b in enumerate(micro):
        ids[i, : b.ids.shape[1]], labels[i, : b.ids.shape[1]] = b.ids[0], b.labels[0]
    return type(micro[0])(ids, labels, sum(b.tokens for b in micro))


def test_sft_objective_equals_the_models_own_losses():
    model = tiny_model()
    batch = batches(True, 1, 400).pool(0, 0.0)[0][0]
    out = model(batch.ids, batch.labels)
    want = [out.backbone_loss.item(), out.mtp_loss.item(), out.confidence_loss.item()]
    assert gradients(model, PipoSFT(), [batch]) == pytest.approx(want, abs=1e-5)


def _train(folder, tokens, pipo=True, stop_at=None, save_every=1000):
    model = tiny_model(pipo=pipo, layers=1)

    def watch(kind, data):
        if kind == "metric" and stop_at and data["step"] >= stop_at:
            ctx.cancelled = True

    ctx = LocalContext(folder, watch)
    settings = LoopSettings(tokens=tokens, log_every=1, save_every=save_every, warmup=0.05)
    train(model, batches(pipo), PipoSFT() if pipo else Regular(), settings, folder, ctx)
    return model


@pytest.mark.parametrize("pipo", [True, False])
def test_resumed_is_bit_equal_to_uninterrupted(tmp_path, pipo):
    whole = _train(tmp_path / "whole", 1200, pipo)
    with pytest.raises(Cancelled):
        _train(tmp_path / "cut", 1200, pipo, stop_at=5)
    resumed = _train(tmp_path / "cut", 1200, pipo)
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name

    def metrics(folder):
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in x.items() if k != "seconds"} for x in lines]

    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_training_lowers_the_loss(tmp_path):
    _train(tmp_path, 5000)
    lines = [json.loads(x)["backbone_loss"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(lines[-3:]) < 0.9 * sum(lines[:3])


def test_opd_batch_lays_out_a_roll_out_by_hand():
    from pipo.engine.types import Draft, Event

    def event(places, drafts=(), **more):
        return Event(request_id="r", time=0.0, places=places, slots=1, drafts=drafts, **more)

    steps = [
        event((7, 8), (Draft(8, True, 0.9),)),
        event((9, 0), (Draft(5, False, 0.2),)),
        event((2, 0), finish="eos"),
    ]
    b = opd_batch([[1, 3, 4]], [steps], 0, ["r"])
    assert b.ids.tolist() == [[1, 3, 4, 0, 7, 8, 9, 0, 2, 0]]
    assert b.teacher_ids.tolist() == [[1, 3, 4, 7, 8, 9, 2]]
    assert b.first.at.tolist() == [[0, 1], [0, 2], [0, 3]] and b.first.ids.tolist() == [7, 9, 2]
    assert b.first.teacher_at.tolist() == [[0, 2], [0, 4], [0, 5]]  # the teacher's place before 7, 9 and EOS
    assert b.draft.at.tolist() == [[0, 1], [0, 2]]
    assert b.draft.ids.tolist() == [8, 5], "a rejected draft is judged by its own id"
    assert b.draft.teacher_at.tolist() == [[0, 3], [0, 5]]  # after 7 and after 9
    assert b.tokens == 7


@pytest.mark.parametrize("kind", ["full", "topk", "sampled"])
def test_opd_moves_the_student_towards_the_teacher(tmp_path, kind):
    student, teacher = tiny_model(seed=1, layers=1), tiny_model(pipo=False, seed=2, layers=1)
    prompts = [[1, 5, 6], [1, 7, 8, 9]]
    steps = OnPolicy(student, EmbeddedRollouts(student), [(p, "p") for p in prompts], rollouts=16, thresholds=(0.5,),
                     max_slots=8)  # fmt: skip
    exact = OPD(teacher, "full")

    def kl(pool):
        batch = steps.pool(pool, 0.0)[0][0]
        with torch.no_grad():
            return sum(float(x) for x in exact.loss(student, batch, exact.counts(batch))[:2])

    before = kl(998)
    settings = LoopSettings(tokens=6000, lr=4e-3, log_every=50, warmup=0.05, save_every=1000)
    train(student, steps, OPD(teacher, kind), settings, tmp_path, LocalContext(tmp_path))
    after = kl(999)
    assert after < (0.95 if kind == "sampled" else 0.9) * before, (kind, before, after)


def test_opd_batch_without_drafts_has_a_loss():
    from pipo.engine.types import Event

    student, teacher = tiny_model(seed=1, layers=1), tiny_model(pipo=False, seed=2, layers=1)
    last = Event(request_id="r", time=0.0, places=(2, 0), slots=1, finish="eos")
    batch = opd_batch([[1, 3]], [[last]], 0, ["r"])
    objective = OPD(teacher)
    assert objective.counts(batch) == (1, 0, 0)
    losses = objective.loss(student, batch, (1, 1, 1))
    assert losses[0] > 0 and losses[1] == 0 and losses[2] == 0


def test_student_forward_sees_what_the_engine_saw():
    student = tiny_model(seed=3)
    engine = TorchEngine(student)
    prompt = [1, 5, 6]
    request = Request(id="a", prompt=tuple(prompt), method=Method(name="pipo", threshold=0.5), max_slots=10, seed=4)
    events = engine.generate([request])["a"]
    batch = opd_batch([prompt], [events], 0, ["r"])
    h, d = student.hiddens(batch.ids)
    c = student.confidence_head(h[tuple(batch.draft.at.T)], d[tuple(batch.draft.at.T)]).sigmoid()
    seen = [x.confidence for e in events for x in e.drafts]
    assert torch.allclose(c, torch.tensor(seen), atol=1e-4)


def test_sft_and_opd_jobs_write_models_that_load(tmp_path):
    tokenizer = lab_tokenizer()
    base = tiny_model(pipo=False, vocab=128)
    save_model(base, tmp_path / "base", tokenizer)
    line = json.dumps({"prompt": "<bos> chain a = 4 + 2 ?", "response": "a 4 + 2 = 6 \\boxed{ 6 } <eos>"})
    (tmp_path / "data.jsonl").write_text((line + "\n") * 20)
    spec = {"model": str(tmp_path / "base"), "data": str(tmp_path / "data.jsonl"), "tokens": 2000, "accumulate": 4}
    sft = run_sft(spec, LocalContext(tmp_path / "sft"))
    assert load_model(sft["model"]).is_pipo
    opd = run_opd({"model": sft["model"], "teacher": str(tmp_path / "base"), "data": str(tmp_path / "data.jsonl"),
                   "tokens": 300, "rollouts": 4, "max_slots": 8}, LocalContext(tmp_path / "opd"))  # fmt: skip
    assert load_model(opd["model"]).is_pipo
    with pytest.raises(BadInput, match="OPD starts from a PIPO model"):
        run_opd({"model": str(tmp_path / "base"), "teacher": str(tmp_path / "base"),
                 "data": str(tmp_path / "data.jsonl")}, LocalContext(tmp_path / "x"))  # fmt: skip
    with pytest.raises(BadInput, match="unknown field `rho`"):
        run_sft({"model": "m", "data": "d", "rho": 1}, LocalContext(tmp_path / "x"))


def test_training_data_errors_name_the_line(tmp_path):
    path = tmp_path / "d.jsonl"
    with pytest.raises(BadRecord, match="is not a file"):
        read_rows(path, lab_tokenizer())
    path.write_text("")
    with pytest.raises(BadRecord, match="holds no whole line"):
        read_rows(path, lab_tokenizer())
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(BadRecord, match=r"d\.jsonl:2"):
        read_rows(path, lab_tokenizer())
    path.write_text('{"prompt": "a", "response": "b"}\n{"pro')
    assert len(read_rows(path, lab_tokenizer()).rows) == 1


def test_file_rows_show_every_row_once_an_epoch(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a", "response": str(i)}) + "\n" for i in range(10)))
    source = Recycled(list(read_rows(path, lab_tokenizer()).rows), seed=0, pool=5)
    first = [r.response[0] for p in (0, 1) for r in source(p, 0.0)]
    second = [r.response[0] for p in (2, 3) for r in source(p, 0.0)]
    assert sorted(first) == sorted(second) and len(set(first)) == 10 and first != second
