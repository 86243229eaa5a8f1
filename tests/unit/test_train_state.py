"""What stops a training and what is left then: NaN, a full disk, a checkpoint of another shape, other settings."""

import json
import random
import resource

import pytest
import torch

from pipo.data.rows import Row
from pipo.errors import BadInput, JobFailed
from pipo.jobs import LocalContext
from pipo.model.testing import tiny_model
from pipo.train.data import PlannedSteps, batch_rng, collate_pairs
from pipo.train.loop import LoopSettings, train
from pipo.train.objectives import PipoSFT
from pipo.train.optim import make_optimizers
from pipo.train.plan import make_plan
from pipo.train.resume import take_over
from pipo.train.settings import SFTSettings
from pipo.train.state import TrainState


def steps(n=12):
    rng = random.Random(0)
    rows = [Row([1, *rng.choices(range(3, 20), k=3)], [*rng.choices(range(3, 20), k=6), 2], f"d.jsonl:{i + 1}")
            for i in range(n)]  # fmt: skip
    plan = make_plan([len(r.prompt) + len(r.response) for r in rows], accumulate=2, epochs=1)
    return PlannedSteps(rows, plan, collate_pairs(0, "split", 0.25, 0.0), 0)


class Poisoned(PipoSFT):
    """Its loss is no number from a step on."""

    def __init__(self, at):
        super().__init__()
        self.calls, self.at = 0, at

    def loss(self, model, batch, totals):
        self.calls += 1
        parts = super().loss(model, batch, totals)
        return (parts[0] * float("nan"), *parts[1:]) if self.calls > 2 * self.at else parts


SETTINGS = LoopSettings(log_every=1, save_every=2, optimizer="adamw", lr=1e-3)


def test_a_loss_that_is_no_number_stops_and_names_the_rows_and_keeps_the_checkpoint(tmp_path):
    model = tiny_model(layers=1)
    with pytest.raises(JobFailed, match=r"stops at step 4: the loss is no finite number \(backbone_loss nan.*"
                       r"d\.jsonl:\d+; the checkpoint of step 2 is kept"):  # fmt: skip
        train(model, steps(), Poisoned(3), SETTINGS, tmp_path, LocalContext(tmp_path), "sft")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2 and all(torch.isfinite(t).all() for t in state["model"].values())
    assert all(torch.isfinite(p).all() for p in model.parameters()), "the bad step was not applied"
    done = train(tiny_model(layers=1), steps(), PipoSFT(), SETTINGS, tmp_path, LocalContext(tmp_path), "sft")
    assert done["steps"] == 6
    assert [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    model = tiny_model(layers=1)
    state = TrainState(model, make_optimizers(model, "adamw", 0.0))
    state.step = 3
    state.save(tmp_path / "state.pt")
    good = (tmp_path / "state.pt").read_bytes()
    state.step = 4
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, hard))
    try:
        with pytest.raises(JobFailed, match=r"step 4 could not be written to .*; the checkpoint of step 3 is kept"):
            state.save(tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "state.pt").read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"], "no half file stays"


def test_a_checkpoint_of_another_shape_names_the_tensor(tmp_path):
    small, large, deep = tiny_model(layers=1), tiny_model(layers=1, hidden=48), tiny_model(layers=2)

    def state(model):
        return TrainState(model, make_optimizers(model, "adamw", 0.0))

    state(small).save(tmp_path / "state.pt")
    with pytest.raises(BadInput, match=r"another model: .* is \[.*32.*\] there and \[.*48.*\] here"):
        state(large).load(tmp_path / "state.pt")
    with pytest.raises(BadInput, match=r"backbone\.layers\.1\..* trains here and is not in it"):
        state(deep).load(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"torn")
    with pytest.raises(BadInput, match="is no checkpoint of a training"):
        state(small).load(tmp_path / "state.pt")


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    import pickle

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    model = tiny_model(layers=1)
    state = TrainState(model, make_optimizers(model, "adamw", 0.0))
    torch.save({"model": Evil()}, tmp_path / "state.pt")
    with pytest.raises(BadInput, match="is no checkpoint of a training"):
        state.load(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(BadInput, match="is no checkpoint of a training"):
        state.load(tmp_path / "state.pt")
    assert capsys.readouterr().out == ""


def test_resume_takes_state_and_metrics_over_and_refuses_other_settings(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    settings = SFTSettings(model="m", data="d")
    take_over(settings, old, LocalContext(old))
    (old / "state.pt").write_text("state")
    (old / "metrics.jsonl").write_text('{"step": 1}\n')
    again = SFTSettings(model="m", data="d", resume=str(old), save_every=7)
    take_over(again, new, LocalContext(new))
    assert (new / "state.pt").read_text() == "state" and (new / "metrics.jsonl").exists()
    (new / "state.pt").write_text("later")
    take_over(again, new, LocalContext(new))
    assert (new / "state.pt").read_text() == "later", "its own checkpoint goes before the earlier job's"
    other = SFTSettings(model="m", data="d", lr=2e-4, resume=str(old))
    with pytest.raises(BadInput, match="was trained with lr 0.0001, not 0.0002"):
        take_over(other, tmp_path / "x", LocalContext(tmp_path / "x"))
    with pytest.raises(BadInput, match="holds no checkpoint"):
        take_over(SFTSettings(model="m", data="d", resume=str(tmp_path)), tmp_path / "y", LocalContext(tmp_path / "y"))


def test_random_sources_depend_on_seed_step_and_micro_batch():
    drawn = {(a, b, c): batch_rng(a, b, c).random() for a in (0, 1) for b in (0, 1) for c in (0, 1)}
    assert len(set(drawn.values())) == 8 and batch_rng(1, 0, 1).random() == drawn[1, 0, 1]
