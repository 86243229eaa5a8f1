"""``pipo ablate training``: what is submitted, what is printed, what is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.training import merged
from ablations.training_spec import TrainingSpec
from bench.loading import read_spec
from pipo.cli import main
from tests.unit.cli_fakes import FakeClient
from tests.unit.training_runs import finish, stage, study


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    return fake


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(("ablate", "training", *argv))
    return end.value.code if isinstance(end.value.code, int) else 1


def test_defaults_are_the_studys_file(client: FakeClient) -> None:
    assert run("--detach") == 0
    assert client.submitted[0][:2] == ("ablate-training", {"workers": 2})


def test_flags_narrow_the_study_and_the_job_takes_them(client: FakeClient) -> None:
    flags = "--row linear --row pipo-opd --training-seed 0 --k 2 --limit 9 --seed 5 --minutes 30 --smoke --detach"
    assert run(*flags.split()) == 0
    spec = client.submitted[0][1]
    assert spec == {
        "only": ["linear", "pipo-opd"], "seeds": [0], "k": 2, "limit": 9, "seed": 5, "workers": 2, "minutes": 30.0,
        "smoke": True,
    }  # fmt: skip
    found = read_spec(merged(spec), TrainingSpec, "ablate-training")
    assert list(found.stages()) == ["pipo-sft-seed0", "pipo-opd-seed0", "linear-seed0"]
    assert found.limit == 9 and found.rollout_items == 128, "a flag wins over the small sizes, the rest stays small"


def test_rows_of_ones_own_come_from_a_file(client: FakeClient, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[sft]\ntokens = 9000\n[[row]]\nname = "control"\ntrain = "regular"\n')
    assert run("--study", str(path), "--detach") == 0
    found = read_spec(merged(client.submitted[0][1]), TrainingSpec, "ablate-training")
    assert [r.name for r in found.row] == ["control"] and found.sft["tokens"] == 9000 and found.sft["lr"] == 6e-3


def test_a_bad_file_is_refused_before_anything_is_submitted(
    client: FakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("rows =")
    for path, says in ((tmp_path / "none.toml", "cannot be read"), (tmp_path / "bad.toml", "is no TOML")):
        assert run("--study", str(path)) == 2
        assert says in capsys.readouterr().err
    assert not client.submitted


def test_the_result_is_a_line_a_row(client: FakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage(tmp_path / "stages", "control-seed0", [0.5])
    stage(tmp_path / "stages", "pipo-sft-seed0", [0.3, 0.4, 0.5])
    result = finish(study(only=["control", "pipo-sft"], seeds=[0]), tmp_path)
    client.outcome = {"state": "done", "result": result}
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [x for x in lines if x.startswith("pipo-sft")]
    assert line.split()[:4] == ["pipo-sft", "1", "tau", "0.95"] and "40.0 ±" in line
