"""``pipo bench latency``: settings that exclude each other, shapes by path, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli_fakes import FakeClient
from tests.unit.reports_runs import latency_summary
from tests.unit.test_cli_commands import Pipo, client, pipo

__all__ = ["client", "pipo"]  # fixtures


def test_conflicting_settings_of_latency_are_named(pipo: Pipo, client: FakeClient, tmp_path: Path) -> None:
    for argv, words in (
        (["--shape", "lab", "--variant", "a=lab/base:regular"], "--shape lab and --variant exclude each other"),
        (["--shape", "lab", "--family", str(tmp_path)], "--shape lab and --family exclude each other"),
        (["--dtype", "bfloat16"], "--dtype bfloat16 has no effect without --shape"),
        (["--shape", "lab", "--dtype", "int4"], "--dtype 'int4' is none of float32, bfloat16"),
        (["--protocol", "theirs"], "--protocol 'theirs' is none of ours, paper"),
        (["--shape", "no/config.json"], "no/config.json is not a file"),
    ):
        said = pipo("bench", "latency", *argv)
        assert said.code == 2 and words in said.err, said.err
    assert client.submitted == []


def test_a_shape_may_be_a_path(pipo: Pipo, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").touch()
    assert pipo("bench", "latency", "--shape", "config.json", "--detach").code == 0
    assert client.submitted[0][1]["shape"] == str(tmp_path / "config.json")


def test_latency_shows_times_over_the_floor_and_the_protocols_statistic(pipo: Pipo, client: FakeClient) -> None:
    result = latency_summary((2048,)) | {"statistic": "mean", "tpot": "tpot16", "shape": "158m", "trials": 16}
    for r in result["rows"]:
        r |= {"ttft_over_floor": 1.5, "tpot_over_floor": 2.25, "ttft_s": {"p50": 9.0, "mean": 0.0125}}
    client.outcome["result"] = result
    said = pipo("bench", "latency", "--shape", "158m").out
    assert "on a random model of shape 158m, means of 16 trials" in said and "TPOT16 ratio" in said
    assert "regular 2048 12.5 - - - 1 - 1.5 2.25 - -" in [" ".join(line.split()) for line in said.splitlines()], said
