"""``pipo bench map``: what is submitted, what is printed, what is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipo.cli import main
from tests.unit.cli_fakes import FakeClient
from tests.unit.test_reports_map import summary

DEFAULTS = {
    "shape": "lab", "depth": 3, "prompt": False, "machine": "measure", "measured": True, "steps": 24, "seed": 0,
}  # fmt: skip


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    fake.outcome = {"state": "done", "result": summary()}
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    return fake


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(("bench", "map", *argv))
    return end.value.code if isinstance(end.value.code, int) else 1


def test_defaults_are_the_jobs(client: FakeClient) -> None:
    from bench.map import MapSpec

    assert run() == 0
    kind, spec, _ = client.submitted[0]
    assert (kind, spec) == ("map", DEFAULTS)
    assert all(getattr(MapSpec(), name) == value for name, value in spec.items())


def test_all_that_was_given_is_submitted(client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    given = ["--batch", "1", "--batch", "8", "--context", "512", "--keep", "0.335", "--keep", "1", "--accepted", "3"]
    given += ["--shape", str(tmp_path / "config.json"), "--machine", "h100-ideal", "--no-measure", "--prompt"]
    assert run(*given, "--memory-gb", "80", "--dtype", "bfloat16", "--depth", "2", "--detach") == 0
    assert client.submitted[0][1] == DEFAULTS | {
        "shape": str(tmp_path / "config.json"), "batches": [1, 8], "contexts": [512], "kept": [0.335, 1.0],
        "accepted": [3.0], "machine": "h100-ideal", "measured": False, "prompt": True, "memory_gb": 80.0,
        "dtype": "bfloat16", "depth": 2,
    }  # fmt: skip


def test_the_result_is_two_tables(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert (
        "lab in float32, generated contexts; floor of cpu: 40 GB/s, 0.26 TFLOP/s (attention 0.08); 8 GB to fit in"
        in lines
    )
    assert "pipo, 33.5 % kept 1 512 1.33 2 yes 2 500 1.00 5 2.5 200 1.00" in lines
    assert "1 512 33.5 2.4 EAGLE 1.56 regular? 1.00" in lines
    assert "8 8192 100 2.4 PIPO, no regular nothing fits" in lines
    assert lines[-1].startswith("?: the lead")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--accepted", "4.5"), "must lie in [1, 4]"),
        (("--dtype", "int4"), "--dtype 'int4'"),
        (("--shape", "/nowhere/config.json"), "/nowhere/config.json"),
    ],
)
def test_wrong_values_are_refused(
    argv: tuple[str, ...], says: str, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    assert says in capsys.readouterr().err and not client.submitted
