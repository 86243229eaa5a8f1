"""``pipo ablate run``, ``list`` and the short forms: what is submitted, shown, and refused before anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations import grid
from pipo.cli import ablate_grid, main
from tests.unit.cli_fakes import FakeClient, job

OWN = """
question = "Which?"
reference = "a"
tasks = ["items.jsonl"]
[[base]]
name = "a"
model = "{model}"
method = "regular"
[[base]]
name = "b"
model = "lab/base"
method = "eagle"
"""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    return fake


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(("ablate", *argv))
    return end.value.code if isinstance(end.value.code, int) else 1


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "items.jsonl").write_text('{"prompt": "<bos> chain a = 1 ?", "answer": "1"}\n')
    path = tmp_path / "own.toml"
    path.write_text(OWN.format(model="lab/base"))
    return path


def test_a_short_form_submits_the_study_whole(client: FakeClient) -> None:
    assert run("eagle-depth", "--detach") == 0
    kind, spec, _ = client.submitted[0]
    assert kind == "ablate-grid" and spec["study"]["name"] == "eagle-depth" and len(spec["study"]["base"]) == 4
    _, _, points = grid.resolve(spec)
    assert len(points) == 14, "the job takes what was submitted"


@pytest.mark.parametrize("name", ablate_grid.SHORT)
def test_short_forms_are_run_with_the_name(client: FakeClient, name: str) -> None:
    assert run(name, "--detach", "--limit", "3") == run("run", name, "--detach", "--limit", "3") == 0
    assert client.submitted[0] == client.submitted[1]


def test_flags_win_over_the_study(client: FakeClient) -> None:
    flags = "--task lab-chain --k 2 --limit 9 --seed 5 --slots 50 --detach"
    assert run("budget", *flags.split()) == 0
    spec = client.submitted[0][1]
    settings, study, points = grid.resolve(spec)
    assert (settings.tasks, settings.k, settings.limit, settings.seed, settings.slots) == (["lab-chain"], 2, 9, 5, 50)
    assert {p.k for p in points} == {2} and study.tasks == ["lab-chain"]


def test_a_study_of_ones_own_has_paths_relative_to_its_file(client: FakeClient, own: Path) -> None:
    assert run("run", str(own), "--detach") == 0
    study = client.submitted[0][1]["study"]
    assert study["tasks"] == [str(own.parent / "items.jsonl")] and study["name"] == "own"
    assert study["base"][0]["model"] == "lab/base", "names stay names"


def test_a_dry_run_prints_points_and_cost_and_submits_nothing(
    client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("budget", "--dry-run", "--limit", "10") == 0
    said = capsys.readouterr().out
    assert client.submitted == []
    assert "pipo-opd budget=0.35" in said and "regular budget=0.35" in said
    assert "4 runs, 480 samples of 30 items" in said, "budgets cost nothing"
    assert run("budget", "--dry-run", "--limit", "10", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["runs"], plan["items"], plan["samples"], len(plan["points"])) == (4, 30, 480, 24)


def test_the_list_has_every_study_with_question_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json") == 0
    rows = {r["study"]: r for r in json.loads(capsys.readouterr().out)}
    assert {"budget", "eagle-depth", "draft-vocab", "threshold", "training"} <= set(rows)
    assert rows["budget"]["points"] == 24 and rows["budget"]["samples"] == 4800 and rows["budget"]["cost"]
    assert rows["threshold"]["command"] == "pipo ablate threshold" and rows["threshold"]["question"]
    assert run("list") == 0
    assert "24 points, 4 runs, 4,800 samples of 300 items" in capsys.readouterr().out


def test_points_are_reused_from_a_job_or_a_folder(client: FakeClient, tmp_path: Path) -> None:
    client.held[7] = job(7, "ablate-grid", folder="/jobs/7")
    for given, folder in (("7", "/jobs/7"), (str(tmp_path), str(tmp_path))):
        assert run("budget", "--reuse", given, "--detach") == 0
        assert client.submitted[-1][1]["reuse"] == folder


REFUSED = [
    (["run", "colour"], "unknown study 'colour'; studies are budget, draft-vocab, eagle-depth"),
    (["run", "threshold"], "threshold is a study of its own kind: `pipo ablate threshold` runs it"),
    (["run", "/nowhere/own.toml"], "study /nowhere/own.toml cannot be read (No such file or directory)"),
    (["budget", "--task", "colour"], "unknown task 'colour'"),
    (["budget", "--reuse", "colour"], "'colour' is neither a run folder nor a job number"),
    (["budget", "--tp", "2"], "--tp has no effect on the torch engine"),
]


@pytest.mark.parametrize(("argv", "says"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_input_ends_in_one_line(
    client: FakeClient, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    assert run(*argv) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and client.submitted == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question =", "is no TOML"),
        ('question = "?"\nreference = "a"\n', "Object missing required field `base`"),
        (OWN.format(model="lab/pipo-opd"), "point 'a': lab/pipo-opd is a PIPO model, method regular is not for it"),
        (OWN.format(model="lab/base") + "depth = 99\n", "point 'b': depth 99 must lie in [1, 16]"),
        (OWN.format(model="lab/base") + "tau = 1\n", "base 'b': unknown key 'tau'"),
        ("base = 3\naxis = 4\ntasks = 5\n", "Expected `array`, got `int` - at `$.base`"),
        ('question = "?"\nreference = "a"\nbase = [1]\n', "Expected `object`, got `int`"),
        ('question = "?"\nreference = "a"\nbase = []\naxis = [1]\n', "Expected `object`, got `int`"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_submitted(
    client: FakeClient, own: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    own.write_text(text)
    assert run("run", str(own)) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and client.submitted == []
