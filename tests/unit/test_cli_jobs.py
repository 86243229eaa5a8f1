"""``pipo jobs``, ``models``, ``status``, ``up``, ``down`` against a client without a daemon; and pure parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipo.cli import models
from pipo.cli.options import check_method, check_out, check_tasks, parse_variant, parse_variants
from pipo.cli.output import cell, duration, table_lines
from pipo.cli.progress import Pace
from pipo.errors import BadInput, BadModel
from tests.unit.cli_fakes import FakeClient, fail, job
from tests.unit.test_cli_commands import Pipo, client, pipo

__all__ = ["client", "pipo"]  # fixtures


def test_jobs_are_listed_newest_first(pipo: Pipo, client: FakeClient) -> None:
    client.held = {1: job(1, spec={"k": 4, "model": "lab/base"}), 2: job(2, "eval", **fail("BadModel", "no PAD\nmore"))}
    said = pipo("jobs", "list")
    lines = said.out.splitlines()
    assert lines[0].split() == ["job", "kind", "state", "created", "took", "about"]
    assert lines[2].startswith("2    eval     failed") and lines[2].endswith("7.4s  no PAD")
    assert lines[3].endswith("k=4 model=lab/base")
    assert pipo("jobs").out == said.out, "`pipo jobs` alone lists"
    rows = json.loads(pipo("jobs", "list", "--json").out)
    assert [(r["job"], r["state"]) for r in rows] == [(2, "failed"), (1, "done")]
    assert rows[0]["error"] == {"type": "BadModel", "message": "no PAD\nmore"}


def test_logs_as_lines_and_as_json(pipo: Pipo, client: FakeClient) -> None:
    client.held[1] = job(1)
    client.play(("log", {"text": "loading"}), ("progress", {"done": 1, "total": 2, "note": "x", "rate": 3.0}))
    lines = pipo("jobs", "logs", "1").out.splitlines()
    assert lines[0].endswith("log       loading")
    assert lines[1].endswith("progress  1/2 x · rate 3")
    events = [json.loads(line) for line in pipo("jobs", "logs", "1", "--json").out.splitlines()]
    assert [(e["seq"], e["kind"]) for e in events] == [(1, "log"), (2, "progress")]
    assert pipo("jobs", "logs", "7").code == 2
    assert pipo("jobs", "logs", "seven").code == 2


def test_wait_prints_the_result_by_kind(pipo: Pipo, client: FakeClient) -> None:
    client.held[1] = job(1, "lab-build", "running")
    client.outcome["result"] = {"family": "/f", "tasks": {"lab-chain": {"levels": [6]}}, "sizes": {"base": 3}}
    said = pipo("jobs", "wait", "1")
    assert said.out.splitlines() == ["family: /f", "tasks: 1 entries (--json shows them)", "sizes: base 3"]


def test_cancel_and_resume(pipo: Pipo, client: FakeClient) -> None:
    client.held = {1: job(1, state="running"), 2: job(2, state="done")}
    said = pipo("jobs", "cancel", "1")
    assert said.code == 0 and "`pipo jobs resume 1`" in said.err and client.held[1].state == "cancelled"
    assert "had ended already (done)" in pipo("jobs", "cancel", "2").err
    said = pipo("jobs", "resume", "1", "--detach")
    assert (said.out, client.held[1].state) == ("1\n", "queued")
    assert "goes on from what it has" in said.err


def test_status_up_down(pipo: Pipo, client: FakeClient) -> None:
    out = pipo("status").out
    for words in ("running: pid 11", "up 1m15s", "2 done, 1 running", "worker: busy, pid 12", "job 3, compare 40/120",
                  "/models/pipo-opd", "4.5"):  # fmt: skip
        assert words in out, words
    assert json.loads(pipo("status", "--json").out)["status"]["pid"] == 11
    assert "running already" in pipo("up").err
    client.held[3] = job(3, state="running")
    said = pipo("down")
    assert said.code == 0 and "unfinished job 3" in said.err
    assert pipo("down").err == "no daemon runs\n"
    said = pipo("status")
    assert said.code == 3 and "`pipo up`" in said.err
    said = pipo("status", "--json")
    assert said.code == 3 and json.loads(said.out)["running"] is False
    assert pipo("up").err == "the daemon is up\n"


def model_folder(folder: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> Path:
    """A folder with a config and the header of a safetensors file; no weights follow it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({n: {"dtype": "BF16", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def test_models_are_described_from_headers(tmp_path: Path) -> None:
    text = {"model_type": "qwen3_5_text", "num_hidden_layers": 8, "hidden_size": 96}
    folder = model_folder(
        tmp_path / "m",
        {"text_config": text, "compressor_type": "mlp"},
        {"compressor.mlp.0.weight": [192, 192], "model.norm.weight": [96], "model.visual.x": [1000, 1000]},
    )
    row = models.describe("mine", folder)
    assert (row["kind"], row["parameters"], row["layers"], row["hidden"]) == ("pipo", 192 * 192 + 96, 8, 96)
    assert row["problem"] is None


@pytest.mark.parametrize("damage", ["no json", "no header", "huge header", "no weights"])
def test_a_broken_model_is_a_row_with_its_problem(damage: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", {"model_type": "qwen3"}, {"a": [2]})
    if damage == "no json":
        (folder / "config.json").write_text("{")
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "model.safetensors").write_bytes(b"\xff" * 20 if damage == "huge header" else b"")
    row = models.describe("m", folder)
    assert row["problem"], row


def test_models_lists_built_and_named_ones(
    pipo: Pipo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: FakeClient
) -> None:
    monkeypatch.setenv("PIPO_HOME", str(tmp_path))
    config = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 8}
    built = model_folder(tmp_path / "models" / "lab" / "base", config, {"a": [10, 100]})
    model_folder(tmp_path / "models" / "lab" / "stages" / "base", config, {"a": [1]})
    other = model_folder(tmp_path / "elsewhere", config, {"a": [2000, 1000]})
    rows = {r["name"]: r for r in json.loads(pipo("models", str(other), "--json").out)}
    assert rows[str(built)]["parameters"] == 1000
    assert rows[str(other)]["parameters"] == 2_000_000
    assert not any("stages" in name for name in rows)
    assert "2.00 M" in pipo("models", str(other)).out
    assert pipo("models", str(tmp_path / "none")).code == 2


def test_variants_are_parsed(tmp_path: Path, client: FakeClient) -> None:
    assert parse_variant("a=lab/base:eagle:depth=2") == {
        "name": "a", "model": "lab/base", "method": {"name": "eagle", "depth": 2},
    }  # fmt: skip
    odd = model_folder(tmp_path / "x:y", {}, {})
    parsed = parse_variant(f"a={odd}:random:keep_rate=0.5")
    assert parsed["model"] == str(odd)
    assert parse_variants(None) is None


BAD_VARIANTS = ["", "a", "a=", "a=lab/base", "=lab/base:regular", "a=lab/base:", "a=lab/base:pipo:tau=0.5", "a=b:c:d:e",
                "a=b:pipo:threshold=x", "a=b:pipo:threshold=2", "a=b:regular:threshold=0.5"]  # fmt: skip


@pytest.mark.parametrize("text", BAD_VARIANTS)
def test_bad_variants_are_refused(text: str, client: FakeClient) -> None:
    with pytest.raises(BadInput):
        parse_variant(text)


def test_equal_names_and_missing_configs_are_refused(tmp_path: Path, client: FakeClient) -> None:
    with pytest.raises(BadInput, match="two variants are named 'a'"):
        parse_variants(["a=lab/base:regular", "a=lab/base:mtp"])
    with pytest.raises(BadModel, match=r"config\.json"):
        parse_variant(f"a={tmp_path}:regular")


def test_tasks_and_variants_may_be_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("items.jsonl", "rows.toml"):
        (tmp_path / name).touch()
    assert check_tasks(["lab-chain", "items.jsonl"]) == ["lab-chain", str(tmp_path / "items.jsonl")]
    assert parse_variants(["rows.toml"]) == [str(tmp_path / "rows.toml")]
    for check, name in ((check_tasks, "none.jsonl"), (check_tasks, "chess"), (parse_variants, "none.toml")):
        with pytest.raises(BadInput, match=name.partition(".")[0]):
            check([name])
    with pytest.raises(BadInput, match="twice"):
        check_tasks(["lab-chain", "lab-chain"])


def test_a_family_of_ones_own(pipo: Pipo, client: FakeClient, tmp_path: Path) -> None:
    assert pipo("bench", "compare", "--family", str(tmp_path / "none")).code == 2
    (tmp_path / "manifest.json").write_text('{"size": "quick", "seed": 0, "models": {}, "tasks": {}}')
    for argv in (["bench", "compare"], ["bench", "latency"], ["ablate", "threshold"], ["eval", "lab/base"],
                 ["generate", "lab/base", "a"]):  # fmt: skip
        assert pipo(*argv, "--family", str(tmp_path), "--detach").code == 0
        assert client.submitted[-1][1]["family"] == str(tmp_path)


def test_a_setting_of_another_method_is_refused() -> None:
    with pytest.raises(BadInput, match="--depth has no effect on method pipo"):
        check_method("pipo", threshold=0.5, depth=3)
    assert check_method(None, depth=3) == {"name": "eagle", "depth": 3}
    assert check_method(None) is None


def test_out_is_made_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_out(Path("a/b")) == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_cells_and_durations() -> None:
    assert [cell(v) for v in (None, True, 3, 0.12345, 1234.5, "x")] == ["-", "yes", "3", "0.123", "1234", "x"]
    assert [duration(v) for v in (None, 3.21, 59.6, 61, 3661)] == ["-", "3.2s", "60s", "1m01s", "1h01m"]
    assert table_lines(["a", "n"], [["x", 1], ["long", 22]]) == ["a      n", "----  --", "x      1", "long  22"]


def test_pace_estimates_what_is_left() -> None:
    pace = Pace()
    assert pace.eta_s is None
    for second, done in enumerate((10, 12, 14)):
        pace.progress(100.0 + second, {"done": done, "total": 20, "note": "n"})
    assert pace.eta_s == pytest.approx(3.0)
    pace.progress(110.0, {"done": 1, "total": 5, "note": "another phase"})
    assert pace.eta_s is None
    pace.metric({"loss": 1.25})
    assert pace.words() == "another phase · loss 1.25"
