"""``pipo ablate geometry`` and ``lossiness``: what is submitted, what the jobs take, what is refused before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.geometry import GeometrySpec
from ablations.lossiness import LossinessSpec
from ablations.study import load_study
from bench.loading import read_spec
from pipo.cli import main
from tests.unit.cli_fakes import FakeClient
from tests.unit.looks_runs import geometry_summary, lossiness_summary

SPECS = {"geometry": GeometrySpec, "lossiness": LossinessSpec}
SUMMARIES = {"geometry": geometry_summary, "lossiness": lossiness_summary}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    return fake


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(("ablate", *argv))
    return end.value.code if isinstance(end.value.code, int) else 1


def submitted(client: FakeClient, *argv: str) -> tuple[dict[str, Any], Any]:
    """What a command submits, and what its job makes of it."""
    assert run(*argv, "--detach") == 0
    kind, spec, _ = client.submitted[-1]
    assert kind == f"ablate-{argv[0]}"
    return spec, read_spec({**load_study(argv[0]), **spec}, SPECS[argv[0]], kind)


@pytest.mark.parametrize("name", SPECS)
def test_defaults_are_the_study_s_file(client: FakeClient, name: str) -> None:
    spec, settings = submitted(client, name)
    assert spec == {"seed": 0} and settings.models == ["lab/pipo-opd", "lab/pipo-sft"]


def test_flags_of_geometry(client: FakeClient) -> None:
    flags = "lab/pipo-sft --start sum --threshold 0.8 --pairs 90 --task lab-chain --k 3 --limit 5 --seed 4 --top-p 0.9"
    _, settings = submitted(client, "geometry", *flags.split())
    assert (settings.models, settings.starts, settings.threshold, settings.pairs) == (
        ["lab/pipo-sft"],
        ["sum"],
        0.8,
        90,
    )
    assert (settings.tasks, settings.k, settings.limit, settings.seed) == (["lab-chain"], 3, 5, 4)
    assert settings.sampling.top_p == 0.9


def test_other_runs_are_named_by_job_or_folder(client: FakeClient, tmp_path: Path) -> None:
    from tests.unit.cli_fakes import job

    client.held[5] = job(5, "compare", folder="/jobs/5")
    spec, _ = submitted(client, "geometry", "--run", "5", "--run", str(tmp_path))
    assert spec["runs"] == ["/jobs/5", str(tmp_path)]


def test_flags_of_lossiness(client: FakeClient) -> None:
    flags = "lab/pipo-opd --threshold 1 --threshold 0.7 --depth 2 --places 30 --k 1"
    _, settings = submitted(client, "lossiness", *flags.split())
    assert (settings.thresholds, settings.match, settings.depth, settings.places) == ([0.7, 1.0], 0.7, 2, 30)
    assert settings.base == "lab/base" and settings.others == ["lab/control"]


def test_a_base_of_ones_own_has_no_lab_model_beside_it(client: FakeClient) -> None:
    _, settings = submitted(client, "lossiness", "--base", "lab/control", "--threshold", "1")
    assert settings.others == [] and settings.match is None, "no threshold between 0 and 1 to match"
    _, settings = submitted(client, "lossiness", "--base", "lab/control", "--other", "lab/base", "--match", "0.5")
    assert settings.others == ["lab/base"] and settings.match == 0.5


@pytest.mark.parametrize("name", SPECS)
def test_a_result_is_a_table(client: FakeClient, capsys: pytest.CaptureFixture[str], name: str) -> None:
    client.outcome = {"state": "done", "result": SUMMARIES[name]()}
    with pytest.raises(SystemExit) as end:
        main(("ablate", name))
    assert not end.value.code
    out = capsys.readouterr().out
    if name == "geometry":
        assert "swap cosine" in out and "0.765 ±0.010" in out and "0.68" in out, out
        assert "lab/pipo-opd" in out and "37.3" in out and "compare-1" in out
    else:
        assert "pipo 0.95" in out and "11.50 ±1.00" in out and "eagle loses nothing: yes" in out, out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["geometry", "--threshold", "2"], "must lie in [0, 1]"),
        (["geometry", "--start", "mean"], "--start 'mean' is none of sum, identity, random"),
        (["geometry", "lab/none"], "unknown lab model"),
        (["geometry", "--run", "nowhere"], "neither a run folder nor a job number"),
        (["lossiness", "--threshold", "-1"], "must lie in [0, 1]"),
        (["lossiness", "--base", "lab/none"], "unknown lab model"),
        (["lossiness", "--top-p", "0"], "top_p 0.0 must lie in (0, 1]"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_submitted(
    client: FakeClient, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    assert run(*argv) == 2
    assert says in capsys.readouterr().err and not client.submitted
