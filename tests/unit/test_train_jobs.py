"""SFT and OPD as jobs with adapters: files they leave, resuming bit-equal, merging, what the engine does meanwhile."""

import json
import shutil

import pytest
import torch

from pipo.errors import BadInput, BadModel, Cancelled
from pipo.jobs import LocalContext
from pipo.lab.tokenizer import lab_tokenizer
from pipo.model import load_model, save_model
from pipo.model.testing import tiny_model
from pipo.train.jobs import run_opd, run_sft
from pipo.train.lora import layers
from pipo.train.merge import run as run_merge
from pipo.train.merge import stored_dtype
from pipo.train.rollouts import EmbeddedRollouts
from pipo.train.settings import OPDSettings, SFTSettings, convert

ROW = {"prompt": "<bos> chain a = 4 + 2 ?", "response": "a 4 + 2 = 6 \\boxed{ 6 } <eos>"}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with a regular model, and texts to train on."""
    folder = tmp_path_factory.mktemp("house")
    save_model(tiny_model(pipo=False, vocab=128), folder / "base", lab_tokenizer())
    rows = [ROW | {"prompt": ROW["prompt"].replace("4", str(i % 10)) + " ;" * (i // 10)} for i in range(40)]
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def sft(house, folder, stop=None, **more):
    def watch(kind, data):
        if kind == "metric" and stop and data["step"] >= stop:
            ctx.cancelled = True

    ctx = LocalContext(folder, watch)
    spec = {"model": str(house / "base"), "data": str(house / "data.jsonl"), "accumulate": 2, "lora_rank": 4,
            "micro_rows": 4, "log_every": 1, "sample_every": 3, "lr": 1e-3, **more}  # fmt: skip
    return run_sft(spec, ctx)


@pytest.fixture(scope="module")
def trained(house, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    return folder, sft(house, folder)


def test_a_training_leaves_its_files_and_says_what_it_did(trained):
    folder, result = trained
    names = {p.name for p in folder.iterdir()}
    assert names >= {"settings.json", "metrics.jsonl", "samples.jsonl", "calibration.json", "tensorboard", "adapter",
                     "model", "state.pt"}  # fmt: skip
    assert result["steps"] == 9 and result["calibration_drafts"] > 0 and 0 <= result["ece"] <= 1
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 9 and {"lr", "grad_norm", "confidence", "confidence_target", "kept@0.95", "pad_ratio"} <= {
        *rows[0]
    }
    assert rows[-1]["mtp_loss"] < rows[0]["mtp_loss"]
    samples = [json.loads(x) for x in (folder / "samples.jsonl").read_text().splitlines()]
    assert [s["step"] for s in samples] == [3, 3, 6, 6, 9, 9] and samples[0]["text"]
    assert json.loads((folder / "settings.json").read_text())["lora_rank"] == 4
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("sft/backbone_loss")] == list(range(1, 10))


def test_resumed_with_dropout_is_bit_equal_to_uninterrupted(house, trained, tmp_path):
    folder, _ = trained
    with pytest.raises(Cancelled):
        sft(house, tmp_path / "cut", stop=4)
    resumed = sft(house, tmp_path / "more", resume=str(tmp_path / "cut"))
    assert resumed["steps"] == 9
    whole, again = load_model(folder / "model"), load_model(tmp_path / "more" / "model")
    for (name, a), b in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name

    def losses(where):
        rows = [json.loads(x) for x in (where / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]

    assert losses(folder) == losses(tmp_path / "more")


def test_merging_the_adapter_gives_the_model_that_training_wrote(house, trained, tmp_path):
    folder, result = trained
    spec = {"adapter": result["adapter"], "model": str(house / "base")}
    done = run_merge({**spec, "out": str(tmp_path / "ours")}, LocalContext(tmp_path))
    run_merge({**spec, "out": str(tmp_path / "theirs"), "layout": "published"}, LocalContext(tmp_path))
    assert done["adapters"] == 1 * 4 + 4 * 3 + 7 and done["dtype"] == "float32"
    half = run_merge({**spec, "out": str(tmp_path / "half"), "dtype": "bfloat16"}, LocalContext(tmp_path))
    assert half["dtype"] == "bfloat16" and stored_dtype(tmp_path / "half") == torch.bfloat16
    from safetensors.torch import load_file

    names = load_file(tmp_path / "theirs" / "model.safetensors")
    assert "model.language_model.embed_tokens.weight" in names and "lm_head.weight" not in names
    want = dict(load_model(folder / "model").named_parameters())
    for which in ("ours", "theirs"):
        for name, p in load_model(tmp_path / which).named_parameters():
            assert (p - want[name]).abs().max() < 1e-6, (which, name)


def test_an_adapter_without_its_parts_is_refused(house, trained, tmp_path):
    from safetensors.torch import load_file, save_file

    _, result = trained
    source = LocalContext(tmp_path / "a").folder
    tensors = load_file(f"{result['adapter']}/adapter_model.safetensors")
    save_file({n: t for n, t in tensors.items() if "confidence" not in n}, source / "adapter_model.safetensors")
    shutil.copy(f"{result['adapter']}/adapter_config.json", source)
    with pytest.raises(BadModel, match=r"has no confidence_head\..* brings none"):
        run_merge({"adapter": str(source), "model": str(house / "base"), "out": str(tmp_path / "o")},
                  LocalContext(tmp_path))  # fmt: skip


def opd(house, trained, folder, stop=None, **more):
    def watch(kind, data):
        if kind == "metric" and stop and data["step"] >= stop:
            ctx.cancelled = True

    spec = {"model": trained[1]["model"], "teacher": str(house / "base"), "data": str(house / "data.jsonl"),
            "tokens": 600, "rollouts": 8, "micro_rows": 4, "max_slots": 8, "lora_rank": 4, "sample_every": 0,
            "thresholds": [0.5], "lora_dropout": 0.0, **more}  # fmt: skip
    ctx = LocalContext(folder, watch)
    return run_opd(spec, ctx)


@pytest.mark.parametrize("more", [{}, {"tuner": "full", "kl": "full"}, {"temperature": 0.7}, {"beta": 0.5}], ids=str)
def test_opd_compares_engine_and_trainer_every_step(house, trained, tmp_path, more):
    result = opd(house, trained, tmp_path, **more)
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == result["steps"] >= 2
    for row in rows:
        assert row["logprob_gap_max"] < 2e-3, "the engine has the trainer's weights of this very step"
        assert 0 < row["rollout_s"] and 0 < row["teacher_s"]
    assert {"kept", "pad_ratio", "finished", "slots"} <= {*rows[0]}
    assert load_model(result["model"]).is_pipo and 0 <= result["ece"] <= 1


@pytest.mark.parametrize("kl", ["topk", "sampled"])
def test_a_resumed_opd_is_bit_equal_to_an_uninterrupted_one(house, trained, tmp_path, kl):
    spec = {"kl": kl, "tokens": 900, "tuner": "full", "lr": 1e-3}
    whole = opd(house, trained, tmp_path / "whole", **spec)
    with pytest.raises(Cancelled):
        opd(house, trained, tmp_path / "cut", stop=2, **spec)
    again = opd(house, trained, tmp_path / "cut", **spec)
    assert again["steps"] == whole["steps"] > 3
    models = [load_model(tmp_path / w / "model") for w in ("whole", "cut")]
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_stale_engine_would_show_in_the_gap(house, trained, tmp_path, monkeypatch):
    wake = EmbeddedRollouts.wake

    def stale(self):
        if self.engine is None:
            wake(self)

    monkeypatch.setattr(EmbeddedRollouts, "wake", stale)
    monkeypatch.setattr(EmbeddedRollouts, "sleep", lambda self: None)
    opd(house, trained, tmp_path, lr=0.05, tuner="full")
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["logprob_gap_max"] < 2e-3 < 0.05 < rows[-1]["logprob_gap_max"]


def test_the_engine_holds_nothing_while_the_trainer_works_and_the_adapters_stay(house):
    from pipo.engine.types import Method, Request
    from pipo.train.lora import add_lora

    model = tiny_model(vocab=128)
    add_lora(model, 4, 8, 0.0, 0)
    before = [m.get_base_layer().weight for _, m in layers(model)]
    roller = EmbeddedRollouts(model)
    ask = [Request(id="a", prompt=(1, 5, 6), method=Method("pipo", threshold=0.5), max_slots=6, seed=3)]
    roller.wake()
    first = roller.generate(ask)["a"]
    roller.sleep()
    assert not hasattr(roller.engine, "arena") and not hasattr(roller.engine, "weights")
    with pytest.raises(BadInput, match="the engine sleeps"):
        roller.generate(ask)
    roller.wake()
    again = roller.generate(ask)["a"]
    assert [e.places for e in first] == [e.places for e in again]
    assert all(a is m.get_base_layer().weight for a, (_, m) in zip(before, layers(model), strict=True))


def test_the_papers_recipe_is_the_default_and_the_labs_is_its_own():
    s = convert({"model": "m", "data": "d"}, SFTSettings)
    assert (s.tuner, s.lora_rank, s.lora_alpha, s.lora_dropout, s.lr, s.warmup) == ("lora", 64, 128, 0.05, 1e-4, 0.05)
    assert (s.augmentation, s.rho_max, s.all_pad, s.compressor, s.start, s.epochs) == (
        "split",
        0.25,
        0,
        "mlp",
        "sum",
        2,
    )
    assert s.accumulate == 8 * 16 and s.micro_rows == 1 and s.max_length == 65_536 and s.optimizer == "adamw"
    opd = convert({"model": "m", "data": "d", "teacher": "t"}, OPDSettings)
    assert (opd.rollouts, opd.epochs, opd.thresholds, opd.confidence_weight) == (8 * 4, 1, (0.95,), 1)
    lab = convert({"model": "lab/base", "data": "d"}, SFTSettings)
    assert (lab.tuner, lab.optimizer, lab.augmentation) == ("full", "muon", "shift")
    assert convert({"model": "lab/base", "data": "d", "recipe": "paper"}, SFTSettings).tuner == "lora"
    assert convert({"model": "lab/base", "data": "d", "rho_max": 0.1}, SFTSettings).rho_max == 0.1


@pytest.mark.parametrize(("more", "message"), [
    ({"recipe": "mine"}, "unknown recipe 'mine'; recipes are paper, lab"),
    ({"rho_max": 1.5}, r"rho_max 1.5 must lie in \[0, 1\]"),
    ({"micro_rows": 0}, "micro_rows 0 must be at least 1"),
    ({"micro_rows": None}, "micro_rows and micro_tokens are both unset"),
    ({"processes": 2}, "no effect on the torch backend"),
    ({"backend": "swift", "processes": 3}, "accumulate 128 counts over all processes"),
    ({"tuner": "qlora"}, "tuner"),
    ({"lr": float("nan")}, "lr nan"),
], ids=lambda v: str(v)[:30])  # fmt: skip
def test_bad_settings_state_value_and_rule(more, message):
    with pytest.raises(BadInput, match=message):
        convert({"model": "m", "data": "d", **more}, SFTSettings)


def test_a_teacher_with_another_vocabulary_is_refused(house, trained, tmp_path):
    save_model(tiny_model(pipo=False, vocab=160), tmp_path / "t", lab_tokenizer())
    with pytest.raises(BadInput, match=r"has 160 ids and student .* 128"):
        opd(house, trained, tmp_path / "x", teacher=str(tmp_path / "t"))
    with pytest.raises(BadInput, match="is a PIPO model; the teacher is a regular one"):
        opd(house, trained, tmp_path / "y", teacher=trained[1]["model"])


def test_a_device_that_is_not_here_is_named(house, tmp_path):
    with pytest.raises(BadInput, match="device 'nonsense' cannot be used here"):
        sft(house, tmp_path, device="nonsense")


def first_losses(folder):
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return [row[k] for k in ("backbone_loss", "mtp_loss", "confidence_loss")]


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_bfloat16_trains_and_saves_in_it(house, trained, tmp_path, tuner):
    result = sft(house, tmp_path, dtype="bfloat16", tuner=tuner)
    assert first_losses(tmp_path) == pytest.approx(first_losses(trained[0]), rel=0.03)
    from safetensors.torch import load_file

    kinds = {t.dtype for t in load_file(f"{result['model']}/model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["mtp_loss"] < rows[0]["mtp_loss"]


def test_gradient_checkpointing_changes_no_number(house, trained, tmp_path):
    sft(house, tmp_path, gradient_checkpointing=True, lora_dropout=0.0)
    plain = sft(house, tmp_path / "plain", lora_dropout=0.0)

    def losses(where):
        rows = [json.loads(x) for x in (where / "metrics.jsonl").read_text().splitlines()]
        return [(r["backbone_loss"], r["mtp_loss"], r["grad_norm"]) for r in rows]

    assert plain["steps"] == 9
    for a, b in zip(losses(tmp_path), losses(tmp_path / "plain"), strict=True):
        assert a == pytest.approx(b, abs=2e-4)


def test_opd_in_bfloat16_has_a_small_gap_to_its_engine(house, trained, tmp_path):
    result = opd(house, trained, tmp_path, dtype="bfloat16")
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert result["steps"] == len(rows) and all(0 < r["logprob_gap"] < 0.15 for r in rows)
