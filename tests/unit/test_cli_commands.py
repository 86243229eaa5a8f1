"""Commands of the line against a client without a daemon: what is submitted, what is printed where, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipo.cli import main
from pipo.errors import DaemonError
from tests.unit.cli_fakes import FakeClient, fail, job
from tests.unit.reports_runs import compare_summary, latency_summary, threshold_summary


class Said(NamedTuple):
    code: int
    out: str
    err: str


Pipo = Callable[..., Said]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeClient:
    """The client that every command gets; lab models resolve without a built family."""
    fake = FakeClient()
    monkeypatch.setattr("pipod.client.connect", fake.connect)
    monkeypatch.setattr("pipo.lab.resolve_model", lambda name, family=None: tmp_path / name)
    return fake


@pytest.fixture
def pipo(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> Pipo:
    def run(*argv: str) -> Said:
        with pytest.raises(SystemExit) as end:
            main(argv)
        code = end.value.code
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err, "control codes where no terminal is"
        return Said(code if isinstance(code, int) else 1, said.out, said.err)

    return run


def test_compare_submits_only_what_was_given(pipo: Pipo, client: FakeClient) -> None:
    assert pipo("bench", "compare").code == 0
    kind, spec, key = client.submitted[0]
    assert (kind, spec) == ("compare", {"k": 4, "seed": 0})
    assert key and len(key) == 32


def test_compare_submits_all_that_was_given(pipo: Pipo, client: FakeClient) -> None:
    said = pipo(
        "bench", "compare", "--task", "lab-chain", "--task", "lab-recall", "--k", "2", "--limit", "5", "--seed", "7",
        "--temperature", "0.5", "--top-k", "3", "--top-p", "0.9", "--presence-penalty", "1.5",
        "--variant", "a=lab/base:regular", "--variant", "b=lab/pipo-opd:pipo:threshold=0.8",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert client.submitted[0][1] == {
        "tasks": ["lab-chain", "lab-recall"], "k": 2, "limit": 5, "seed": 7,
        "sampling": {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "presence_penalty": 1.5},
        "variants": [
            {"name": "a", "model": "lab/base", "method": {"name": "regular"}},
            {"name": "b", "model": "lab/pipo-opd", "method": {"name": "pipo", "threshold": 0.8}},
        ],
    }  # fmt: skip


def test_join_key_depends_on_settings_alone(pipo: Pipo, client: FakeClient) -> None:
    for argv in (["--k", "2"], ["--k", "2"], ["--k", "3"]):
        pipo("bench", "compare", *argv)
    first, again, other = (key for _, _, key in client.submitted)
    assert first == again != other


@pytest.mark.parametrize("argv", [["bench", "compare"], ["eval", "lab/base"], ["generate", "lab/base", "a"]])
def test_sampling_flags_reach_every_job_that_samples(argv: list[str], pipo: Pipo, client: FakeClient) -> None:
    flags = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.05, "presence_penalty": 1.5,
             "frequency_penalty": -0.25}  # fmt: skip
    given = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert pipo(*argv, *given, "--detach").code == 0
    assert client.submitted[0][1]["sampling"] == flags
    for flag, value in (("--min-p", "1.5"), ("--frequency-penalty", "nan"), ("--presence-penalty", "inf")):
        said = pipo(*argv, flag, value)
        assert said.code == 2 and flag[2:].replace("-", "_") in said.err, said.err


SUBMITTED = [
    (["eval", "lab/base", "--threshold", "0.8", "--slots", "90"], "eval",
     {"model": "lab/base", "method": {"name": "pipo", "threshold": 0.8}, "k": 4, "seed": 0, "slots": 90}),
    (["eval", "lab/base", "--method", "eagle", "--depth", "2"], "eval",
     {"model": "lab/base", "method": {"name": "eagle", "depth": 2}, "k": 4, "seed": 0}),
    (["bench", "latency", "--input-length", "64", "--keep", "0.5", "--trials", "2"], "latency",
     {"input_lengths": [64], "keep": [0.5], "trials": 2, "protocol": "ours", "seed": 0}),
    (["bench", "latency", "--shape", "qwen3.5-4b", "--dtype", "bfloat16", "--protocol", "paper", "--keep", "1",
      "--keep", "0.335"], "latency",
     {"shape": "qwen3.5-4b", "dtype": "bfloat16", "protocol": "paper", "keep": [1.0, 0.335], "seed": 0}),
    (["ablate", "threshold", "--threshold", "1", "--threshold", "0.5", "--no-random"], "ablate-threshold",
     {"model": "lab/pipo-opd", "thresholds": [0.5, 1.0], "k": 4, "seed": 0, "random": False}),
    (["lab", "build", "--quick"], "lab-build", {"quick": True, "workers": 2}),
    (["generate", "lab/pipo-opd", "one two", "--tokens", "9"], "generate",
     {"model": "lab/pipo-opd", "prompt": "one two", "seed": 0, "max_tokens": 9}),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "kind", "spec"), SUBMITTED, ids=lambda v: v if isinstance(v, str) else "")
def test_other_jobs_submit_their_settings(
    argv: list[str], kind: str, spec: dict, pipo: Pipo, client: FakeClient
) -> None:
    said = pipo(*argv, "--detach")
    assert said.code == 0, said.err
    assert client.submitted[0][:2] == (kind, spec)
    assert said.out == "1\n", "only the job's number goes to stdout"


def test_training_takes_toml_and_single_settings(pipo: Pipo, client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("lr = 1e-3\nepochs = 2.0\n")
    (tmp_path / "d.jsonl").write_text("{}\n")
    data = str(tmp_path / "d.jsonl")
    said = pipo("train", "sft", "lab/base", "--data", data, "--config", str(tmp_path / "s.toml"), "--set", "lr=1e-4",
                "--set", "compressor=linear", "--out", str(tmp_path / "out"))  # fmt: skip
    assert said.code == 0, said.err
    kind, spec = client.submitted[0][:2]
    assert kind == "train-sft"
    want = {"lr": 1e-4, "epochs": 2.0, "compressor": "linear", "model": "lab/base", "seed": 0, "data": data,
            "out": str(tmp_path / "out")}  # fmt: skip
    assert {k: spec[k] for k in want} == want
    assert (spec["tuner"], spec["augmentation"]) == ("full", "shift"), "models of the lab get the lab's recipe"
    pipo("train", "opd", "lab/pipo-sft", "lab/teacher", "--data", data)
    assert client.submitted[1][1]["teacher"] == "lab/teacher"
    pipo("train", "opd", "--model", "lab/pipo-sft", "--teacher", "lab/teacher", "--data", data)
    pipo("train", "opd", "--model", "lab/pipo-sft", "lab/teacher", "--data", data)
    assert client.submitted[1][1] == client.submitted[2][1] == client.submitted[3][1]
    pipo("train", "sft", "--model", "lab/base", "--data", "lab-chain")
    assert client.submitted[4][1]["model"] == "lab/base" and client.submitted[4][1]["data"].endswith(
        "lab-chain-gold.jsonl"
    )
    assert "MODEL is missing" in pipo("train", "sft", "--data", data).err
    assert "MODEL is given twice" in pipo("train", "sft", "lab/base", "--model", "lab/base", "--data", data).err
    assert pipo("train", "sft", "lab/base", "--data", data, "--set", "lr").code == 2
    assert pipo("train", "sft", "lab/base", "--data", str(tmp_path / "none")).code == 2


RESULTS = {"compare": compare_summary, "latency": latency_summary, "ablate-threshold": threshold_summary}
ARGV = {"compare": ["bench", "compare"], "latency": ["bench", "latency"], "ablate-threshold": ["ablate", "threshold"]}
LINES = {
    "compare": "pipo-opd   overall     52.3 ±3.0  80.0 ±3.5   31   44.0    81    590       0",
    "latency": "pipo-opd, keep 1  8192  117.7  4.6  4.5  -  2  100  -  -  2.32 [2.18, 2.44]  1.70 [1.60, 1.78]",
    "ablate-threshold": "0.95       confidence         25  59.4 ±3.0  89.4 ±3.5   44.0",
}


@pytest.mark.parametrize("kind", RESULTS)
def test_result_is_a_table_on_stdout(kind: str, pipo: Pipo, client: FakeClient) -> None:
    client.outcome["result"] = RESULTS[kind]()
    said = pipo(*ARGV[kind])
    assert said.code == 0
    squeezed = [" ".join(line.split()) for line in said.out.splitlines()]
    assert " ".join(LINES[kind].split()) in squeezed, said.out
    assert "took 7.4s; its records are in /jobs/1" in said.err


@pytest.mark.parametrize("kind", RESULTS)
def test_json_has_stdout_to_itself(kind: str, pipo: Pipo, client: FakeClient) -> None:
    client.outcome["result"] = RESULTS[kind]()
    client.play(("log", {"text": "hello"}), ("progress", {"done": 1, "total": 2}))
    said = pipo(*ARGV[kind], "--json")
    value = json.loads(said.out)
    assert (value["job"], value["kind"], value["state"], value["folder"]) == (1, kind, "done", "/jobs/1")
    assert value["result"] == RESULTS[kind]()
    assert "hello" in said.err


def test_progress_as_plain_lines(pipo: Pipo, client: FakeClient) -> None:
    client.play(
        ("log", {"text": "loading"}),
        *(("progress", {"done": n, "total": 10, "note": "lab-chain", "tokens_s": 123.4}) for n in (1, 2, 10)),
    )
    lines = pipo("bench", "compare").err.splitlines()
    assert lines[:4] == [
        "job 1: compare", "loading", "1/10 · lab-chain · 123 tokens/s", "10/10 · lab-chain · 123 tokens/s",
    ]  # fmt: skip


def test_joined_job_is_said_and_old_log_lines_are_left_out(pipo: Pipo, client: FakeClient) -> None:
    client.held[4] = job(4, "compare", "running")
    client.joins = 4
    client.play(("log", {"text": "an old line"}))
    said = pipo("bench", "compare")
    assert "job 4 with these very settings is running already: joined it" in said.err
    assert "an old line" not in said.err


def test_an_earlier_unfinished_job_is_mentioned(pipo: Pipo, client: FakeClient) -> None:
    client.held[4] = job(4, "compare", "cancelled", spec={"k": 4, "seed": 0})
    said = pipo("bench", "compare")
    assert "`pipo jobs resume 4`" in said.err


def test_ctrl_c_detaches_and_says_how_to_come_back(pipo: Pipo, client: FakeClient) -> None:
    client.play(("progress", {"done": 1, "total": 9}), KeyboardInterrupt())
    said = pipo("bench", "compare")
    assert said.code == 130
    assert "job 1 goes on" in said.err and "`pipo jobs wait 1`" in said.err and "`pipo jobs cancel 1`" in said.err
    assert client.cancelled == []


FAILURES = [
    ("BadModel", 2, "has no PAD (job 1)"),
    ("JobFailed", 1, "pipo jobs resume 1"),
    ("DaemonError", 3, "pipo jobs logs 1"),
    ("SomethingElse", 1, "job 1 failed: has no PAD"),
]


@pytest.mark.parametrize(("type", "code", "words"), FAILURES)
def test_failed_job_ends_with_its_class(type: str, code: int, words: str, pipo: Pipo, client: FakeClient) -> None:
    client.outcome = fail(type, "has no PAD")
    said = pipo("bench", "compare", "--json")
    assert said.code == code
    assert words in said.err
    assert said.out == ""


def test_cancelled_elsewhere(pipo: Pipo, client: FakeClient) -> None:
    client.outcome = {"state": "cancelled"}
    said = pipo("bench", "compare")
    assert said.code == 130 and "was cancelled" in said.err


def test_daemon_that_goes_away(pipo: Pipo, client: FakeClient) -> None:
    client.play(("progress", {"done": 1, "total": 9}), DaemonError("the daemon stopped while job 1 ran"))
    said = pipo("bench", "compare")
    assert said.code == 3 and "the daemon stopped" in said.err


def test_starting_the_daemon_is_said(pipo: Pipo, client: FakeClient) -> None:
    client.running = False
    assert "started the daemon" in pipo("bench", "compare").err


def test_generate_streams_and_sums_up(pipo: Pipo, client: FakeClient) -> None:
    client.play(*(("token", {"text": t, "kept": None, "confidence": None}) for t in ("a = 4", " so 4")))
    figures = {"kept_share": 0.5, "offered": 4, "ttft_s": 0.0123, "tpot_s": 0.004}
    client.outcome["result"] = {"text": "a = 4 so 4", "tokens": 6, "slots": 4, "finish": "eos"} | figures
    said = pipo("generate", "lab/base", "a ?")
    assert said.out == "a = 4 so 4\n"
    words = "6 tokens in 4 slots, ended by eos · 50 % of 4 drafts kept · first token 12.3 ms, then 4.0 ms a token"
    assert words in said.err
    said = pipo("generate", "lab/base", "a ?", "--json")
    assert json.loads(said.out)["result"]["text"] == "a = 4 so 4"


def test_report_takes_jobs_and_folders(
    pipo: Pipo, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(folders: list[Path], out: Path, model_folder: object = None) -> Path:
        (out / "report.md").write_text(f"{folders}")
        return out / "report.md"

    monkeypatch.setattr("reports.build", build)
    folder = tmp_path / "t"
    folder.mkdir()
    client.held[5] = job(5, "ablate-threshold", folder=str(folder))
    client.held[6] = job(6, "compare", "running")
    out = tmp_path / "out"
    said = pipo("report", "--out", str(out), "--json")
    assert json.loads(said.out)["report"] == str(out / "report.md")
    assert json.loads(said.out)["runs"] == [str(folder)]
    assert pipo("report", "6", "--out", str(out)).err.startswith("pipo: job 6 is running")
    assert pipo("report", "elsewhere", "--out", str(out)).code == 2
    assert pipo("report", "99", "--out", str(out)).code == 2


def test_the_command_lines_speed_is_measured() -> None:
    from bench.cli_speed import COMMANDS, cpu_s

    bare, helped = (cpu_s(COMMANDS[name]) for name in ("python", "pipo --help"))
    assert 0 < bare < helped, "help costs more than starting Python"


def test_report_without_finished_jobs(pipo: Pipo, tmp_path: Path) -> None:
    said = pipo("report", "--out", str(tmp_path / "out"))
    assert said.code == 2 and "pipo bench compare" in said.err
