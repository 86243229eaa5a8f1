"""``pipo report diff``: words, tables, exit status, jobs and folders; and ``pipo report`` alone still is a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.diff import Settings, compare
from pipo.cli.report import app as report_group
from pipo.engine.types import Draft
from reports import diff
from tests.unit.cli_fakes import FakeClient, job
from tests.unit.diff_sides import chances, drawn, folder, header, latency, samples, write
from tests.unit.test_cli_commands import Pipo, client, pipo  # noqa: F401  (fixtures)

RNG = np.random.default_rng(5)
P = chances(RNG, 40)
OLD = {("x", "t"): drawn(RNG, P), ("x", "u"): drawn(RNG, P)}
BETTER = {key: table | (RNG.random(table.shape) < 0.5) for key, table in OLD.items()}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    return str(folder(tmp_path / "a", OLD)), str(folder(tmp_path / "b", BETTER))


def test_exit_status_is_a_gate(pipo: Pipo, runs: tuple[str, str]) -> None:  # noqa: F811
    a, b = runs
    good, bad, refused = pipo("report", "diff", a, b), pipo("report", "diff", b, a), pipo("report", "diff", a, "none")
    assert (good.code, bad.code, refused.code) == (0, 1, 2)
    assert "No settled worsening among 2 comparisons (2 better" in good.out
    assert "Worse: 2 of 2 comparisons, after Holm: x on all tasks, loose budget, avg@4 −" in bad.out
    assert "worse, fails" in bad.out and "neither a run folder nor a job" in refused.err
    assert pipo("report", "diff", b, a, "--fail-if-worse", "60").code == 0
    assert pipo("report", "diff", a, b, "--fail-if-worse", "5", "--non-inferiority").code == 0
    assert pipo("report", "diff", a, b, "--non-inferiority").code == 2
    assert pipo("report", "diff", a).code == 2


def test_json_is_what_was_computed(pipo: Pipo, runs: tuple[str, str]) -> None:  # noqa: F811
    said = pipo("report", "diff", *runs, "--json", "--metric", "slots", "--alpha", "0.01")
    found = json.loads(said.out)
    expected = compare(Path(runs[0]), Path(runs[1]), Settings(metrics=["slots"], alpha=0.01))
    assert found == json.loads(json.dumps(expected))


def test_markdown_is_written_by_rename_and_unwritable_files_are_named(
    pipo: Pipo, runs: tuple[str, str], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    out = tmp_path / "gate.md"
    assert pipo("report", "diff", *runs, "--out", str(out)).code == 0
    text = out.read_text()
    assert text == diff.page(compare(Path(runs[0]), Path(runs[1]), Settings()))
    for needed in ("# Two runs compared", "**No settled worsening**", "| x | all tasks | loose | avg@4 |",
                   "Task by task", "McNemar", "Nothing: settings, models"):  # fmt: skip
        assert needed in text, needed
    assert not out.with_name("gate.md.tmp").exists()
    said = pipo("report", "diff", *runs, "--out", str(tmp_path / "no" / "gate.md"))
    assert said.code == 2 and "--out" in said.err


@pytest.mark.parametrize("pair", ["x", "=x", "x="])
def test_map_must_read_old_new(pair: str, pipo: Pipo, runs: tuple[str, str]) -> None:  # noqa: F811
    said = pipo("report", "diff", *runs, "--map", pair)
    assert said.code == 2 and "OLD=NEW" in said.err


def test_jobs_by_number(pipo: Pipo, client: FakeClient, runs: tuple[str, str]) -> None:  # noqa: F811
    client.held[5] = job(5, "compare", folder=runs[0])
    client.held[6] = job(6, "compare", folder=runs[1])
    client.held[7] = job(7, "compare", "running")
    assert pipo("report", "diff", "5", "6").code == 0 and pipo("report", "diff", "6", "5").code == 1
    assert "job 7 is running" in pipo("report", "diff", "5", "7").err


def test_a_word_that_is_no_command_is_a_run(pipo: Pipo, runs: tuple[str, str]) -> None:  # noqa: F811
    assert set(c.name for c in report_group.registered_commands) == {"diff", "write"}
    assert "'nowhere' is neither a run folder nor a job number" in pipo("report", "nowhere").err
    assert "pipo report [OPTIONS] [[JOB|FOLDER]" in " ".join(pipo("report", "--help").out.split())


def test_latency_speaks_of_ratios(tmp_path: Path) -> None:
    times = [1.00, 1.02, 0.98, 1.01, 0.99, 1.03, 0.97, 1.00]
    a = latency(tmp_path / "a", {("x", 512): times})
    b = latency(tmp_path / "b", {("x", 512): [1.2 * t for t in times]}, device="H100")
    text = diff.page(compare(a, b, Settings(margin=5)))
    assert "| variant | input tokens | metric | A | B | B ÷ A [95%] |" in text
    assert "**Worse:** 2 of 2 comparisons, by more than 5 % after Holm: x after 512 tokens, TTFT 1.200 [" in text
    assert "| x | 512 | TTFT | 1000 ms | 1200 ms | 1.200 [" in text and "the devices differ (cpu, H100)" in text


def test_worse_by_its_own_interval_alone_does_not_fail(tmp_path: Path) -> None:
    """A loss that one comparison would show, among nine: its interval leaves out 0, and Holm does not let it pass."""
    old: dict[tuple[str, str], Any] = {(f"v{i}", "t"): drawn(RNG, P) for i in range(9)}
    lost = old["v0", "t"].copy()
    lost[tuple(np.argwhere(lost)[::11].T)] = False
    new = {**old, ("v0", "t"): lost}
    found = compare(folder(tmp_path / "a", old), folder(tmp_path / "b", new), Settings(metrics=["avg"]))
    row = found["rows"][0]
    assert row["settled"] == "worse" and 0.05 / 9 < row["p"] < 0.05, row["p"]
    assert not row["failed"] and "worse, not after Holm" in diff.page(found)
    alone = compare(
        folder(tmp_path / "e", {("v0", "t"): old["v0", "t"]}), folder(tmp_path / "f", {("v0", "t"): lost}),
        Settings(metrics=["avg"]),
    )  # fmt: skip
    assert alone["failed"] == [0], "alone it fails"
    wide = compare(folder(tmp_path / "c", old), folder(tmp_path / "d", new), Settings(metrics=["avg"], margin=30))
    assert "worse, within the margin" in diff.page(wide) and not wide["failed"]


def test_what_was_cut_failed_or_padded_stands_beside_the_differences(pipo: Pipo, tmp_path: Path) -> None:  # noqa: F811
    """Of four samples, slots 4 to 7 under budgets of 5 and 9: A cuts two in the tight one; B fails once, keeps less."""
    budgets = {"t": {"tight": 5, "loose": 9}}
    run = header({("x", "t"): np.ones((2, 2), bool)})
    run.budgets = budgets
    old = samples({("x", "t"): np.ones((2, 2), bool)})
    for i, r in enumerate(old):
        r.slots, r.drafts = 4 + i, [Draft(3, True), Draft(4, i < 3)]
    new = [msgspec.structs.replace(r, drafts=[Draft(3, i == 0)]) for i, r in enumerate(old)]
    new[3] = msgspec.structs.replace(new[3], correct=False, finish="failed", slots=2)
    a, b = write(tmp_path / "a", run, old), write(tmp_path / "b", run, new)
    found = compare(a, b, Settings())
    tight, loose = found["counts"]
    assert (tight["budget"], tight["cut"], tight["failed"], tight["samples"]) == ("tight", [2, 1], [0, 1], [4, 4])
    assert (loose["budget"], loose["cut"]) == ("loose", [0, 0])
    assert (loose["offered"], loose["kept"]) == ([8, 4], [7, 1])
    assert diff.lost(found)[0] == ["x", "tight", "4", "50.0 → 25.0", "0 → 1", "87.5 → 25.0"]
    assert "| x | tight | 4 | 50.0 → 25.0 | 0 → 1 | 87.5 → 25.0 |" in diff.page(found)
    assert "50.0 → 25.0" in pipo("report", "diff", str(a), str(b)).out
    assert compare(a, b, Settings(tasks=["t"]))["counts"] == found["counts"]
