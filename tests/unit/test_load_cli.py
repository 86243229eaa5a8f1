"""``pipo bench load``: what is submitted, what is printed, what is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipo.cli import main
from tests.unit.cli_fakes import FakeClient, fail
from tests.unit.load_runs import made


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    fake.outcome = {"state": "done", "result": made()}
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    monkeypatch.delenv("PIPO_DATA", raising=False)
    return fake


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(("bench", "load", *argv))
    return end.value.code if isinstance(end.value.code, int) else 1


def test_defaults_are_the_jobs(client: FakeClient) -> None:
    from bench.load.spec import LoadSpec

    assert run() == 0
    kind, spec, _ = client.submitted[0]
    assert kind == "load" and all(getattr(LoadSpec(), name) == value for name, value in spec.items()), spec


def test_all_that_was_given_is_submitted_and_is_a_spec(client: FakeClient, tmp_path: Path) -> None:
    from bench.load.spec import LoadSpec
    from bench.loading import read_spec

    (tmp_path / "key").write_text("k")
    given = ["pipo", "mine=lab/base:eagle:depth=2", "--rate", "2", "--rate", "4", "--arrivals", "gamma"]
    given += ["--burstiness", "0.5", "--slo", "ttft=0.5,tpot=0.02", "--requests", "7", "--duration", "9"]
    given += ["--input-tokens", "5", "--output-tokens", "6", "--timeout", "3", "--warmup", "0", "--max-batch", "2"]
    assert run(*given, "--temperature", "0", "--seed", "3", "--detach") == 0
    spec = client.submitted[0][1]
    assert spec["variants"] == ["pipo", {"name": "mine", "model": "lab/base", "method": {"name": "eagle", "depth": 2}}]
    assert (spec["rates"], spec["slo"], spec["duration_s"]) == ([2.0, 4.0], {"ttft": 0.5, "tpot": 0.02}, 9.0)
    assert read_spec(spec, LoadSpec, "load").burstiness == 0.5


def test_an_endpoint_is_submitted_with_its_key_by_path(client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret")
    given = ["org/m:7b", "--url", "http://127.0.0.1:1", "--api", "chat", "--api-key-file", str(tmp_path / "key")]
    assert run(*given, "--extra-body", '{"min_tokens": 4}') == 0
    spec = client.submitted[0][1]
    assert spec["variants"] == ["org/m:7b"] and spec["extra_body"] == {"min_tokens": 4} and spec["api"] == "chat"
    assert spec["api_key_file"] == str(tmp_path / "key") and "sk-secret" not in str(spec)


def test_a_trace_by_path_is_made_absolute(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "t.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    assert run("--trace", "t.csv", "--speedup", "10") == 0
    assert client.submitted[0][1]["trace"] == str(tmp_path / "t.csv")
    assert run("--trace", "mooncake", "--data", ".") == 0
    assert client.submitted[1][1]["trace"] == "mooncake" and client.submitted[1][1]["data"] == str(tmp_path)


def test_the_result_is_rates_times_and_ratios(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert said[0] == "torch: random prompts; good: ttft 0.1 s, tpot 0.02 s"
    first = next(line for line in said if line.startswith("pipo 2/s 40/40"))
    assert "83" in first and "100.0" in first and first.endswith("12.5")
    assert any(line.startswith("pipo 4/s gap of tokens 0 [0, 0]") for line in said)
    assert any(line.startswith("regular 4/s gap of tokens 20 [20, 20]") for line in said)
    assert "pipo, 4/s: 2 failed: HTTP 500: lost" in said
    assert any("RAPL, 1 package" in line for line in said)
    assert any(line.startswith("client (engine) against what answers at once: 0.01 ms a request") for line in said)


def test_a_search_is_said_in_a_sentence(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    share = {"value": 0.97, "se": 0.01, "low": 0.93, "high": 0.99, "n": 100}
    found = [
        {"variant": "regular", "rate": 3.5, "share": share, "next": 4.0, "probes": []},
        {"variant": "pipo", "rate": None, "share": None, "next": 0.1, "probes": []},
    ]
    client.outcome = {"state": "done", "result": made(found=found)}
    assert run("--find-rate", "--slo", "ttft=0.1") == 0
    said = capsys.readouterr().out
    assert "regular: 3.5 requests/s keep the SLO for 97.0% [93.0, 99.0] of them; 4/s does not" in said
    assert "pipo: no rate tried keeps 95% within the SLO, not even 0.1/s" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--rate", "0"), "--rate 0 must be a finite number above 0"),
        (("--rate", "-3"), "--rate -3"),
        (("--rate", "nan"), "--rate nan"),
        (("--duration", "0"), "--duration 0"),
        (("--speedup", "-1"), "--speedup -1"),
        (("--timeout", "inf"), "--timeout inf"),
        (("--slo", "ttft"), "must read NAME=SECONDS"),
        (("--slo", "ttft=fast"), "must read NAME=SECONDS"),
        (("--slo", "ttft=1,ttft=2"), "each once"),
        (("--slo", ""), "must read NAME=SECONDS"),
        (("--extra-body", "{oops"), "is no JSON"),
        (("--extra-body", "[1]"), "must be a JSON object"),
        (("--api", "images"), "--api 'images'"),
        (("--arrivals", "late"), "--arrivals 'late'"),
        (("--task", "no-such"), "unknown task 'no-such'"),
        (("x=lab/nothing:regular",), "lab/nothing"),
        (("x=lab/base:shout",), "unknown method 'shout'"),
        (("--cpu-rig",), "no effect on the torch engine"),
        (("--concurrency", "0"), "--concurrency"),
        (("--requests", "0"), "--requests"),
    ],
)
def test_wrong_values_are_refused(
    argv: tuple[str, ...], says: str, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err and not client.submitted


def test_a_job_that_finds_its_input_wrong_ends_with_its_message(
    client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.outcome = fail("BadInput", "unknown trace 'x'")
    assert run("--trace", "x") == 2 and "unknown trace 'x' (job 1)" in capsys.readouterr().err
